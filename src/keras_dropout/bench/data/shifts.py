"""Shift test images away from the training images: rotation, noise, blur or low contrast, at five strengths. numpy and scipy only.

Each image is shifted by itself: the result depends on its content and the seed, not on the other images or its position.
"""

import hashlib
import numbers
from typing import Any

import numpy as np
from scipy import ndimage

from keras_dropout.errors import check_choice, check_whole, refuse

SHIFTS = ("rotation", "noise", "blur", "contrast")
STRENGTHS = {
    "rotation": (15, 30, 45, 60, 75),
    "noise": (0.08, 0.12, 0.18, 0.26, 0.38),
    "blur": (0.5, 1.0, 1.5, 2.0, 3.0),
    "contrast": (0.4, 0.3, 0.2, 0.1, 0.05),
}


def shift(
    images: Any, kind: str, strength: int, seed: int = 0, *, low: float | None = None, high: float | None = None
) -> np.ndarray:
    """Shift `images`, (images, height, width) or (images, height, width, channels); the result has the same shape and dtype.

    Strengths are 1 to 5; 0 leaves the images unchanged.

    rotation: anticlockwise by 15, 30, 45, 60, 75 degrees about the centre, with linear interpolation; corners become `low`
              (Ovadia et al. 2019, arXiv:1906.02530).
    noise:    Gaussian, independent for each pixel and channel, sd .08, .12, .18, .26, .38 of the range; stronger noise is the same
              noise scaled up (Hendrycks and Dietterich 2019, arXiv:1903.12261, also the source of the factors of contrast).
    blur:     Gaussian with sd 0.5, 1, 1.5, 2, 3 pixels; the pixels of the edge are repeated outside the image.
    contrast: the distance from each channel's mean over the image times .4, .3, .2, .1, .05.

    Images are uint8 or floats within [low, high]; the default is 0 to 255 for uint8 and 0 to 1 for floats. Results are
    clipped to this range. Noise depends on `seed` and on the image, rounded to 8 bits: an image gets the same noise at any
    position, and as floats too.
    """
    images, low, high = _images(images, low, high)
    check_choice("shift", kind, SHIFTS)
    check_whole("strength", strength, 0, "Strengths are 0 (unchanged) to 5.")
    check_whole("seed", seed, 0, "For example 0.")
    if strength > 5:
        refuse(f"strength must be at most 5; got {strength}.", "Strengths are 0 (unchanged) to 5.")
    shifted = np.empty_like(images)
    for number, image in enumerate(images):
        shifted[number] = image if strength == 0 else _shift(image, kind, STRENGTHS[kind][strength - 1], seed, low, high)
    return shifted


def resize(images: Any, shape: tuple[int, ...]) -> np.ndarray:
    """Resize `images` to a model's input shape, (height, width) or (height, width, channels); dtype and range stay the same.

    Pixels are areas, with linear interpolation between their centres. There is no blur before resizing, so images made several
    times smaller lose pixels. Grey images are repeated for each channel; colour images become grey by the mean of their channels.
    Use it for data that are foreign to a model, such as another data set.
    """
    images = _image_arrays(images)
    shape = tuple(shape)
    if len(shape) not in (2, 3):
        refuse(f"shape must be (height, width) or (height, width, channels); got {shape}.", "Give the model's input shape.")
    for size in shape:
        check_whole("each size in shape", size, 1, "Give the model's input shape without the examples.")
    channels, wanted = (sizes[2] if len(sizes) == 3 else 1 for sizes in (images.shape[1:], shape))
    if wanted not in (1, channels) and channels != 1:
        refuse(f"images of {channels} channels cannot be given {wanted}.", "Grey images can have any number of channels.")
    resized = np.empty((len(images), *shape), dtype=images.dtype)
    for number, image in enumerate(images):
        image = image.reshape(*image.shape[:2], channels).astype("float64")
        if wanted != channels:
            image = image.mean(axis=-1, keepdims=True)  # a single channel stays the same; it is repeated below
        factors = (shape[0] / image.shape[0], shape[1] / image.shape[1], 1)
        image = ndimage.zoom(image, factors, order=1, mode="nearest", grid_mode=True)
        resized[number] = _as_before(np.broadcast_to(image, (*shape[:2], wanted)).reshape(shape), images.dtype)
    return resized


def _shift(image: np.ndarray, kind: str, size: float, seed: int, low: float, high: float) -> np.ndarray:
    values = image.astype("float64")
    if kind == "rotation":
        values = ndimage.rotate(values, size, reshape=False, order=1, mode="constant", cval=low)
    elif kind == "blur":
        values = ndimage.gaussian_filter(values, size, axes=(0, 1), mode="nearest")
    elif kind == "contrast":
        mean = values.mean(axis=(0, 1))
        values = mean + size * (values - mean)
    else:
        content = np.rint((values - low) / (high - low) * 255).astype("uint8").tobytes()
        rng = np.random.default_rng([seed, int.from_bytes(hashlib.blake2b(content, digest_size=16).digest())])
        values += size * (high - low) * rng.normal(size=values.shape)
    return _as_before(values.clip(low, high), image.dtype)


def _as_before(values: np.ndarray, dtype: np.dtype) -> np.ndarray:
    return (np.rint(values) if dtype == np.uint8 else values).astype(dtype)


def _image_arrays(images: Any) -> np.ndarray:
    images = np.asarray(images)
    if images.ndim not in (3, 4) or not images.size or not (images.dtype == np.uint8 or images.dtype.kind == "f"):
        refuse(
            "images must be (images, height, width) or (images, height, width, channels), uint8 or floats; "
            f"got shape {images.shape} of {images.dtype}.",
            "Shifts are for images alone; convert other whole numbers with astype('uint8') where they are 0 to 255.",
        )
    if images.dtype.kind == "f" and not np.isfinite(images).all():
        refuse("images must be finite; got nan or an infinite value.", "Leave these images out.")
    return images


def _images(images: Any, low: float | None, high: float | None) -> tuple[np.ndarray, float, float]:
    images = _image_arrays(images)
    low = 0.0 if low is None else low
    high = (255.0 if images.dtype == np.uint8 else 1.0) if high is None else high
    for name, limit in {"low": low, "high": high}.items():
        if not isinstance(limit, numbers.Real):
            refuse(f"{name} must be a number; got {limit!r}.", "For example low=0, high=255.")
    if not low < high or images.min() < low or images.max() > high:
        refuse(
            f"images must lie in [low, high] = [{low:g}, {high:g}]; got {images.min():g} to {images.max():g}.",
            "Say what range they have: low=..., high=...; for standardised images the range of the whole data set.",
        )
    return images, low, high
