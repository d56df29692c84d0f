"""Search for a placement on validation data, or sweep one rate."""
