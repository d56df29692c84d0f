"""A tool that checks what every dropout layer must satisfy: `check_layer(cls, cases)`, for our own layers and for yours.

A layer of your own needs a base and the axes along which it shares a draw. `check_layer` then tests it on the backend of the
process: in eager and in compiled calls, under every dtype policy, saved, cloned and in a model:

    >>> from keras_dropout.layers.base import MaskLayer
    >>> from keras_dropout.testing import Case, check_layer, violations
    >>> class RowDropout(MaskLayer):
    ...     "Drops whole examples."
    ...     def mask_shape(self, shape):
    ...         return (shape[0],) + (1,) * (len(shape) - 1)
    >>> check_layer(RowDropout, Case({"rate": 0.3}, shape=(256, 20), shared=(1,)))

Properties that do not hold are reported by name. Here the case does not mention the shared draws:

    >>> violations(RowDropout, Case({"rate": 0.3}, shape=(256, 20)), only=["units_share_draws"])
    [('units_share_draws', 'draws are shared along axis 1')]

It works for any Keras layer that takes a `seed` and, if it has a rate, a `rate`, as a number or as a variable. A layer in plain
Keras cannot satisfy everything: for example, the state of a `keras.random.SeedGenerator` is not saved with a model. What a layer is
not meant to do goes into its case, with the reason: `Case(..., exempt={"saved_model_goes_on": "Keras saves no seed generator"})`.
"""

from keras_dropout.testing.contract import PROPERTIES, BrokenContract, Case, check_layer, violations

__all__ = ["PROPERTIES", "BrokenContract", "Case", "check_layer", "violations"]
