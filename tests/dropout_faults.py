"""Eight published faults of dropout, rebuilt small in Keras, each with a twin in which it is mended; and other faults."""

import keras
import numpy as np
from keras import layers as L
from keras import ops
from keras.saving import register_keras_serializable as registered


def uniform(x, seeds):
    """One number for each row of x, to be broadcast over the rest."""
    return keras.random.uniform((ops.shape(x)[0], *(1,) * (len(x.shape) - 1)), seed=seeds)


@registered("faults")
class DropPath(L.Layer):
    """KerasHub's DropPath of DINOv2 and DINOv3 (keras_hub/src/models/dinov2/dinov2_layers.py): the mask is not rounded down."""

    def __init__(self, rate, mended=True, **options):
        super().__init__(**options)
        self.rate, self.mended, self.seeds = float(rate), mended, keras.random.SeedGenerator()

    def call(self, x, training=None):
        if not training or self.rate == 0:
            return x
        mask = 1 - self.rate + uniform(x, self.seeds)
        return x / (1 - self.rate) * (ops.floor(mask) if self.mended else mask)

    def get_config(self):
        return {**super().get_config(), "rate": self.rate, "mended": self.mended}


def no_floor(mended):
    inputs = keras.Input((6, 8))
    return keras.Model(inputs, L.Dense(3)(inputs + DropPath(0.2, mended, name="drop_path")(L.Dense(8)(inputs))))


@registered("faults")
class LoRA(L.Layer):
    """A dense layer with a low-rank update, on inputs of which some are dropped."""

    def __init__(self, width, rank=2, dropout=0.0, **options):
        super().__init__(**options)
        self.width, self.rank, self.dropout = width, rank, dropout
        self.dense, self.down, self.up = L.Dense(width), L.Dense(rank, use_bias=False), L.Dense(width, use_bias=False)
        self.drop = L.Dropout(dropout, name="drop")

    def build(self, shape):
        self.dense.build(shape)
        self.down.build(shape)
        self.up.build((*shape[:-1], self.rank))

    def call(self, x, training=None):
        return self.dense(x) + self.up(self.down(self.drop(x, training=training)))

    def get_config(self):
        return {**super().get_config(), "width": self.width, "rank": self.rank, "dropout": self.dropout}


@registered("faults")
class LoRAModel(keras.Model):
    """torchtune#996: `lora_dropout` is an option of the model, and is not passed on to the attention and the last layers."""

    def __init__(self, lora_dropout=0.0, mended=True, **options):
        super().__init__(**options)
        self.lora_dropout, self.mended = lora_dropout, mended
        passed_on = {"dropout": lora_dropout} if mended else {}
        self.query, self.output_layer = LoRA(8, **passed_on, name="query"), LoRA(4, **passed_on, name="output")

    def call(self, x, training=None):
        return self.output_layer(self.query(x, training=training), training=training)

    def get_config(self):
        return {**super().get_config(), "lora_dropout": self.lora_dropout, "mended": self.mended}


def called(model, *shape):
    model(np.zeros((2, *shape), "float32"))
    return model


def lora(mended):
    return called(LoRAModel(0.1, mended, name="lora"), 6, 8)


@registered("faults")
class Block(L.Layer):
    """transformers#29140: the block of DINOv2 makes two drop paths and adds the branches without calling them."""

    def __init__(self, drop_path_rate=0.0, mended=True, **options):
        super().__init__(**options)
        self.drop_path_rate, self.mended = drop_path_rate, mended
        self.attention, self.mlp = L.MultiHeadAttention(2, 4, name="attention"), L.Dense(8, name="mlp")
        self.drop_path1 = DropPath(drop_path_rate, name="drop_path1")
        self.drop_path2 = DropPath(drop_path_rate, name="drop_path2")

    def build(self, shape):
        self.attention.build(shape, shape)
        self.mlp.build(shape)

    def call(self, x, training=None):
        attended = self.attention(x, x)
        x = x + (self.drop_path1(attended, training=training) if self.mended else attended)
        computed = self.mlp(x)
        return x + (self.drop_path2(computed, training=training) if self.mended else computed)

    def get_config(self):
        return {**super().get_config(), "drop_path_rate": self.drop_path_rate, "mended": self.mended}


