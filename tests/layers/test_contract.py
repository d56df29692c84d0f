"""Every layer of the catalogue against the contract, on the backend of this process: one table of cases."""

import keras
import numpy as np
import pytest
from keras import ops

import keras_dropout
from keras_dropout import layers
from keras_dropout.testing import Case, check_layer

RATELESS = dict.fromkeys(("identity_at_rate_zero", "rate_can_change_while_compiled"), "there is no rate")
UNMASKED = {"masking_is_passed_on": "Conv2D does not"}
UNBOUNDED = dict.fromkeys(
    ("identity_at_rate_zero", "rate_can_change_while_compiled"),
    "a learned rate is never 0; tests/layers/test_learned.py changes it in a compiled step",
)
BLOCKS = {
    "drop_frequency": "the share of a map varies with how its blocks overlap; tests/layers/test_regions.py has its expectation",
    "mean_is_kept": "blocks leave the border out more often than the middle; the sum of a map is kept exactly",
}
ONE_LESS = {"rate": 1}
FIXED = {"fresh_mask_each_call": "the masks are fixed", **RATELESS}
UNSCALED = {"mean_is_kept": "the method does not scale what is left"}
BANDS_BAD = ({"size": 0}, {"count": 0}, {"share": 0}, {"share": 1.1}, {"share": True}, {"value": float("inf")}, {"axis": 0})


def signs(shape):
    return lambda generator: (generator.choice([-1, 1], shape) * generator.uniform(1, 2, shape)).astype("float32")


def dense(layer, x, kernel=None):
    kernel, bias = (ops.convert_to_numpy(each) for each in (layer.layer.kernel if kernel is None else kernel, layer.layer.bias))
    return x @ kernel + bias


INPUT = keras.layers.InputLayer((3,))


def with_lora(layer, shape, quantized=None):
    """The layer with an adapter that does something: Keras starts it at 0."""
    layer.build(shape)
    if quantized:
        layer.quantize(quantized)
    layer.enable_lora(3, b_initializer="glorot_uniform")
    return layer


def mean_tanh(layer, x):
    """E[tanh(u)] over normal values with the moments of DropConnect, without a dropped bias."""
    kernel, bias = (ops.convert_to_numpy(v).astype("float64") for v in (layer.layer.kernel, layer.layer.bias))
    mean, deviation = x @ kernel + bias, np.sqrt(layer.rate / (1 - layer.rate) * (x**2 @ kernel**2))
    z = np.linspace(-7, 7, 1001)
    density = np.exp(-(z**2) / 2)
    return sum(w * np.tanh(mean + deviation * point) for point, w in zip(z, density / density.sum()))


def ids(*shape):
    return lambda generator: generator.integers(2, 50, shape).astype("int32")


def attention(**options):
    return keras.layers.MultiHeadAttention(4, 3, **options)


def attended(layer, x):
    """Multi-head self-attention, written out."""
    wrapped = layer.layer
    parts = (wrapped.query_dense, wrapped.key_dense, wrapped.value_dense, wrapped.output_dense)
    (wq, bq), (wk, bk), (wv, bv), (wo, bo) = ([keras.ops.convert_to_numpy(w) for w in part.weights] for part in parts)
    q, k, v = (np.einsum("btf,fnh->bnth", x, w) + b[:, None] for w, b in ((wq, bq), (wk, bk), (wv, bv)))
    scores = np.exp(np.einsum("bnth,bnsh->bnts", q, k) / np.sqrt(q.shape[-1]))
    return np.einsum("bnts,bnsh,nhf->btf", scores / scores.sum(axis=-1, keepdims=True), v, wo) + bo


TABLE = keras.initializers.RandomUniform(1, 2, seed=3)
OF_IDS = {
    "gradient_matches": "ids have no gradient",
    "wrong_inputs_are_refused": "whole numbers are right here",
}
ATTENTION_BAD = (
    {"layer": keras.layers.Dense(3)},
    {"layer": attention(dropout=0.1)},
    {"layer": attention(attention_axes=(1, 2))},
    {"layer": attention(use_gate=True)},
)


def normalized(edges, normalize):
    degrees = edges.sum(axis=-1, keepdims=True)
    return {"symmetric": edges / np.sqrt(degrees * degrees.swapaxes(-1, -2)), "row": edges / degrees, "none": edges}[normalize]


ALPHA = {"mean_is_kept": "for inputs of mean 0 and variance 1 only; tests/layers/test_units.py has its moments"}
MERGED = "Keras saves an adapter merged into the kernel; tests/layers/test_weights.py saves one"
SHAPE = (64, 5, 16)


