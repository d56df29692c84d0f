"""What is asked for, found valid: settings, targets, checks, and the plan of a study."""
