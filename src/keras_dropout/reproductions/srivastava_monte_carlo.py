"""Srivastava et al. 2014, figure 11: averages of sampled networks against weight scaling."""

from collections.abc import Callable
from typing import Any

import numpy as np

from keras_dropout.bench.data.dataset import Data
from keras_dropout.ensemble import average
from keras_dropout.reproductions.framework import Expectation, Found, Part, Reproduction
from keras_dropout.reproductions.networks import on_garments

_DROPOUT, _NETWORKS, _IMAGES = "dropout", 50, 5000


def _parts(quick: bool) -> dict[str, Part]:
    examples, units = (3000, 256) if quick else (20_000, 512)
    variants = {_DROPOUT: {"input": 0.2, "hidden": 0.5}}
    return {"averages": on_garments((units, units), 0.02, variants, examples, 40, keep_models=True)}


def averages(model: Any, data: Data) -> dict[str, float]:
    """Return error (as a share) and NLL (in nats) of averages of 1, 3, 10, 30 and 50 sampled networks, and of weight scaling.

    They are measured on 5,000 test images. Each image gets its own sampled networks.
    """
    x = data.test.x[:_IMAGES].astype("float32") / data.divide_by
    found = average(model, x, data.test.y[:_IMAGES], samples=_NETWORKS, masks="independent")
    figures = {f"error, {score.networks} averaged": score.error for score in found.scores}
    figures |= {f"NLL, {score.networks} averaged": score.nll for score in found.scores}
    return figures | {"error, weight scaling": found.scaled_error, "NLL, weight scaling": found.scaled_nll}


def _less(first: str, second: str) -> Callable[[Found], np.ndarray]:
    return lambda found: found.of_models(averages, first, _DROPOUT) - found.of_models(averages, second, _DROPOUT)


REPRODUCTION = Reproduction(
    name="srivastava-monte-carlo",
    title="Averages of sampled networks against weight scaling",
    claim="Some 50 sampled networks, averaged, have the error of the network with scaled weights; fewer have a larger one.",
    source="Srivastava et al. 2014, JMLR 15:1929-1958, figure 11",
    parts=_parts,
    expectations=(
        Expectation(
            f"test error: {_NETWORKS} averaged minus weight scaling",
            _less(f"error, {_NETWORKS} averaged", "error, weight scaling"),
            above=-0.003,
            below=0.003,
            published="about 50 sampled networks are as good as weight scaling",
        ),
        Expectation(
            "test error: one sampled network minus weight scaling",
            _less("error, 1 averaged", "error, weight scaling"),
            above=0.0,
            published="few sampled networks are worse than weight scaling",
        ),
        *(
            Expectation(
                f"test error: {few} averaged minus {many}",
                _less(f"error, {few} averaged", f"error, {many} averaged"),
                above=0.0,
                published="the error falls with the number of networks",
            )
            for few, many in ((1, 3), (3, 10))
        ),
    ),
    shows=("test_loss", "test_accuracy"),
    differs="Fashion-MNIST in place of MNIST, a part of its training images, a smaller network; 5,000 test images. As good is "
    "taken as within 0.3 points of error.",
    quick_seconds=40,
)
