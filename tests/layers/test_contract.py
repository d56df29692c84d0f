"""Every layer of the catalogue against the contract, on the backend of this process: one table of cases."""

import keras
import numpy as np
import pytest

import keras_dropout
from keras_dropout import layers
from keras_dropout.testing import Case, check_layer

BLOCKS = {
    "drop_frequency": "the share of a map varies with how its blocks overlap; tests/layers/test_regions.py has its expectation",
    "mean_is_kept": "blocks leave the border out more often than the middle; the sum of a map is kept exactly",
}
ONE_LESS = {"rate": 1}


def signs(shape):
    return lambda generator: (generator.choice([-1, 1], shape) * generator.uniform(1, 2, shape)).astype("float32")


def normalized(edges, normalize):
    degrees = edges.sum(axis=-1, keepdims=True)
    return {"symmetric": edges / np.sqrt(degrees * degrees.swapaxes(-1, -2)), "row": edges / degrees, "none": edges}[normalize]


ALPHA = {"mean_is_kept": "for inputs of mean 0 and variance 1 only; tests/layers/test_units.py has its moments"}
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
    "RandomErasing": [
        Case(
            {"rate": 0.5, **more},
            shape,
            shared=shared,
            drops="other",
            exempt={"mean_is_kept": "the method does not scale what is left"},
            bad=({"scale": (0, 0.3)}, {"scale": (0.3, 1.1)}, {"ratio": (2, 1)}, {"ratio": 1}, {"value": "noise"}),
        )
        for more, shape, shared in (({}, (64, 9, 8, 3), (3,)), ({"data_format": "channels_first"}, (64, 3, 9, 8), (1,)))
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
    "ShakeShake": [
        Case(
            {},
            (512, 2, 4),
            drops="other",
            inference=lambda layer, x: x.mean(axis=1),
            exempt={
                "units_share_draws": "two branches become one; tests/layers/test_shake_shake.py looks at the weights",
                "gradient_matches": "the gradient has a factor of its own by design",
                "masking_is_passed_on": "steps cannot be masked where the second axis holds the branches",
                **dict.fromkeys(
                    ("identity_at_rate_zero", "rate_can_change_while_compiled", "bad_arguments_are_refused"), "it has no rate"
                ),
            },
        )
    ],
    "DropEdge": [
        Case(
            {"rate": 0.3, "normalize": normalize},
            (32, 7, 7),
            drops="other",
            inference=lambda layer, x: normalized(x, layer.normalize),
            exempt={"mean_is_kept": "the method does not scale what it keeps"},
            bad=({"normalize": "column"},),
        )
        for normalize in ("symmetric", "row", "none")
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
    # steps
    # learned
}
NO_LAYERS = {"DropPath", "linear_decay"}


def test_every_layer_has_a_case():
    assert set(CASES) == set(layers.__all__) - NO_LAYERS


@pytest.mark.parametrize(("name", "number"), [(name, number) for name, cases in CASES.items() for number in range(len(cases))])
def test_contract(name, number):
    check_layer(getattr(keras_dropout, name), CASES[name][number])
