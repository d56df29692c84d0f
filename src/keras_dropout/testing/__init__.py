"""What every dropout layer must satisfy, as a tool: `check_layer(cls, cases)`. For our own layers and for yours."""

from keras_dropout.testing.contract import PROPERTIES, BrokenContract, Case, check_layer, violations

__all__ = ["PROPERTIES", "BrokenContract", "Case", "check_layer", "violations"]
