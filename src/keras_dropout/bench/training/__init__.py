"""Train one run in one process: build its model, train it in one of three engines, measure it."""
