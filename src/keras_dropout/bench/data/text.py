"""Characters of a real English text, for a small language model."""

import platform
from collections import Counter

import numpy as np

from keras_dropout.bench.data.dataset import Data, Part, tenth
from keras_dropout.errors import check_whole, refuse

OTHER = "other"  # name of class 0: every character outside the vocabulary


def characters(length: int | None = 200_000, window: int = 64, vocabulary: int = 80) -> Data:
    """Load data for predicting the next character of Python's own language reference (`pydoc_data.topics`, part of Python).

    x (windows, window), int32: characters by number; y, of the same shape: the character after each. The text has `length`
    characters, None for all. Its last tenth is the test data, and no window crosses that border. Windows do not overlap. The
    `vocabulary` most frequent characters of the training text have the numbers 1, 2, …, all others 0; `classes` names them.

    The reference repeats paragraphs from one topic to the next, so only the first copy of each paragraph is kept. Otherwise part
    of the test text would also be in the training text. The text depends on the version of Python; the data's name includes it.
    """
    check_whole("window", window, 1, "For example 64 characters.")
    check_whole("vocabulary", vocabulary, 1, "For example 80 characters.")
    text = _reference()
    if length is None:
        length = len(text)
    check_whole("length", length, 30 * (window + 1), f"A text needs at least 30 windows of {window} characters.")
    if length > len(text):
        refuse(
            f"length must be at most {len(text):,}, all characters of the text; got {length:,}.", "Leave it at None to take all."
        )
    border = length - length // 10
    train, test = text[:border], text[border:length]
    known = sorted(Counter(train).items(), key=lambda each: (-each[1], each[0]))[:vocabulary]
    codes = {character: number for number, (character, _) in enumerate(known, 1)}
    train_part, test_part = (Part(*_windows([codes.get(each, 0) for each in part], window)) for part in (train, test))
    version = platform.python_version()
    classes = (OTHER, *codes)
    return Data(
        f"language reference of Python {version}", train_part, test_part, validation=tenth(len(train_part.y)), classes=classes
    )


def _reference() -> str:
    """Return the topics in the order of their names, each paragraph once."""
    try:
        from pydoc_data.topics import topics
    except ImportError:
        refuse("this Python comes without its language reference, pydoc_data.topics.", "Install the whole standard library.")
    paragraphs = (part.strip("\n") for name in sorted(topics) for part in topics[name].split("\n\n"))
    return "\n\n".join(dict.fromkeys(paragraphs))


def _windows(codes: list[int], window: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the windows and, for each character, the next one; the rest of the text is left out."""
    number = (len(codes) - 1) // window
    found = np.array(codes[: number * window + 1], "int32")
    return found[:-1].reshape(number, window), found[1:].reshape(number, window)
