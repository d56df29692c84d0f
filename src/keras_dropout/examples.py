"""The table of methods: one row each, with an example that runs. It loads nothing, so that the names are known at once.

A new layer becomes public through its row here and its name in the `__all__` of its module.
"""

from typing import NamedTuple


class Example(NamedTuple):
    """A call that makes a method, and a batch that the method accepts: its shape (None if it is no layer) and its dtype."""

    call: str
    shape: tuple[int, ...] | None = None
    dtype: str = "float32"

    @property
    def name(self) -> str:
        """The method's public name."""
        return self.call.partition("(")[0]


# Keyed by the module that defines the method.
EXAMPLES = {
    "units": (
        Example("Dropout(0.3, seed=1)", (8, 24)),
        Example("GaussianDropout(0.3, seed=1)", (8, 24)),
        Example("AlphaDropout(0.3, seed=1)", (8, 24)),
        Example("FeatureAlphaDropout(0.3, seed=1)", (3, 7, 12)),
        Example("Masksembles(4, 2.0, seed=1)", (8, 24)),
        Example("NestedDropout(0.1, seed=1)", (8, 24)),
    ),
    "regions": (
        Example("SpatialDropout1D(0.3, seed=1)", (3, 7, 12)),
        Example("SpatialDropout2D(0.3, seed=1)", (2, 6, 6, 6)),
        Example("SpatialDropout3D(0.3, seed=1)", (2, 3, 5, 5, 6)),
        Example("DropBlock1D(0.3, block_size=4, seed=1)", (3, 16, 8)),
        Example("DropBlock2D(0.2, block_size=3, seed=1)", (2, 10, 10, 4)),
        Example("DropBlock3D(0.2, block_size=2, seed=1)", (2, 3, 7, 7, 4)),
        Example("Cutout(0.8, size=6, seed=2)", (5, 12, 12, 3)),
        Example("RandomErasing(0.8, seed=1)", (5, 12, 12, 3)),
        Example("PatchDropout(0.5, prefix=1, seed=1)", (4, 17, 8)),
    ),
    "spectrograms": (
        Example("FrequencyMasking(1, size=6, seed=1)", (3, 24, 12)),
        Example("TimeMasking(1, size=8, count=2, seed=1)", (3, 24, 12)),
    ),
    "activations": (
        Example("DropActivation(0.3, seed=1)", (8, 24)),
        Example("RReLU(seed=1)", (8, 24)),
    ),
    "paths": (
        Example("StochasticDepth(0.4, seed=1)", (8, 24)),
        Example("DropPath(0.4, seed=1)", (8, 24)),
        Example("ScheduledDropPath(0.8, steps=20, seed=1)", (8, 24)),
        Example("ShakeDrop(0.5, seed=3)", (8, 24)),
        Example("ShakeShake(seed=1)", (8, 2, 24)),
        Example("DropEdge(0.4, seed=1)", (2, 12, 12)),
        Example("LayerDrop(0.3, keras.layers.Dense(24, activation='relu'), seed=1)", (8, 24)),
        Example("linear_decay(0.5, 12)"),
    ),
    "weights": (
        Example("DropConnect(0.3, keras.layers.Dense(24), seed=1)", (8, 16)),
        Example("Mixout(0.3, keras.layers.Dense(24), origin='zero', seed=1)", (8, 16)),
        Example("WeightDrop(0.3, keras.layers.LSTM(12), seed=1)", (8, 7, 16)),
        Example("LoRADropout(0.3, keras.layers.Dense(24, lora_rank=4), seed=1)", (8, 16)),
        Example("dare([keras.ops.ones((8, 24))], [keras.ops.zeros((8, 24))], 0.5)"),
    ),
    "stacks": (
        Example(
            "ThinnedStack(0.5, keras.Sequential([keras.layers.Dense(32, activation='relu'), keras.layers.Dense(24)]), "
            "block_size=4, seed=1)",
            (8, 16),
        ),
    ),
    "steps": (
        Example("LockedDropout(0.3, seed=1)", (3, 7, 12)),
        Example("VariationalRNNDropout(0.3, keras.layers.LSTM(12), seed=1)", (8, 7, 16)),
        Example("RecurrentDropout(0.3, keras.layers.LSTM(12), seed=1)", (8, 7, 16)),
        Example("Zoneout(0.3, keras.layers.GRU(12, return_sequences=True), seed=1)", (8, 7, 16)),
    ),
    "tokens": (
        Example("EmbeddingDropout(0.3, keras.layers.Embedding(100, 12), seed=1)", (8, 24), "int32"),
        Example("NEFTune(5.0, seed=1)", (3, 7, 12)),
        Example("WordDropout(0.3, unknown=2, seed=1)", (8, 24), "int32"),
        Example("TokenDropout(0.3, seed=1)", (3, 7, 12)),
        Example("RandomLTD(0.5, keras.layers.Dense(12, activation='relu'), seed=1)", (3, 7, 12)),
    ),
    "inputs": (
        Example("ConditionDropout(0.3, seed=1)", (8, 24)),
        Example("ModalityDropout(0.4, seed=1)", (8, 4, 6)),
    ),
    "attention": (
        Example("AttentionDropout(0.3, keras.layers.MultiHeadAttention(num_heads=4, key_dim=4), seed=1)", (8, 7, 16)),
        Example("DropKey(0.3, keras.layers.MultiHeadAttention(num_heads=4, key_dim=4), seed=1)", (8, 7, 16)),
        Example("DropHead(0.3, keras.layers.MultiHeadAttention(num_heads=4, key_dim=4), seed=1)", (8, 7, 16)),
    ),
    "learned": (
        Example("ConcreteDropout(0.3, keras.layers.Dense(24), seed=1)", (8, 16)),
        Example("VariationalDropout(0.3, keras.layers.Dense(24), kl_weight=1e-4, seed=1)", (8, 16)),
        Example("SparseVariationalDropout(keras.layers.Dense(24), kl_weight=1e-4, seed=1)", (8, 16)),
        Example("Standout(keras.layers.Dense(24), seed=1)", (8, 16)),
        Example("TargetedDropout(0.66, keras.layers.Dense(24), targeted=0.75, seed=1)", (8, 16)),
    ),
    "companions": (
        Example("RDrop(keras.Sequential([keras.Input((24,)), Dropout(0.3, seed=1), keras.layers.Dense(3, 'softmax')]))", (8, 24)),
        Example("MultiSampleDropout(0.3, keras.layers.Dense(24), keras.layers.Dense(3, 'softmax'), seed=1)", (8, 24)),
        Example("MaxNorm(3.0)"),
    ),
}
LAYERS = sorted(each.name for group, rows in EXAMPLES.items() if group != "companions" for each in rows)
HOMES = dict.fromkeys(LAYERS, "layers") | {each.name: "companions" for each in EXAMPLES["companions"]}
