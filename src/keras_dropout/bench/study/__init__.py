"""Turn a request into a valid study: settings, targets, checks, and the plan."""
