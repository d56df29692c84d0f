"""A small text model that is pretrained here, for recipes that tune adapters (LoRA)."""

import hashlib
from pathlib import Path

import keras
import numpy as np

from keras_dropout import writing
from keras_dropout.bench.data import public_sets, reviews

_WIDTH, _RANK = 64, 8
_EPOCHS, _BATCH = 30, 256


def adapted_classifier() -> keras.Model:
    """Build and compile a classifier of film reviews: pretrained layers, of which only adapters and the last layer are trained.

    The embedding and the layer behind the mean of the words were trained to tell a word of a line from the others; see `_train`.
    """
    embeddings, kernel = _weights()
    model = _model(keras.layers.Dense(2, "softmax", kernel_initializer=_initial(3), name="classes"))
    for name, weight in (("embedding", embeddings), ("features", kernel)):
        layer = model.get_layer(name)
        layer.set_weights([weight])
        layer.enable_lora(_RANK, a_initializer=_initial(4))
    model.compile(keras.optimizers.Adam(0.003), "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def _initial(seed: int) -> keras.initializers.Initializer:
    """Return initial weights that are always the same: the runs' keys contain them."""
    return keras.initializers.HeUniform(seed=seed)


def _model(last: keras.layers.Layer) -> keras.Model:
    words = keras.Input((reviews.LENGTH,), dtype="int32", name="words")
    embedding = keras.layers.Embedding(
        reviews.VOCABULARY, _WIDTH, mask_zero=True, embeddings_initializer=_initial(1), name="embedding"
    )
    x = keras.layers.GlobalAveragePooling1D(name="mean")(embedding(words))
    x = keras.layers.Dense(_WIDTH, "relu", use_bias=False, kernel_initializer=_initial(2), name="features")(x)
    return keras.Model(words, last(x))


def _weights() -> tuple[np.ndarray, np.ndarray]:
    """Return the pretrained embeddings and kernel: from the cache beside Keras's data sets, or trained and put there."""
    made_of = f"{reviews.fingerprint()} {Path(__file__).read_text()}"
    folder = public_sets.keras_datasets() / "keras-dropout"
    path = folder / f"reviews-{hashlib.sha256(made_of.encode()).hexdigest()[:16]}.npz"
    if not path.is_file():
        found = _train()
        folder.mkdir(parents=True, exist_ok=True)
        writing.write_whole(path, lambda part: _save(part, found))
    with np.load(path, allow_pickle=False) as stored:
        return stored["arr_0"], stored["arr_1"]


def _save(path: Path, arrays: list[np.ndarray]) -> None:
    with open(path, "wb") as file:  # numpy adds an ending to a name
        np.savez(file, *arrays)


def _train() -> list[np.ndarray]:
    """Train the layers to tell which word was taken out of a line by those that are left, a continuous bag of words."""
    model = _model(keras.layers.Dense(reviews.VOCABULARY, kernel_initializer=_initial(3)))
    model.compile(keras.optimizers.Adam(0.003), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    lines, random = reviews.unlabelled(), np.random.default_rng(0)
    lines = lines[(lines > 0).sum(axis=1) > 3]
    for _ in range(_EPOCHS):
        order = random.permutation(len(lines))
        places = (random.random(len(lines)) * (lines > 0).sum(axis=1)).astype(int)
        rows = np.arange(len(lines))
        x, y = lines.copy(), lines[rows, places]
        x[rows, places] = 0
        model.fit(x[order], y[order], batch_size=_BATCH, shuffle=False, verbose=0)
    return [model.get_layer(name).get_weights()[0] for name in ("embedding", "features")]
