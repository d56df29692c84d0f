"""Layers that the project did not write: name -> builder. Each takes (batch, 6, 8) and gives (batch, 6, 8).

`model_with` puts one of them behind a Dense "before" and in front of a pooling and a Dense "head", called once or several times.
"""

import keras
from keras import ops

L = keras.layers
register = keras.saving.register_keras_serializable("foreign")
WIDTH = 8


@register
class Noisy(L.Layer):
    """Drops by itself with a SeedGenerator; all of its arguments are in get_config."""

    def __init__(self, drop_path_rate=0.5, **kwargs):
        super().__init__(**kwargs)
        self.drop_path_rate, self.seeds = drop_path_rate, keras.random.SeedGenerator(1)
        self.dense = L.Dense(WIDTH)

    def build(self, shape):
        self.dense.build(shape)

    def call(self, x, training=False):
        y = self.dense(x)
        return x + (keras.random.dropout(y, self.drop_path_rate, seed=self.seeds) if training and self.drop_path_rate else y)

    def get_config(self):
        return {**super().get_config(), "drop_path_rate": self.drop_path_rate}


@register
class Automatic(L.Layer):
    """Has no get_config: Keras keeps its arguments by itself."""

    def __init__(self, dropout_rate=0.5, **kwargs):
        super().__init__(**kwargs)
        self.dropout_rate, self.seeds = dropout_rate, keras.random.SeedGenerator(1)

    def call(self, x, training=False):
        return keras.random.dropout(x, self.dropout_rate, seed=self.seeds) if training and self.dropout_rate else x

    def compute_output_shape(self, shape):
        return shape


@register
class Raises(L.Layer):
    """A plain layer whose get_config raises."""

    def __init__(self, scale=2.0, **kwargs):
        super().__init__(**kwargs)
        self.scale = scale

    def call(self, x):
        return x * self.scale

    def get_config(self):
        raise ValueError("no configuration today")


@register
class Sampled(L.Layer):
    """Has a `rate` that is no dropout, and no seed."""

    def __init__(self, rate=2, **kwargs):
        super().__init__(**kwargs)
        self.rate = rate

    def call(self, x):
        return x * self.rate

    def get_config(self):
        return {**super().get_config(), "rate": self.rate}


@register
class TwoSeeds(L.Layer):
    """Adds noise from two seed generators; no option says so."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.first, self.second = keras.random.SeedGenerator(1), keras.random.SeedGenerator(2)

    def call(self, x, training=False):
        if not training:
            return x
        return x + keras.random.normal(ops.shape(x), seed=self.first) + keras.random.uniform(ops.shape(x), seed=self.second)


@register
class OwnDropPath(L.Layer):
    """DropPath as many repositories have it: whole examples are dropped."""

    def __init__(self, rate=0.5, **kwargs):
        super().__init__(**kwargs)
        self.rate, self.seed_generator = rate, keras.random.SeedGenerator(1)

    def call(self, x, training=False):
        if not training or not self.rate:
            return x
        return keras.random.dropout(x, self.rate, noise_shape=(ops.shape(x)[0], 1, 1), seed=self.seed_generator)

    def get_config(self):
        return {**super().get_config(), "rate": self.rate}


@register
class SurvivingStochasticDepth(L.Layer):
    """Stochastic depth of two inputs, as in TensorFlow Addons: its option is the probability to keep the second."""

    def __init__(self, survival_probability=0.5, **kwargs):
        super().__init__(**kwargs)
        self.survival_probability, self.seeds = survival_probability, keras.random.SeedGenerator(1)

    def call(self, inputs, training=False):
        shortcut, residual = inputs
        if not training:
            return shortcut + self.survival_probability * residual
        kept = keras.random.uniform((ops.shape(residual)[0], 1, 1), seed=self.seeds) < self.survival_probability
        return shortcut + ops.cast(kept, residual.dtype) * residual

    def get_config(self):
        return {**super().get_config(), "survival_probability": self.survival_probability}


@register
class Block(L.Layer):
    """Holds a Keras Dropout; the rate is an option that is not called dropout."""

    def __init__(self, rate=0.5, **kwargs):
        super().__init__(**kwargs)
        self.rate, self.dense, self.drop = rate, L.Dense(WIDTH, "relu"), L.Dropout(rate, name="drop")

    def build(self, shape):
        self.dense.build(shape)

    def call(self, x, training=False):
        return x + self.drop(self.dense(x), training=training)

    def get_config(self):
        return {**super().get_config(), "rate": self.rate}


@register
class Sealed(L.Layer):
    """Holds a Keras Dropout whose rate is fixed in the class."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.drop = L.Dropout(0.5, name="drop")

    def call(self, x, training=False):
        return self.drop(x, training=training)


