"""What the command line offers, a function a command: each parses, calls one function, and prints."""
