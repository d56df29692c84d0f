"""One run, in one process: its model, its epochs in one of three engines, and what is measured."""