@register
class Around(L.Wrapper):
    """A wrapper that leaves what is in it as it is."""

    def call(self, x, training=False):
        return self.layer(x, training=training)


@register
class Cell(L.Layer):
    """A recurrent cell that drops its inputs."""

    def __init__(self, units=WIDTH, dropout=0.5, **kwargs):
        super().__init__(**kwargs)
        self.units, self.dropout, self.seeds = units, dropout, keras.random.SeedGenerator(1)
        self.state_size, self.dense = units, L.Dense(units, "tanh")

    def build(self, shape):
        self.dense.build((*shape[:-1], shape[-1] + self.units))

    def call(self, x, states, training=False):
        x = keras.random.dropout(x, self.dropout, seed=self.seeds) if training and self.dropout else x
        output = self.dense(ops.concatenate([x, states[0]], -1))
        return output, [output]

    def get_config(self):
        return {**super().get_config(), "units": self.units, "dropout": self.dropout}


@register
class Both(L.Layer):
    """Calls a two-input layer on its one input."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.depth = SurvivingStochasticDepth()

    def call(self, x, training=False):
        return self.depth([x, x], training=training)


@register
class Attend(L.Layer):
    """Self-attention with Keras's layer, whose dropout is 0."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.attention = L.MultiHeadAttention(2, 4)

    def build(self, shape):
        self.attention.build(shape, shape)

    def call(self, x, training=False):
        return self.attention(x, x, training=training)


def nested():
    inputs = keras.Input((6, WIDTH))
    return keras.Model(inputs, Noisy(name="noisy")(L.Dense(WIDTH, "relu", name="inner")(inputs)), name="nested")


FOREIGN = {
    "an option and a SeedGenerator": lambda: Noisy(name="foreign"),
    "no get_config": lambda: Automatic(name="foreign"),
    "a get_config that raises": lambda: Raises(name="foreign"),
    "a rate that is no dropout": lambda: Sampled(name="foreign"),
    "two seed generators": lambda: TwoSeeds(name="foreign"),
    "like DropPath": lambda: OwnDropPath(name="foreign"),
    "a Keras Dropout inside": lambda: Block(name="foreign"),
    "a Keras Dropout inside, no option": lambda: Sealed(name="foreign"),
    "a layer of two inputs inside": lambda: Both(name="foreign"),
    "inside a wrapper of its own": lambda: Around(Noisy(name="inner"), name="foreign"),
    "a DropPath inside a wrapper": lambda: Around(OwnDropPath(name="inner"), name="foreign"),
    "inside TimeDistributed": lambda: L.TimeDistributed(Automatic(), name="foreign"),
    "inside a nested model": nested,
    "a recurrent cell": lambda: L.RNN(Cell(), return_sequences=True, name="foreign"),
    "Keras attention": lambda: Attend(name="foreign"),
}


def model_with(name, calls=1):
    """A model with this layer, called once or several times."""
    inputs = keras.Input((6, WIDTH), name="x")
    layer, x = FOREIGN[name](), L.Dense(WIDTH, "relu", name="before")(inputs)
    for _ in range(calls):
        x = layer(x)
    return keras.Model(inputs, L.Dense(1, name="head")(L.GlobalAveragePooling1D()(x)))
