"""What every dropout layer must satisfy, as a tool: `check_layer(cls, cases)`. For our own layers and for yours.

A layer of your own needs a base and the axes along which it shares a draw; `check_layer` then tries it, in eager and in compiled
calls, under every dtype policy, saved, cloned and in a model, on the backend of the process:

    >>> from keras_dropout.layers.base import MaskLayer
    >>> from keras_dropout.testing import Case, check_layer, violations
    >>> class RowDropout(MaskLayer):
    ...     "Drops whole examples."
    ...     def mask_shape(self, shape):
    ...         return (shape[0],) + (1,) * (len(shape) - 1)
    >>> check_layer(RowDropout, Case({"rate": 0.3}, shape=(256, 20), shared=(1,)))

What does not hold is told by name, here because the case says nothing of shared draws:

    >>> violations(RowDropout, Case({"rate": 0.3}, shape=(256, 20)), only=["units_share_draws"])
    [('units_share_draws', 'draws are shared along axis 1')]

It works for any Keras layer that takes a `seed` and, if it has one, a `rate`, as a number or as a variable. One in plain Keras
cannot meet everything: the state of a `keras.random.SeedGenerator` is not saved with a model, for one. What a layer is not
meant to do goes into its case, with the reason: `Case(..., exempt={"saved_model_goes_on": "Keras saves no seed generator"})`.
"""

from keras_dropout.testing.contract import PROPERTIES, BrokenContract, Case, check_layer, violations

__all__ = ["PROPERTIES", "BrokenContract", "Case", "check_layer", "violations"]
