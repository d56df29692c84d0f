"""Every layer of the catalogue against the contract, on the backend of this process: one table of cases."""

import keras
import numpy as np
import pytest
from keras import ops

import keras_dropout
from keras_dropout import layers
from keras_dropout.testing import Case, check_layer

INNER = {"half_precision": "the wrapped layer has a policy of its own; tests/layers/test_weights.py has one policy for both"}
BLOCKS = {
    "drop_frequency": "the share of a map varies with how its blocks overlap; tests/layers/test_regions.py has its expectation",
    "mean_is_kept": "blocks leave the border out more often than the middle; the sum of a map is kept exactly",
}
ONE_LESS = {"rate": 1}


def signs(shape):
    return lambda generator: (generator.choice([-1, 1], shape) * generator.uniform(1, 2, shape)).astype("float32")


def with_lora(layer, shape):
    """The layer with an adapter that does something: Keras starts it at 0."""
    layer.build(shape)
    layer.enable_lora(3, b_initializer="glorot_uniform")
    return layer


def mean_tanh(layer, x):
    """E[tanh(u)] over normal values with the moments of DropConnect, without a dropped bias."""
    kernel, bias = (ops.convert_to_numpy(v).astype("float64") for v in (layer.layer.kernel, layer.layer.bias))
    mean, deviation = x @ kernel + bias, np.sqrt(layer.rate / (1 - layer.rate) * (x**2 @ kernel**2))
    z = np.linspace(-7, 7, 1001)
    density = np.exp(-(z**2) / 2)
    return sum(w * np.tanh(mean + deviation * point) for point, w in zip(z, density / density.sum()))


