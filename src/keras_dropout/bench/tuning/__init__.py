"""A placement searched for on validation data, or one rate swept."""