def drop_path_unused(mended):
    inputs = keras.Input((6, 8))
    return keras.Model(inputs, Block(0.3, mended, name="block")(inputs))


@registered("faults")
class ResidualBlock(L.Layer):
    """NX-AI/tirex#19: the block makes a Dropout with its option and never calls it."""

    def __init__(self, dropout=0.0, mended=True, **options):
        super().__init__(**options)
        self.mended, self.drop = mended, L.Dropout(dropout, name="drop")
        self.hidden, self.out, self.skip = L.Dense(12, "relu"), L.Dense(4), L.Dense(4)

    def build(self, shape):
        self.hidden.build(shape)
        self.out.build((*shape[:-1], 12))
        self.skip.build(shape)

    def call(self, x, training=None):
        computed = self.out(self.hidden(x))
        return self.skip(x) + (self.drop(computed, training=training) if self.mended else computed)


def never_called(mended):
    inputs = keras.Input((8,))
    return keras.Model(inputs, ResidualBlock(0.1, mended, name="block")(inputs))


@registered("faults")
class Detector(keras.Model):
    """rf-detr PR #762: the detector's drop path rate is not in the configuration from which it makes its backbone."""

    def __init__(self, drop_path=0.0, mended=True, **options):
        super().__init__(**options)
        self.drop_path, self.mended = drop_path, mended
        passed_on = {"drop_path_rate": drop_path} if mended else {}
        self.blocks, self.head = [Block(**passed_on, name=f"block_{n}") for n in range(2)], L.Dense(4)

    def call(self, x, training=None):
        for block in self.blocks:
            x = block(x, training=training)
        return self.head(x)

    def get_config(self):
        return {**super().get_config(), "drop_path": self.drop_path, "mended": self.mended}


def rate_not_passed_on(mended):
    return called(Detector(0.2, mended, name="detector"), 6, 8)


@registered("faults")
class Prior(L.Layer):
    """lucidrains/DALLE2-pytorch#235: which conditions are dropped is drawn, and what comes out is not used."""

    def __init__(self, cond_drop_prob=0.0, mended=True, **options):
        super().__init__(**options)
        self.cond_drop_prob, self.mended, self.seeds = cond_drop_prob, mended, keras.random.SeedGenerator()
        self.dense = L.Dense(8)

    def build(self, shape):
        self.dense.build((*shape[0][:-1], shape[0][-1] + shape[1][-1]))

    def call(self, inputs, training=None):
        image, text = inputs
        if training and self.cond_drop_prob:
            keep = ops.cast(uniform(text, self.seeds) >= self.cond_drop_prob, text.dtype)
            text = text * keep if self.mended else text
        return self.dense(ops.concatenate([image, text], axis=-1))

    def get_config(self):
        return {**super().get_config(), "cond_drop_prob": self.cond_drop_prob, "mended": self.mended}


def mask_unused(mended):
    inputs = [keras.Input((8,), name="image"), keras.Input((6,), name="text")]
    return keras.Model(inputs, Prior(0.3, mended, name="prior")(inputs))


@registered("faults")
class MBConvBlock(L.Layer):
    """A residual block that drops its branch if its call is told at which rate."""

    def __init__(self, **options):
        super().__init__(**options)
        self.conv, self.seeds = L.Conv2D(4, 3, padding="same"), keras.random.SeedGenerator()

    def build(self, shape):
        self.conv.build(shape)

    def call(self, x, training=None, drop_connect_rate=None):
        branch = self.conv(x)
        if training and drop_connect_rate:
            keep = 1 - drop_connect_rate
            branch = branch / keep * ops.floor(keep + uniform(branch, self.seeds))
        return x + branch