def recurrent(layer=keras.layers.LSTM, **arguments):
    """Around 4 units that return sequences: the outputs then have the shape of the inputs.

    Unrolled, since a loop is compiled again at each call that is not compiled; tests/layers/test_steps.py has loops.
    """
    return lambda: {"rate": 0.3, "layer": layer(4, return_sequences=True, unroll=True), **arguments}


def plain(layer, x):
    return np.asarray(keras.ops.convert_to_numpy(layer.layer(x)))


GATES = {"mean_is_kept": "a mean does not pass through gates; tests/layers/test_steps.py has that of one step"}
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
    "Masksembles": [
        Case(
            {"masks": 4, "scale": 2.0},
            (64, 16),
            drops="other",
            inference=lambda layer, x: x * ops.convert_to_numpy(layer.state.table).mean(axis=0),
            exempt=FIXED,
            bad=({"masks": 1}, {"masks": 2.0}, {"scale": 0.5}, {"scale": "a"}),
        ),
        Case(
            {"masks": 3, "scale": 1.5},
            (64, 3, 16),
            shared=(1,),
            drops="other",
            inference=lambda layer, x: x * ops.convert_to_numpy(layer.state.table).mean(axis=0),
            exempt=FIXED,
        ),
    ],
    "NestedDropout": [
        Case({"rate": 0.2}, (256, 16), drops="other", exempt=UNSCALED),
        Case({"rate": 0.2}, (64, 3, 16), shared=(1,), drops="other", exempt=UNSCALED),
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
            exempt=UNSCALED,
            bad=({"size": 0},),
        )
    ],
    "RandomErasing": [
        Case(
            {"rate": 0.5, **more},
            shape,
            shared=shared,
            drops="other",
            exempt=UNSCALED,
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
    # spectrograms
    "TimeMasking": [
        Case({"rate": 0.7, "size": 4, "count": 2}, (64, 9, 8), shared=(2,), drops="other", exempt=UNSCALED, bad=BANDS_BAD),
        Case({"rate": 1, "size": 9, "axis": 2}, (64, 3, 9, 2), shared=(1, 3), drops="other", exempt=UNSCALED),
    ],
    "FrequencyMasking": [
        Case({"rate": 0.7, "size": 4, "share": 0.4}, (64, 5, 9), shared=(1,), drops="other", exempt=UNSCALED, bad=BANDS_BAD)
    ],
    # activations
    "DropActivation": [
        Case(
            {"rate": 0.3},
            (64, 16),
            drops="other",
            inputs=signs((64, 16)),
            inference=lambda layer, x: (1 - layer.rate) * np.maximum(x, 0) + layer.rate * x,
            bad=({"activation": "nothing"},),
        )
    ],
    "RReLU": [
        Case(
            {"slopes": (0.1, 0.5)},
            (64, 16),
            drops="other",
            inputs=signs((64, 16)),
            inference=lambda layer, x: np.where(x < 0, 0.3 * x, x),
            exempt=RATELESS,
            bad=({"slopes": (1, 0)}, {"slopes": 0.1}),
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
            },
        ),
        Case(
            lambda: {"rate": 0.5, "layer": keras.layers.Rescaling(3.0), "skip": keras.backend.backend() != "torch", "scaled": True},
            (16, 4),
            drops="other",
            inference=lambda layer, x: 3 * x,
            exempt={
                "wrong_inputs_are_refused": "what may come in is the wrapped layer's affair",
                "units_share_draws": "where the layer is skipped the factor is 1; tests/layers/test_paths.py has both",
                "finite_at_rate_one": "the scale is that of no layer that runs",
            },
            bad=({"skip": 1}, {"scaled": "yes"}),
        ),
    ],
    # tokens
    "EmbeddingDropout": [
        Case(
            lambda per=per: {"rate": 0.3, "layer": keras.layers.Embedding(50, 6, embeddings_initializer=TABLE), "per": per},
            (64, 8),
            drops="other",
            inputs=ids(64, 8),
            inference=lambda layer, x: keras.ops.convert_to_numpy(layer.layer.embeddings)[x],
            weights=1,
            exempt=OF_IDS
            | {
                "units_share_draws": "the outputs have an axis more; tests/layers/test_tokens.py says which share",
                "masking_is_passed_on": "the padding mask is made of the ids; tests/layers/test_tokens.py follows it",
            },
            bad=({"layer": keras.layers.Dense(3)}, {"per": "word"}),
        )
        for per in ("batch", "sequence")
    ],
    "WordDropout": [
        Case(
            {"rate": 0.3, "unknown": 1},
            (64, 8),
            drops="other",
            inputs=ids(64, 8),
            exempt=OF_IDS | {"mean_is_kept": "ids have no mean", "half_precision": "ids keep their type"},
            bad=({"unknown": -1}, {"unknown": 1.0}, {"protect": 3}, {"protect": (-1,)}, {"protect": "ab"}),
        )
    ],
    "TokenDropout": [
        Case({"rate": 0.3}, (64, 8, 5), shared=(2,), bad=({"scale": "mean"},)),
        Case({"rate": 0.5, "scale": "kept"}, (64, 8, 5), shared=(2,), drops="other"),
        Case({"rate": 0.3, "scale": "none"}, (64, 8, 5), shared=(2,), drops="other", exempt={"mean_is_kept": "nothing is scaled"}),
    ],
    "RandomLTD": [
        Case(
            lambda: {"rate": 0.5, "layer": keras.layers.Rescaling(3.0), "prefix": 1},
            (32, 9, 4),
            shared=(2,),
            drops="other",
            inference=lambda layer, x: 3 * x,
            exempt={
                "mean_is_kept": "what passes by is not scaled",
                "rate_can_change_while_compiled": "the rate decides a shape",
            },
            bad=(ONE_LESS, {"prefix": -1}, {"layer": 0.5}),
        )
    ],
    "NEFTune": [Case({"alpha": 5.0}, (64, 8, 5), drops="other", exempt=RATELESS, bad=({"alpha": -1}, {"alpha": "a"}))],
    # inputs
    "ConditionDropout": [
        Case({"rate": 0.3}, (512, 5, 4), shared=(1, 2), exempt=UNSCALED, bad=({"each": 2}, {"null": "mean"})),
        Case({"rate": 0.3, "null": "learned"}, (512, 4), shared=(1,), weights=1, exempt=UNSCALED),
    ],
    "ModalityDropout": [
        Case({"rate": 0.4}, (256, 4, 6), shared=(2,), drops="other", exempt=UNSCALED, bad=({"presence": 1},)),
    ],
    # attention
    "AttentionDropout": [
        Case(
            lambda: {"rate": 0.3, "layer": attention()},
            (16, 5, 6),
            drops="other",
            inference=attended,
            weights=8,
            bad=ATTENTION_BAD,
        )
    ],
    "DropKey": [
        Case(
            lambda: {"rate": 0.3, "layer": attention()},
            (16, 5, 6),
            drops="other",
            inference=attended,
            weights=8,
            exempt={"mean_is_kept": "the mean of a softmax of masked logits is another one"},
            bad=ATTENTION_BAD,
        )
    ],
    "DropHead": [
        Case(
            lambda: {"rate": 0.5, "layer": attention()},
            (16, 5, 6),
            drops="other",
            inference=attended,
            weights=8,
            bad=ATTENTION_BAD,
        )
    ],
    # weights
    "DropConnect": [
        Case(
            lambda: {"rate": 0.3, "layer": keras.layers.Dense(16, bias_initializer="normal")},
            SHAPE,
            drops="other",
            inference=lambda layer, x: x @ ops.convert_to_numpy(layer.layer.kernel) + ops.convert_to_numpy(layer.layer.bias),
            weights=2,
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
            exempt={
                "mean_is_kept": "the mean over normal values is near that of training; tests/layers/test_weights.py has both",
            },
        ),
        Case(
            lambda: {"rate": 0.3, "layer": keras.layers.Conv2D(3, 3, padding="same"), "per": "batch"},
            (8, 6, 5, 3),
            drops="other",
            inference=lambda layer, x: ops.convert_to_numpy(layer.layer(x)),
            weights=2,
            exempt=UNMASKED,
        ),
    ],
    "Mixout": [
        Case(
            lambda: {"rate": 0.3, "layer": keras.layers.Dense(16, bias_initializer="normal"), "origin": "zero"},
            SHAPE,
            drops="other",
            inference=lambda layer, x: dense(layer, x),
            weights=2,
            bad=({"origin": "weights"}, {"layer": 0.5}),
        ),
        Case(
            lambda: {"rate": 0.3, "layer": keras.layers.Conv2D(3, 3, padding="same"), "origin": "zero"},
            (8, 6, 5, 3),
            drops="other",
            inference=lambda layer, x: ops.convert_to_numpy(layer.layer(x)),
            weights=2,
            exempt=UNMASKED,
        ),
    ],
    "WeightDrop": [
        Case(  # linear in the kernel over two steps, so that the mean is kept
            lambda: {"rate": 0.3, "layer": keras.layers.SimpleRNN(8, activation="linear", return_sequences=True, unroll=True)},
            (32, 2, 8),
            drops="other",
            inference=lambda layer, x: ops.convert_to_numpy(layer.layer(x)),
            weights=3,
        ),
        Case(
            lambda: {"rate": 0.3, "layer": keras.layers.Bidirectional(keras.layers.LSTM(4, return_sequences=True, unroll=True))},
            (16, 3, 8),
            drops="other",
            inference=lambda layer, x: ops.convert_to_numpy(layer.layer(x)),
            weights=6,
            exempt={"mean_is_kept": "not linear in the weights"},
        ),
    ],
    "LoRADropout": [
        Case(
            lambda: {"rate": 0.3, "layer": with_lora(keras.layers.Dense(16), SHAPE)},
            SHAPE,
            drops="other",
            inference=lambda layer, x: ops.convert_to_numpy(layer.layer(x)),
            weights=4,
            exempt={"saved_model_goes_on": MERGED},
        ),
        Case(
            lambda: {"rate": 0.3, "layer": with_lora(keras.layers.EinsumDense("btc,cd->btd", (None, 16)), SHAPE)},
            SHAPE,
            drops="other",
            inference=lambda layer, x: ops.convert_to_numpy(layer.layer(x)),
            weights=3,
            exempt={"saved_model_goes_on": MERGED, "masking_is_passed_on": "EinsumDense does not"},
        ),
        Case(
            lambda: {"rate": 0.3, "layer": with_lora(keras.layers.Dense(16), SHAPE, "int8")},
            SHAPE,
            drops="other",
            inference=lambda layer, x: ops.convert_to_numpy(layer.layer(x)),
            weights=5,
            exempt={
                "saved_model_goes_on": MERGED,
                "gradient_matches": "Keras rounds the inputs to int8, and its gradient passes through that",
                "half_precision": "Keras has no int8 in float16",
            },
        ),
    ],
    # stacks
    "ThinnedStack": [
        Case(
            lambda options=options: {
                "rate": 0.5,
                "layer": keras.Sequential([keras.layers.Dense(32, "tanh", bias_initializer="normal"), keras.layers.Dense(16)]),
                "block_size": 4,
                **options,
            },
            SHAPE,
            drops="other",
            inference=lambda layer, x: ops.convert_to_numpy(layer.layer(x)),
            weights=4,
            exempt={"rate_can_change_while_compiled": "the rate decides a shape"},
            bad=(
                ONE_LESS,
                {"block_size": 0},
                {"block_size": 5},
                {"block_size": 32},
                {"groups": 0},
                {"layer": keras.layers.Dense(16)},
                {"layer": keras.Sequential([keras.layers.Dense(16)])},
            ),
        )
        for options in ({}, {"groups": 4})
    ],
    # steps
    "LockedDropout": [Case({"rate": 0.3}, SHAPE, shared=(1,)), Case({"rate": 0.3}, (32, 4, 3, 8), shared=(1,))],
    "VariationalRNNDropout": [
        Case(
            recurrent(),
            (16, 3, 4),
            drops="other",
            inference=plain,
            weights=3,
            exempt=GATES,
            bad=({"recurrent_rate": 2}, {"layer": keras.layers.LSTMCell(4)}, {"layer": keras.layers.GRU(4, dropout=0.1)}),
        )
    ],
    "RecurrentDropout": [
        Case(
            recurrent(),
            (16, 3, 4),
            drops="other",
            inference=plain,
            weights=3,
            exempt=GATES,
            bad=({"per": "batch"}, {"layer": keras.layers.SimpleRNN(4)}, {"layer": keras.layers.LSTM(4, stateful=True)}),
        ),
        Case(recurrent(keras.layers.GRU, per="sequence"), (16, 3, 4), drops="other", inference=plain, weights=3, exempt=GATES),
    ],
    "Zoneout": [
        Case(
            recurrent(),
            (16, 3, 4),
            drops="other",
            exempt={
                **GATES,
                "identity_at_inference": "inference is the expectation of each step; tests/layers/test_steps.py has it",
            },
            weights=3,
            bad=({"cell_rate": -1}, {"layer": keras.layers.RNN([keras.layers.LSTMCell(4)] * 2)}, {"layer": keras.layers.Dense(4)}),
        )
    ],
    # learned
    "ConcreteDropout": [
        Case(
            lambda: {"rate": 0.5, "layer": keras.layers.Dense(16, bias_initializer="ones")},  # at 0.5 the relaxed mask has no bias
            SHAPE,
            drops="other",
            inference=lambda layer, x: dense(layer, x),
            weights=3,
            exempt=UNBOUNDED,
            bad=({"rate": 0}, ONE_LESS, {"temperature": 0}, {"weight_regularizer": -1}, {"spatial": 1}, {"layer": 0.5}),
        ),
        Case(
            lambda: {"rate": 0.5, "layer": keras.layers.Conv2D(2, 2, padding="same"), "temperature": 0.5},
            (64, 4, 5, 2),
            drops="other",
            inference=lambda layer, x: np.asarray(ops.convert_to_numpy(layer.layer(x))),
            weights=3,
            exempt=UNBOUNDED | UNMASKED,
        ),
    ],
    "VariationalDropout": [
        Case(
            lambda options=options: {"rate": 0.3, "layer": keras.layers.Dense(16), "kl_weight": 0.01, **options},
            SHAPE,
            drops="other",
            inference=lambda layer, x: dense(layer, x),
            weights=3,
            exempt=UNBOUNDED,
            bad=({"rate": 0}, {"rate": 0.51}, {"kl_weight": -1}, {"noise": "both"}, {"per": "batch"}, {"layer": INPUT}),
        )
        for options in (
            {},
            {"per": "weight"},
            {"noise": "inputs", "per": "unit"},
        )
    ],
    "SparseVariationalDropout": [
        Case(
            lambda: {"layer": keras.layers.Dense(16, bias_initializer="ones"), "kl_weight": 0.01, "log_variance": -3.0},
            SHAPE,
            drops="other",
            inference=lambda layer, x: dense(layer, x, layer.pruned().kernel),
            weights=3,
            exempt={"mean_is_kept": "leaves weights out at inference"} | RATELESS,
            bad=({"kl_weight": -1}, {"threshold": float("nan")}, {"log_variance": "a"}, {"layer": INPUT}, {"layer": 0.5}),
        ),
        Case(
            lambda: {"layer": keras.layers.Conv2D(2, 2, padding="same"), "kl_weight": 0.01, "log_variance": -3.0, "threshold": 9.0},
            (64, 4, 5, 2),
            drops="other",
            inference=lambda layer, x: np.asarray(ops.convert_to_numpy(layer.layer(x))),
            weights=3,
            exempt=RATELESS | UNMASKED,
        ),
    ],
    "Standout": [
        Case(
            lambda: {"layer": keras.layers.Dense(16, bias_initializer="ones"), "beta": 0.5},
            SHAPE,
            drops="other",
            inference=lambda layer, x: dense(layer, x) / (1 + np.exp(-dense(layer, x) - 0.5)),
            weights=2,
            exempt={
                "gradient_matches": "the mask depends on the inputs; tests/layers/test_learned.py has the gradient",
                "half_precision": "the mask depends on values, which it rounds; tests/layers/test_learned.py has it",
            }
            | RATELESS,
            bad=({"alpha": "a"}, {"beta": float("inf")}, {"layer": INPUT}, {"layer": 0.5}),
        )
    ],
    "TargetedDropout": [
        Case(
            lambda by=by: {"rate": 0.5, "layer": keras.layers.Dense(16), "targeted": 0.75, "by": by},
            SHAPE,
            drops="other",
            inference=lambda layer, x: dense(layer, x),
            weights=2,
            exempt={"mean_is_kept": "the method does not scale what it keeps"},
            bad=({"targeted": 1.5}, {"by": "rows"}, {"layer": 0.5}),
        )
        for by in ("weights", "units")
    ],
}
NO_LAYERS = {"DropPath", "dare", "linear_decay"}


def test_every_layer_has_a_case():
    assert set(CASES) == set(layers.__all__) - NO_LAYERS


# On the other backends make test has one layer of each kind: what a backend decides is the draws, the gradient and the compiled
# step, which the layers of a kind share. make test-all has all rows there too.
OF_EACH_KIND = {"Dropout", "GaussianDropout", "SpatialDropout2D", "DropBlock2D", "StochasticDepth", "WordDropout", "DropKey"}
OF_EACH_KIND |= {"LockedDropout", "RecurrentDropout", "DropConnect", "ThinnedStack", "ConcreteDropout"}
ALWAYS = set(CASES) if keras.backend.backend() == "jax" else OF_EACH_KIND
ROWS = [
    pytest.param(name, number, marks=[] if name in ALWAYS and (number == 0 or ALWAYS > OF_EACH_KIND) else [pytest.mark.slow])
    for name, cases in CASES.items()
    for number in range(len(cases))
]


@pytest.mark.parametrize(("name", "number"), ROWS)
def test_contract(name, number):
    check_layer(getattr(keras_dropout, name), CASES[name][number])