ALPHA = {"mean_is_kept": "for inputs of mean 0 and variance 1 only; tests/layers/test_units.py has its moments"}
MERGED = "Keras saves an adapter merged into the kernel; tests/layers/test_weights.py saves one"
SHAPE = (64, 5, 16)
CASES = {
    # units
    "Dropout": [
        Case({"rate": 0.3}, SHAPE, bad=({"noise_shape": (0, 1)},)),
        Case({"rate": 0.3, "noise_shape": (None, 1, None)}, SHAPE, shared=(1,)),
    ],
    "GaussianDropout": [Case({"rate": 0.3}, SHAPE, drops="noise", bad=(ONE_LESS,))],
    "AlphaDropout": [Case({"rate": 0.3}, SHAPE, drops="other", exempt=ALPHA, bad=(ONE_LESS,))],
    "FeatureAlphaDropout": [
        Case(
            {"rate": 0.3},
            (64, 4, 16),
            drops="other",
            inputs=lambda g: np.ones((64, 4, 16), "float32"),
            shared=(1,),
            exempt=ALPHA,
            bad=(ONE_LESS, {"data_format": "last"}),
        )
    ],
    # regions
    "SpatialDropout1D": [Case({"rate": 0.3}, (64, 4, 16), shared=(1,))],
    "SpatialDropout2D": [
        Case({"rate": 0.3}, (64, 3, 2, 16), shared=(1, 2), bad=({"data_format": "last"},)),
        Case({"rate": 0.3, "data_format": "channels_first"}, (64, 16, 3, 2), shared=(2, 3)),
    ],
    "SpatialDropout3D": [Case({"rate": 0.3}, (64, 2, 3, 2, 16), shared=(1, 2, 3))],
    "DropBlock1D": [Case({"rate": 0.3, "block_size": 3}, (64, 12, 4), exempt=BLOCKS, bad=({"block_size": 0},))],
    "DropBlock2D": [
        Case({"rate": 0.3, "block_size": 3}, (32, 9, 7, 4), exempt=BLOCKS, bad=({"block_size": (1, 2, 3)}, {"gamma": "other"})),
        Case(
            {"rate": 0.3, "block_size": (2, 3), "shared_channels": True, "data_format": "channels_first"},
            (32, 4, 9, 7),
            shared=(1,),
            exempt=BLOCKS,
        ),
    ],
    "DropBlock3D": [Case({"rate": 0.3, "block_size": 2}, (32, 4, 5, 6, 3), exempt=BLOCKS)],
    "Cutout": [
        Case(
            {"rate": 0.5, "size": 4},
            (64, 9, 8, 3),
            shared=(3,),
            drops="other",
            exempt={"mean_is_kept": "the method does not scale what is left"},
            bad=({"size": 0},),
        )
    ],
    "PatchDropout": [
        Case(
            {"rate": 0.5},
            (64, 9, 4),
            drops="other",
            exempt={
                "mean_is_kept": "takes tokens out",
                "units_share_draws": "takes tokens out",
                "rate_can_change_while_compiled": "the rate decides a shape",
                "masking_is_passed_on": "the tokens of a padding mask would be others",
            },
            bad=(ONE_LESS, {"prefix": -1}, {"ordered": 1}),
        )
    ],
    # paths
    "StochasticDepth": [
        Case({"rate": 0.3}, (512, 5, 4), shared=(1, 2), bad=({"mode": "column"},)),
        Case({"rate": 0.3, "mode": "batch"}, (16, 5), shared=(0, 1)),
    ],
    "ScheduledDropPath": [
        Case(
            {"rate": 0.3, "steps": 100_000},
            (512, 4),
            shared=(1,),
            drops="other",
            exempt=dict.fromkeys(
                ("units_share_draws", "other_seed_other_masks", "fresh_mask_each_call", "rate_can_change_while_compiled"),
                "the rate is 0 at first; tests/layers/test_paths.py follows it",
            ),
            bad=({"steps": 0},),
        )
    ],
    "ShakeDrop": [
        Case(
            {"rate": 0.5},
            (512, 4),
            shared=(1,),
            drops="other",
            inference=lambda layer, x: x * (1 - layer.rate),
            exempt={"gradient_matches": "the gradient has a factor of its own by design"},
            bad=({"alpha": (1, 0)}, {"mode": "column"}),
        )
    ],
    "LayerDrop": [
        Case(
            lambda: {"rate": 0.5, "layer": keras.layers.Rescaling(3.0)},
            (16, 4),
            shared=(0, 1),
            drops="other",
            inference=lambda layer, x: 3 * x,
            exempt={
                "mean_is_kept": "the method does not scale what it keeps",
                "wrong_inputs_are_refused": "what may come in is the wrapped layer's affair",
                "half_precision": "the wrapped layer has a policy of its own",
            },
        )
    ],
    # tokens
    # attention
    # weights
    "DropConnect": [
        Case(
            lambda: {"rate": 0.3, "layer": keras.layers.Dense(16, bias_initializer="normal")},
            SHAPE,
            drops="other",
            inference=lambda layer, x: x @ ops.convert_to_numpy(layer.layer.kernel) + ops.convert_to_numpy(layer.layer.bias),
            weights=2,
            exempt=INNER,
            bad=(ONE_LESS, {"per": "unit"}, {"drop_bias": 1}, {"inference": "sample"}),
        ),
        Case(
            lambda: {
                "rate": 0.3,
                "layer": keras.layers.Dense(16, "tanh", bias_initializer="normal"),
                "inference": "gaussian",
                "drop_bias": False,
            },
            (64, 16),
            drops="other",
            inference=mean_tanh,
            weights=2,
            exempt=INNER
            | {"mean_is_kept": "the mean over normal values is near that of training; tests/layers/test_weights.py has both"},
        ),
        Case(
            lambda: {"rate": 0.3, "layer": keras.layers.Conv2D(3, 3, padding="same"), "per": "batch"},
            (8, 6, 5, 3),
            drops="other",
            inference=lambda layer, x: ops.convert_to_numpy(layer.layer(x)),
            weights=2,
            exempt=INNER | {"masking_is_passed_on": "Conv2D does not"},
        ),
    ],
    "WeightDrop": [
        Case(  # linear in the kernel over two steps, so that the mean is kept
            lambda: {"rate": 0.3, "layer": keras.layers.SimpleRNN(8, activation="linear", return_sequences=True, unroll=True)},
            (32, 2, 8),
            drops="other",
            inference=lambda layer, x: ops.convert_to_numpy(layer.layer(x)),
            weights=3,
            exempt=INNER,
        ),
        Case(
            lambda: {"rate": 0.3, "layer": keras.layers.Bidirectional(keras.layers.LSTM(4, return_sequences=True, unroll=True))},
            (16, 3, 8),
            drops="other",
            inference=lambda layer, x: ops.convert_to_numpy(layer.layer(x)),
            weights=6,
            exempt=INNER | {"mean_is_kept": "not linear in the weights"},
        ),
    ],
    "LoRADropout": [
        Case(
            lambda: {"rate": 0.3, "layer": with_lora(keras.layers.Dense(16), SHAPE)},
            SHAPE,
            drops="other",
            inference=lambda layer, x: ops.convert_to_numpy(layer.layer(x)),
            weights=4,
            exempt=INNER | {"saved_model_goes_on": MERGED},
        ),
        Case(
            lambda: {"rate": 0.3, "layer": with_lora(keras.layers.EinsumDense("btc,cd->btd", (None, 16)), SHAPE)},
            SHAPE,
            drops="other",
            inference=lambda layer, x: ops.convert_to_numpy(layer.layer(x)),
            weights=3,
            exempt=INNER | {"saved_model_goes_on": MERGED, "masking_is_passed_on": "EinsumDense does not"},
        ),
    ],
    # steps
    # learned
}
NO_LAYERS = {"DropPath", "linear_decay"}


def test_every_layer_has_a_case():
    assert set(CASES) == set(layers.__all__) - NO_LAYERS


@pytest.mark.parametrize(("name", "number"), [(name, number) for name, cases in CASES.items() for number in range(len(cases))])
def test_contract(name, number):
    check_layer(getattr(keras_dropout, name), CASES[name][number])
