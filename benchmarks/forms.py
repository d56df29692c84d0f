"""Small models in the forms of keras.io's code examples, in words of our own: `FORMS[name]()` gives a `Form`.

Functional, Sequential and subclassed models, layers of the user's own with dropout inside, several inputs and outputs, recurrent
and convolutional ones, and models that train in their own way: GAN, VAE, distillation, speech, contrastive learning.
"""

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import keras
import numpy as np
from keras import layers as L
from keras import ops

_register = keras.saving.register_keras_serializable("forms")
RATE, WIDTH, STEPS, WORDS, CLASSES = 0.1, 16, 8, 30, 3
IMAGE = (16, 16, 3)


class Form(NamedTuple):
    """A model, numbers for its inputs, and the attribute of the model in it that is to be changed, if it trains in its own way."""

    model: keras.Model
    x: Any
    inner: str = ""


def numbers(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).random((4, *shape)).astype("float32")


def words(steps: int = STEPS) -> np.ndarray:
    return np.random.default_rng(0).integers(1, WORDS, (4, steps)).astype("int32")


class _Configured(L.Layer):
    """A layer whose arguments are its config."""

    def __init__(self, *, name: str | None = None, dtype: Any = None, trainable: bool = True, **options: Any):
        super().__init__(name=name, dtype=dtype, trainable=trainable)
        self.options = options

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), **self.options}

    def compute_output_shape(self, shape: Any) -> Any:
        return shape