@registered("faults")
class EfficientNet(keras.Model):
    """tensorflow/tpu#381: the blocks are called without the model's drop connect rate."""

    def __init__(self, drop_connect_rate=0.0, mended=True, **options):
        super().__init__(**options)
        self.drop_connect_rate, self.mended = drop_connect_rate, mended
        self.stem, self.blocks, self.pool = (
            L.Conv2D(4, 3),
            [MBConvBlock(name=f"block_{n}") for n in range(2)],
            L.GlobalAveragePooling2D(),
        )

    def call(self, x, training=None):
        x = self.stem(x)
        for number, block in enumerate(self.blocks):
            rate = self.drop_connect_rate * (number + 1) / len(self.blocks)
            x = block(x, training=training, **({"drop_connect_rate": rate} if self.mended else {}))
        return self.pool(x)

    def get_config(self):
        return {**super().get_config(), "drop_connect_rate": self.drop_connect_rate, "mended": self.mended}


def drop_connect(mended):
    return called(EfficientNet(0.2, mended, name="efficient_net"), 12, 12, 3)


@registered("faults")
class Attention(L.MultiHeadAttention):
    """keras-team/keras#23038: on the way of the computation that dropout takes, the causal mask is not applied."""

    def __init__(self, *args, mended=True, **options):
        super().__init__(*args, **options)
        self.mended = mended

    def call(self, query, value, key=None, use_causal_mask=False, training=None):
        causal = use_causal_mask and (self.mended or not self._dropout)
        return super().call(query, value, key, use_causal_mask=causal, training=training)


def causal_mask_lost(mended):
    inputs = keras.Input((6, 8))
    return keras.Model(inputs, Attention(2, 4, dropout=0.1, mended=mended, name="attention")(inputs, inputs, use_causal_mask=True))


# Each fault with the rule that finds it, and the layers in which it is found.
FAULTS = {
    "KerasHub's DINOv2 and DINOv3": (no_floor, "dropout-never-drops", ["drop_path"]),
    "torchtune#996": (lora, "dropout-option-unused", ["lora"]),
    "transformers#29140": (drop_path_unused, "dropout-never-called", ["block/drop_path1", "block/drop_path2"]),
    "tirex#19": (never_called, "dropout-never-called", ["block/drop"]),
    "rf-detr PR #762": (rate_not_passed_on, "dropout-option-unused", ["detector"]),
    "DALLE2-pytorch#235": (mask_unused, "dropout-never-drops", ["prior"]),
    "tpu#381": (drop_connect, "dropout-option-unused", ["efficient_net"]),
    "keras#23038": (causal_mask_lost, "mask-lost", ["attention"]),
}


class OwnDropout(L.Layer):
    """Dropout of the user's own, with one thing changed."""

    def __init__(self, rate, how="", **options):
        super().__init__(**options)
        self.drop_rate, self.how, self.seeds = rate, how, keras.random.SeedGenerator()

    def call(self, x, training=None):
        keep = 1 - self.drop_rate
        if not (training or self.how == "always"):
            return x * {"classic": keep, "twice": keep}.get(self.how, 1)
        draw = keras.random.uniform(ops.shape(x), seed=self.seeds)
        draw = draw[:1] if self.how == "batch" else draw
        kept = draw < self.drop_rate if self.how == "keeps" else draw >= self.drop_rate
        scale = 1 if self.how in ("classic", "unscaled") else 1 / keep
        return x * ops.cast(kept, x.dtype) * scale


class FixedDropPath(DropPath):
    """A drop path that keeps the size of the batch from when it was built, and lacks the floor."""

    def build(self, shape):
        self.shape = (shape[0], 1, 1)

    def call(self, x, training=None):
        if not training:
            return x
        return x / (1 - self.rate) * (1 - self.rate + keras.random.uniform(self.shape, seed=self.seeds))


class Net(keras.Model):
    """A model whose dropout is right, called without training, or called to no effect."""

    def __init__(self, how):
        super().__init__(name="net")
        self.how, self.dense, self.drop, self.out = how, L.Dense(8), L.Dropout(0.4, name="drop"), L.Dense(2)

    def call(self, x, training=None):
        x = self.dense(x)
        dropped = self.drop(x, training=False if self.how == "off" else training)
        return self.out(x if self.how == "unused" else dropped)


class Counts(L.Layer):
    """A layer that takes no negative numbers."""

    def call(self, x):
        if not isinstance(x, keras.KerasTensor) and float(ops.min(x)) < 0:
            raise ValueError("a count is not negative")
        return x

    def compute_output_shape(self, shape):
        return shape