@_register
class Patches(_Configured):
    """Cuts an image into squares, each of which becomes a step."""

    def __init__(self, size: int = 4, **options: Any):
        super().__init__(size=size, **options)
        self.size = size

    def call(self, images: Any) -> Any:
        rows, columns, channels = images.shape[1:]
        x = ops.reshape(images, (-1, rows // self.size, self.size, columns // self.size, self.size, channels))
        return ops.reshape(ops.transpose(x, (0, 1, 3, 2, 4, 5)), (-1, *self.compute_output_shape(images.shape)[1:]))

    def compute_output_shape(self, shape: Any) -> Any:
        return (shape[0], (shape[1] // self.size) * (shape[2] // self.size), self.size**2 * shape[3])


@_register
class Positions(_Configured):
    """Embeds steps and adds an embedding of their positions: numbers by a Dense layer, words by an Embedding."""

    def __init__(self, steps: int, width: int = WIDTH, vocabulary: int = 0, **options: Any):
        super().__init__(steps=steps, width=width, vocabulary=vocabulary, **options)
        self.steps, self.width = steps, width
        self.content = L.Embedding(vocabulary, width) if vocabulary else L.Dense(width)
        self.position = L.Embedding(steps, width)

    def build(self, shape: Any) -> None:
        self.content.build(shape)
        self.position.build((self.steps,))

    def call(self, x: Any) -> Any:
        return self.content(x) + self.position(ops.arange(self.steps))

    def compute_output_shape(self, shape: Any) -> Any:
        return (*shape[:2], self.width)


@_register
class Block(_Configured):
    """A block of a transformer: attention and two Dense layers, each with dropout and a residual."""

    def __init__(self, width: int = WIDTH, heads: int = 2, rate: float = RATE, causal: bool = False, **options: Any):
        super().__init__(width=width, heads=heads, rate=rate, causal=causal, **options)
        self.causal = causal
        self.attention = L.MultiHeadAttention(heads, width // heads, dropout=rate)
        self.wide, self.back = L.Dense(2 * width, "gelu"), L.Dense(width)
        self.norms = [L.LayerNormalization(epsilon=1e-6) for _ in range(2)]
        self.drops = [L.Dropout(rate) for _ in range(2)]

    def build(self, shape: Any) -> None:
        self.attention.build(shape, shape)
        self.wide.build(shape)
        self.back.build((*shape[:-1], self.options["width"] * 2))
        for norm in self.norms:
            norm.build(shape)

    def call(self, x: Any, training: bool | None = None) -> Any:
        attended = self.attention(x, x, use_causal_mask=self.causal, training=training)
        x = self.norms[0](x + self.drops[0](attended, training=training))
        return self.norms[1](x + self.drops[1](self.back(self.wide(x)), training=training))


@_register
class DecoderBlock(_Configured):
    """A causal block that also attends to what an encoder gives."""

    def __init__(self, width: int = WIDTH, rate: float = RATE, **options: Any):
        super().__init__(width=width, rate=rate, **options)
        self.own, self.cross = Block(width, rate=rate, causal=True), L.MultiHeadAttention(2, width // 2, dropout=rate)
        self.norm, self.drop = L.LayerNormalization(), L.Dropout(rate)

    def build(self, x_shape: Any, memory_shape: Any) -> None:
        self.own.build(x_shape)
        self.cross.build(x_shape, memory_shape)
        self.norm.build(x_shape)

    def call(self, x: Any, memory: Any, training: bool | None = None) -> Any:
        x = self.own(x, training=training)
        return self.norm(x + self.drop(self.cross(x, memory, training=training), training=training))

    def compute_output_shape(self, x_shape: Any, memory_shape: Any) -> Any:
        return x_shape


@_register
class SkippedBranch(_Configured):
    """Stochastic depth as the examples write it: a draw for each row, from a seed of the layer's own."""

    def __init__(self, drop_prob: float = RATE, **options: Any):
        super().__init__(drop_prob=drop_prob, **options)
        self.drop_prob, self.seeds = drop_prob, keras.random.SeedGenerator(1)

    def call(self, x: Any, training: bool | None = None) -> Any:
        if not training or not self.drop_prob:
            return x
        keep = 1 - self.drop_prob
        shape = (ops.shape(x)[0], *([1] * (len(x.shape) - 1)))
        return x / keep * ops.floor(keep + keras.random.uniform(shape, seed=self.seeds))


@_register
class Mixing(_Configured):
    """A block that mixes steps and channels: by Dense layers, by the Fourier transform, or by a gate over the steps."""

    def __init__(self, how: str, rate: float = RATE, **options: Any):
        super().__init__(how=how, rate=rate, **options)
        self.how, self.drop = how, L.Dropout(rate)
        self.norms = [L.LayerNormalization(), L.LayerNormalization()]

    def build(self, shape: Any) -> None:
        steps, width = shape[1:]
        self.steps_first, self.steps_last = L.Dense(steps, "gelu"), L.Dense(steps)
        self.first, self.last = L.Dense(2 * width, "gelu"), L.Dense(width)
        for layer, size in ((self.steps_first, steps), (self.steps_last, steps), (self.first, width)):
            layer.build((None, None, size))
        self.last.build((None, None, width if self.how == "gate" else 2 * width))
        for norm in self.norms:
            norm.build(shape)

    def call(self, x: Any, training: bool | None = None) -> Any:
        y = self.norms[0](x)
        if self.how == "gate":
            one, two = ops.split(self.first(y), 2, axis=-1)
            gate = ops.transpose(self.steps_first(ops.transpose(self.norms[1](two), (0, 2, 1))), (0, 2, 1))
            return x + self.last(one * self.drop(gate, training=training))
        if self.how == "fourier":
            y = ops.fft2((y, ops.zeros_like(y)))[0]
        else:
            y = ops.transpose(self.steps_last(self.steps_first(ops.transpose(y, (0, 2, 1)))), (0, 2, 1))
        x = self.norms[1](x + y)
        return x + self.drop(self.last(self.first(x)), training=training)


@_register
class WindowAttention(_Configured):
    """Attention within windows of an image's steps, and a branch that is skipped at random."""

    def __init__(self, window: int = 4, rate: float = RATE, **options: Any):
        super().__init__(window=window, rate=rate, **options)
        self.window, self.inside, self.skip = window, L.MultiHeadAttention(2, WIDTH // 2, dropout=rate), SkippedBranch(rate)

    def build(self, shape: Any) -> None:
        self.inside.build(shape, shape)

    def call(self, x: Any, training: bool | None = None) -> Any:
        steps, width = x.shape[1:]
        y = ops.reshape(x, (-1, self.window, width))
        y = ops.reshape(self.inside(y, y, training=training), (-1, steps, width))
        return x + self.skip(y, training=training)


@_register
class Antirectifier(_Configured):
    """Keeps the positive and the negative parts of its input apart."""

    def call(self, x: Any) -> Any:
        x = x - ops.mean(x, axis=-1, keepdims=True)
        return ops.concatenate([ops.relu(x), ops.relu(-x)], axis=-1)

    def compute_output_shape(self, shape: Any) -> Any:
        return (*shape[:-1], 2 * shape[-1])


@_register
class Gated(_Configured):
    """A gated residual network for one feature, with dropout before its gate."""

    def __init__(self, width: int = WIDTH, rate: float = RATE, **options: Any):
        super().__init__(width=width, rate=rate, **options)
        self.first, self.second = L.Dense(width, "elu"), L.Dense(width)
        self.gate, self.value, self.skip = L.Dense(width, "sigmoid"), L.Dense(width), L.Dense(width)
        self.drop, self.norm = L.Dropout(rate), L.LayerNormalization()

    def build(self, shape: Any) -> None:
        wide = (*shape[:-1], self.options["width"])
        for layer, size in ((self.first, shape), (self.skip, shape), (self.second, wide), (self.gate, wide), (self.value, wide)):
            layer.build(size)
        self.norm.build(wide)

    def call(self, x: Any, training: bool | None = None) -> Any:
        y = self.drop(self.second(self.first(x)), training=training)
        return self.norm(self.skip(x) + self.gate(y) * self.value(y))

    def compute_output_shape(self, shape: Any) -> Any:
        return (*shape[:-1], self.options["width"])


@_register
class Sampling(_Configured):
    """Draws from a normal distribution with this mean and logarithm of the variance."""

    def __init__(self, **options: Any):
        super().__init__(**options)
        self.seeds = keras.random.SeedGenerator(2)

    def call(self, moments: Any) -> Any:
        mean, log_variance = moments
        return mean + ops.exp(log_variance / 2) * keras.random.normal(ops.shape(mean), seed=self.seeds)

    def compute_output_shape(self, shapes: Any) -> Any:
        return shapes[0]


@_register
class SequenceLoss(_Configured):
    """Passes its input on and adds a loss, as the layer with the CTC loss of the captcha example."""

    def call(self, labels: Any, scores: Any) -> Any:
        self.add_loss(ops.mean(ops.square(ops.mean(scores, axis=(1, 2)) - ops.cast(labels[:, 0], "float32"))))
        return scores

    def compute_output_shape(self, labels_shape: Any, scores_shape: Any) -> Any:
        return scores_shape


def ended(x: Any, units: int = CLASSES, activation: str = "softmax") -> Any:
    """The head of a classifier of steps: pooled, a hidden layer with dropout, and the classes."""
    x = L.Dropout(0.2, name="head_drop")(L.GlobalAveragePooling1D(name="pool")(x))
    x = L.Dropout(0.2, name="last_drop")(L.Dense(WIDTH, "gelu", name="head")(x))
    return L.Dense(units, activation, name="classes")(x)


def of_patches(*blocks: L.Layer, outputs: Callable[[Any], Any] = ended) -> Form:
    """A model of an image's patches: their positions, blocks and a head."""
    inputs = keras.Input(IMAGE, name="image")
    x = Positions(16, name="patches")(Patches(name="cut")(inputs))
    for block in blocks:
        x = block(x)
    return Form(keras.Model(inputs, outputs(x)), numbers(*IMAGE))


def in_a_row(shape: tuple, layers: Iterable[L.Layer]) -> Form:
    return Form(keras.Sequential([keras.Input(shape), *layers]), numbers(*shape))


def external_attention() -> Form:
    def attended(x: Any) -> Any:
        y = L.Softmax(axis=1)(L.Dense(STEPS, name="memory")(x))
        return ended(L.Add()([x, L.Dropout(RATE)(L.Dense(WIDTH, name="back")(y))]))

    return of_patches(outputs=attended)


def compact_transformer() -> Form:
    inputs = keras.Input(IMAGE, name="image")
    x = inputs
    for filters in (8, WIDTH):
        x = L.MaxPooling2D(2)(L.Conv2D(filters, 3, padding="same", activation="relu")(x))
    x = Positions(16, name="steps")(L.Reshape((-1, WIDTH))(x))
    for number in range(2):
        y = L.MultiHeadAttention(2, WIDTH // 2, dropout=RATE)(*[L.LayerNormalization(epsilon=1e-5)(x)] * 2)
        x = L.Add()([SkippedBranch(RATE * (number + 1), name=f"skip_{number}")(y), x])
        x = L.Add()([L.Dropout(RATE)(L.Dense(WIDTH, "gelu")(x)), x])
    weights = L.Softmax(axis=1)(L.Dense(1, name="pooling")(x))
    pooled = L.Flatten()(L.Dot(axes=1)([weights, x]))
    return Form(keras.Model(inputs, L.Dense(CLASSES, name="classes")(pooled)), numbers(*IMAGE))


def token_learner() -> Form:
    def learned(x: Any) -> Any:
        maps = L.Softmax(axis=1)(L.Dense(4, name="maps")(L.LayerNormalization()(x)))
        return ended(Block(name="after")(L.Dot(axes=1)([maps, x])))

    return of_patches(Block(name="before"), outputs=learned)


def conv_mixer() -> Form:
    inputs = keras.Input(IMAGE, name="image")
    x = L.BatchNormalization()(L.Activation("gelu")(L.Conv2D(WIDTH, 2, 2, name="stem")(inputs)))
    for _ in range(2):
        y = L.BatchNormalization()(L.Activation("gelu")(L.DepthwiseConv2D(5, padding="same")(x)))
        x = L.BatchNormalization()(L.Activation("gelu")(L.Conv2D(WIDTH, 1)(L.Add()([y, x]))))
    return Form(keras.Model(inputs, L.Dense(CLASSES, "softmax")(L.GlobalAvgPool2D()(x))), numbers(*IMAGE))


def segmentation() -> Form:
    inputs = keras.Input(IMAGE, name="image")
    x = before = L.ReLU()(L.BatchNormalization()(L.Conv2D(8, 3, 2, padding="same")(inputs)))
    x = L.MaxPooling2D(2)(L.BatchNormalization()(L.SeparableConv2D(WIDTH, 3, padding="same")(L.ReLU()(x))))
    x = L.Add()([x, L.Conv2D(WIDTH, 1, 2)(before)])
    x = L.UpSampling2D(2)(L.BatchNormalization()(L.Conv2DTranspose(WIDTH, 3, padding="same")(L.ReLU()(x))))
    x = L.SpatialDropout2D(0.2)(L.UpSampling2D(2)(L.Concatenate()([x, before])))
    return Form(keras.Model(inputs, L.Conv2D(CLASSES, 3, padding="same", activation="softmax")(x)), numbers(*IMAGE))


def mini_gpt() -> Form:
    inputs = keras.Input((STEPS,), dtype="int32", name="words")
    x = Block(causal=True, name="block")(Positions(STEPS, vocabulary=WORDS, name="tokens")(inputs))
    return Form(keras.Model(inputs, [L.Dense(WORDS, name="next")(x), x]), words())


def letters_by_lstm() -> Form:
    source, target = keras.Input((None, WORDS), name="source"), keras.Input((None, WORDS), name="target")
    _, *states = L.LSTM(WIDTH, return_state=True, dropout=0.2, name="encoder")(source)
    x, *_ = L.LSTM(WIDTH, return_sequences=True, return_state=True, dropout=0.2, name="decoder")(target, initial_state=states)
    model = keras.Model([source, target], L.Dense(WORDS, "softmax", name="letters")(x))
    return Form(model, [numbers(STEPS, WORDS), numbers(6, WORDS)])


def translation() -> Form:
    source, target = (keras.Input((STEPS,), dtype="int32", name=name) for name in ("source", "target"))
    memory = Block(name="encoder")(Positions(STEPS, vocabulary=WORDS, name="source_words")(source))
    x = DecoderBlock(name="decoder")(Positions(STEPS, vocabulary=WORDS, name="target_words")(target), memory)
    model = keras.Model({"source": source, "target": target}, L.Dense(WORDS, name="words")(L.Dropout(0.5)(x)))
    return Form(model, {"source": words(), "target": words()})


def text_by_lstm() -> Form:
    inputs = keras.Input((None,), dtype="int32", name="words")
    x = L.Bidirectional(L.LSTM(8, return_sequences=True, dropout=0.2))(L.Embedding(WORDS, WIDTH)(inputs))
    return Form(keras.Model(inputs, L.Dense(1, "sigmoid")(L.Bidirectional(L.LSTM(8))(x))), words())


def text_by_attention() -> Form:
    inputs = keras.Input((STEPS,), dtype="int32", name="words")
    x = Block(name="block")(Positions(STEPS, vocabulary=WORDS, name="tokens")(inputs))
    return Form(keras.Model(inputs, ended(x)), words())


def series_by_attention() -> Form:
    inputs = keras.Input((STEPS, 2), name="series")
    x = inputs
    for _ in range(2):
        y = L.Dropout(RATE)(L.MultiHeadAttention(2, 4, dropout=RATE)(x, x))
        y = x = L.Add()([L.LayerNormalization(epsilon=1e-6)(y), x])
        y = L.Conv1D(2, 1)(L.Dropout(RATE)(L.Conv1D(4, 1, activation="relu")(y)))
        x = L.Add()([L.LayerNormalization(epsilon=1e-6)(y), x])
    return Form(keras.Model(inputs, ended(x)), numbers(STEPS, 2))


def anomalies() -> Form:
    down = [L.Conv1D(8, 3, 2, "same", activation="relu"), L.Dropout(0.2), L.Conv1D(4, 3, 2, "same", activation="relu")]
    up = [
        L.Conv1DTranspose(4, 3, 2, "same", activation="relu"),
        L.Dropout(0.2),
        L.Conv1DTranspose(8, 3, 2, "same", activation="relu"),
    ]
    return in_a_row((16, 1), [*down, *up, L.Conv1DTranspose(1, 3, padding="same")])


def table_by_attention() -> Form:
    inputs = {name: keras.Input((), dtype="int32", name=name) for name in ("work", "country", "family")}
    inputs |= {name: keras.Input((1,), name=name) for name in ("age", "hours")}
    columns = [L.Embedding(WORDS, WIDTH)(inputs[name]) for name in ("work", "country", "family")]
    x = Block(name="columns")(ops.stack(columns, axis=1))
    plain = L.LayerNormalization()(L.Concatenate()([inputs["age"], inputs["hours"]]))
    x = L.Concatenate()([L.Flatten()(x), plain])
    x = L.Dropout(0.2)(L.Dense(WIDTH, "selu")(L.BatchNormalization()(x)))
    given = {name: words()[:, 0] if name in ("work", "country", "family") else numbers(1) for name in inputs}
    return Form(keras.Model(inputs, L.Dense(1, "sigmoid")(x)), given)


def chosen_features() -> Form:
    inputs = {name: keras.Input((1,), name=name) for name in ("age", "wage", "weeks")}
    columns = [L.Dense(WIDTH)(each) for each in inputs.values()]
    weights = L.Dense(3, "softmax", name="choice")(Gated(name="choosing")(L.Concatenate()(columns)))
    gated = [Gated(name=f"gated_{name}")(column) for name, column in zip(inputs, columns)]
    x = L.Flatten()(L.Dot(axes=1)([L.Reshape((3, 1))(weights), L.Reshape((3, WIDTH))(L.Concatenate()(gated))]))
    return Form(keras.Model(inputs, L.Dense(1, "sigmoid")(x)), {name: numbers(1) for name in inputs})


def captcha() -> Form:
    image, labels = keras.Input((16, 8, 1), name="image"), keras.Input((None,), name="label")
    x = L.MaxPooling2D(2)(L.Conv2D(8, 3, activation="relu", padding="same")(image))
    x = L.Dropout(0.2)(L.Dense(WIDTH, "relu")(L.Reshape((8, 32))(x)))
    x = L.Bidirectional(L.LSTM(8, return_sequences=True, dropout=0.25))(x)
    scores = SequenceLoss(name="loss")(labels, L.Dense(CLASSES + 1, "softmax", name="letters")(x))
    return Form(keras.Model([image, labels], scores), [numbers(16, 8, 1), numbers(5)])


class _Called(keras.Model):
    """A subclassed model, which counts the steps of its own training."""

    steps = 0

    def train_step(self, *arguments: Any, **options: Any) -> Any:
        self.steps += 1
        return super().train_step(*arguments, **options)

    def get_config(self) -> dict[str, Any]:
        return {"name": self.name}


@_register
class Tagger(keras.Model):
    """Named entities: a subclassed model with dropout in its layers and between them."""

    def __init__(self, **options: Any):
        super().__init__(**options)
        self.tokens, self.block = Positions(STEPS, vocabulary=WORDS, name="tokens"), Block(name="block")
        self.drops = [L.Dropout(RATE, name="drop_1"), L.Dropout(RATE, name="drop_2")]
        self.wide, self.tags = L.Dense(WIDTH, "relu", name="wide"), L.Dense(CLASSES, "softmax", name="tags")

    def call(self, x: Any, training: bool | None = None) -> Any:
        x = self.drops[0](self.block(self.tokens(x), training=training), training=training)
        return self.tags(self.drops[1](self.wide(x), training=training))

    def get_config(self) -> dict[str, Any]:
        return {"name": self.name}


@_register
class Perceiver(keras.Model):
    """Latent steps of its own weights that attend to an image's patches."""

    def __init__(self, **options: Any):
        super().__init__(**options)
        self.cut, self.patches = Patches(name="cut"), Positions(16, name="patches")
        self.cross = L.MultiHeadAttention(1, WIDTH, dropout=RATE, name="cross")
        self.block, self.classes = Block(name="block"), L.Dense(CLASSES, name="classes")

    def build(self, shape: Any) -> None:
        self.latent = self.add_weight((4, WIDTH), name="latent")
        self.patches.build((None, 16, 48))
        self.cross.build((None, 4, WIDTH), (None, 16, WIDTH))
        self.block.build((None, 4, WIDTH))
        self.classes.build((None, WIDTH))

    def call(self, images: Any, training: bool | None = None) -> Any:
        x = self.patches(self.cut(images))
        latent = ops.broadcast_to(self.latent, (ops.shape(x)[0], 4, WIDTH))
        latent = latent + self.cross(latent, x, training=training)
        return self.classes(ops.mean(self.block(latent, training=training), axis=1))

    def get_config(self) -> dict[str, Any]:
        return {"name": self.name}


@_register
class Speech(_Called):
    """A transformer from sounds to letters, with a `train_step` of its own."""

    def __init__(self, **options: Any):
        super().__init__(**options)
        self.sounds = [L.Conv1D(WIDTH, 3, 2, "same", activation="relu", name=f"sound_{number}") for number in range(2)]
        self.letters = Positions(STEPS, vocabulary=WORDS, name="letters")
        self.encoder, self.decoder = Block(name="encoder"), DecoderBlock(name="decoder")
        self.classes = L.Dense(WORDS, name="classes")

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        x, letters = inputs
        for layer in self.sounds:
            x = layer(x)
        return self.classes(self.decoder(self.letters(letters), self.encoder(x, training=training), training=training))


def _critic() -> keras.Sequential:
    layers = [L.Conv2D(8, 4, 2, "same"), L.LeakyReLU(0.2), L.Conv2D(WIDTH, 4, 2, "same", name="features"), L.LeakyReLU(0.2)]
    return keras.Sequential(
        [keras.Input(IMAGE), *layers, L.Flatten(), L.Dropout(0.2, name="drop"), L.Dense(1)], name="discriminator"
    )


@_register
class Gan(_Called):
    """A generator and a discriminator; only its own step trains the generator."""

    def __init__(self, **options: Any):
        super().__init__(**options)
        self.discriminator = _critic()
        grown = [L.Dense(4 * 4 * 8, name="start"), L.Reshape((4, 4, 8)), L.Conv2DTranspose(8, 4, 2, "same"), L.LeakyReLU(0.2)]
        self.generator = keras.Sequential([keras.Input((4,)), *grown, L.Conv2DTranspose(3, 4, 2, "same")], name="generator")

    def call(self, noise: Any, training: bool | None = None) -> Any:
        return self.discriminator(self.generator(noise, training=training), training=training)


@_register
class Vae(_Called):
    """An encoder whose output is drawn, and a decoder; its step adds the divergence."""

    def __init__(self, **options: Any):
        super().__init__(**options)
        inputs = keras.Input((12,), name="numbers")
        x = L.Dropout(RATE, name="drop")(L.Dense(WIDTH, "relu", name="hidden")(inputs))
        mean, log_variance = L.Dense(2, name="mean")(x), L.Dense(2, name="log_variance")(x)
        drawn = Sampling(name="sampling")([mean, log_variance])
        self.encoder = keras.Model(inputs, [mean, log_variance, drawn], name="encoder")
        self.decoder = keras.Sequential(
            [keras.Input((2,)), L.Dense(WIDTH, "relu", name="wide"), L.Dropout(RATE, name="drop"), L.Dense(12)], name="decoder"
        )

    def call(self, x: Any, training: bool | None = None) -> Any:
        return self.decoder(self.encoder(x, training=training)[0], training=training)


@_register
class Distiller(_Called):
    """A student that is trained to predict what a teacher predicts."""

    def __init__(self, **options: Any):
        super().__init__(**options)
        self.teacher, self.student = (_of_digits(width, name) for name, width in (("teacher", 32), ("student", WIDTH)))
        self.teacher.trainable = False

    def call(self, x: Any, training: bool | None = None) -> Any:
        return self.student(x, training=training)

    def compute_loss(self, x: Any = None, y: Any = None, y_pred: Any = None, **options: Any) -> Any:
        soft = keras.losses.kl_divergence(ops.softmax(self.teacher(x, training=False)), ops.softmax(y_pred))
        return ops.mean(soft) + super().compute_loss(x=x, y=y, y_pred=y_pred, **options)


def _of_digits(width: int, name: str) -> keras.Sequential:
    layers = [L.Conv2D(8, 3, 2, activation="relu"), L.Flatten(), L.Dense(width, "relu", name="wide"), L.Dropout(0.5, name="drop")]
    return keras.Sequential([keras.Input(IMAGE), *layers, L.Dense(CLASSES)], name=name)


@_register
class Contrastive(_Called):
    """One encoder for two images of a pair, and the likeness of what it gives."""

    def __init__(self, **options: Any):
        super().__init__(**options)
        self.encoder = _of_digits(WIDTH, "encoder")

    def call(self, pair: Any, training: bool | None = None) -> Any:
        one, two = (self.encoder(each, training=training) for each in pair)
        return ops.sum(one * two, axis=-1)


def called(model: keras.Model, x: Any, inner: str = "") -> Form:
    model(x)
    return Form(model, x, inner)


FORMS: dict[str, Callable[[], Form]] = {
    "mnist_convnet": lambda: in_a_row(
        IMAGE, [L.Conv2D(8, 3, activation="relu"), L.MaxPooling2D(), L.Flatten(), L.Dropout(0.5), L.Dense(CLASSES, "softmax")]
    ),
    "vision_transformer": lambda: of_patches(Block(name="one"), Block(name="two")),
    "mlp_mixer": lambda: of_patches(Mixing("dense", name="one"), Mixing("dense", name="two")),
    "fnet": lambda: of_patches(Mixing("fourier", name="one"), Mixing("fourier", name="two")),
    "gmlp": lambda: of_patches(Mixing("gate", name="one"), Mixing("gate", name="two")),
    "conv_mixer": conv_mixer,
    "external_attention": external_attention,
    "compact_transformer": compact_transformer,
    "swin_transformer": lambda: of_patches(WindowAttention(name="one"), WindowAttention(name="two")),
    "token_learner": token_learner,
    "segmentation": segmentation,
    "object_detection": lambda: of_patches(Block(name="block"), outputs=lambda x: ended(x, 4, "linear")),
    "video_conv_lstm": lambda: in_a_row(
        (4, 8, 8, 1),
        [
            L.ConvLSTM2D(4, 3, padding="same", return_sequences=True, dropout=0.2, name="one"),
            L.BatchNormalization(),
            L.ConvLSTM2D(4, 3, padding="same", return_sequences=True, name="two"),
            L.Conv3D(1, 3, padding="same", activation="sigmoid"),
        ],
    ),
    "video_transformer": lambda: in_a_row(
        (4, WIDTH),
        [Positions(4, name="frames"), Block(name="block"), L.GlobalMaxPooling1D(), L.Dropout(0.5), L.Dense(CLASSES, "softmax")],
    ),
    "perceiver": lambda: called(Perceiver(name="perceiver"), numbers(*IMAGE)),
    "mini_gpt": mini_gpt,
    "letters_by_lstm": letters_by_lstm,
    "translation": translation,
    "text_by_lstm": text_by_lstm,
    "text_by_attention": text_by_attention,
    "named_entities": lambda: called(Tagger(name="tagger"), words()),
    "speech": lambda: called(Speech(name="speech"), (numbers(32, 4), words())),
    "series_by_attention": series_by_attention,
    "series_anomalies": anomalies,
    "series_forecast": lambda: in_a_row((STEPS, 2), [L.LSTM(WIDTH, dropout=0.2, recurrent_dropout=0.2), L.Dense(1)]),
    "antirectifier": lambda: in_a_row(
        (12,), [L.Dense(WIDTH), Antirectifier(), L.Dense(WIDTH), Antirectifier(), L.Dropout(0.5), L.Dense(3)]
    ),
    "table_by_attention": table_by_attention,
    "chosen_features": chosen_features,
    "captcha": captcha,
    "gan": lambda: called(Gan(name="gan"), numbers(4), "discriminator"),
    "vae": lambda: called(Vae(name="vae"), numbers(12), "decoder"),
    "distillation": lambda: called(Distiller(name="distiller"), numbers(*IMAGE), "student"),
    "contrastive": lambda: called(Contrastive(name="contrastive"), (numbers(*IMAGE), numbers(*IMAGE)), "encoder"),
}
