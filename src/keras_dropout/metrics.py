"""Metrics of predictions: proper scores, calibration, selective prediction, foreign data, regression. Needs only numpy and scipy.

`p` are probabilities (..., classes) and `y` the classes as whole numbers (...), usually (examples, classes) and (examples,). With
more axes, as in segmentation, each pixel counts as an example. All computations are in float64; nats are natural logarithms.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from scipy import fft, optimize, special, stats

from keras_dropout.errors import check_choice, check_whole, refuse

CLIP = 1e-7  # keras.config.epsilon(): the smallest probability that Keras's losses see
BINNINGS = ("equal width", "equal mass")
_OFF = 1e-3  # tolerance for sums of probabilities that should be 1
_CELLS = 4096  # cells in the unit interval, for kernel smoothing


class TopLabel(NamedTuple):
    """The largest probability of each prediction, and whether its class is the right one (1.0 or 0.0)."""

    confidence: np.ndarray
    correct: np.ndarray


# Predictions


def as_distribution(outputs: Any, logits: bool = False) -> np.ndarray:
    """Return probabilities (..., classes) from a model's outputs; one column (..., 1), the probability of class 1, becomes two.

    An array with one axis is one column. With `logits`, softmax (or sigmoid) is applied first. Refuse what are no probabilities.
    """
    if logits:
        return _probabilities(special.softmax(as_logits(outputs), axis=-1))
    p = _columns(outputs)
    return _probabilities(np.concatenate([1 - p, p], axis=-1) if p.shape[-1] == 1 else p)


def as_logits(outputs: Any) -> np.ndarray:
    """Return logits (..., classes) for softmax; one column, the logit z of a sigmoid, becomes two: 0 and z."""
    z = _columns(outputs)
    z = np.concatenate([np.zeros_like(z), z], axis=-1) if z.shape[-1] == 1 else z
    if not np.isfinite(z.max(axis=-1)).all():  # -inf rules a class out and is never the largest
        refuse("logits must be below infinity, and one of each example above minus infinity.", "Look for where the model makes it.")
    return z


def _columns(outputs: Any) -> np.ndarray:
    outputs = _numbers("p", outputs)
    return outputs[:, None] if outputs.ndim == 1 else outputs


def top_label(p: Any, y: Any) -> TopLabel:
    """Return what accuracy, calibration of the top label and selective prediction need, in the shape of `y`."""
    return _top_label(*check_predictions(p, y))


def check_predictions(p: Any, y: Any) -> tuple[np.ndarray, np.ndarray]:
    """Return `p` in float64 and `y` as whole numbers; refuse empty input, shapes that do not fit, and invalid values."""
    p, y = _probabilities(_numbers("p", p)), _numbers("y", y)
    if y.shape != p.shape[:-1]:
        refuse(
            f"p of shape (..., classes) needs y of shape (...); got p {p.shape} and y {y.shape}.",
            "Give y as whole numbers: y.argmax(-1) where it is one-hot, y[..., 0] where it is a column; as_distribution(p) makes "
            "two columns of one.",
        )
    classes = p.shape[-1]
    if (y != np.floor(y)).any() or y.min() < 0 or y.max() >= classes:
        refuse(
            f"y must be whole numbers from 0 to {classes - 1}, as p has {classes} classes; got {y.min():g} to {y.max():g}.",
            "Number the classes from 0, in the order of the columns of p.",
        )
    return p, y.astype("int64")


def _numbers(name: str, values: Any) -> np.ndarray:
    """Return `values` as a float64 array with at least one number and one axis, and no nan."""
    try:
        values = np.asarray(values, dtype="float64")
    except (TypeError, ValueError):
        refuse(f"{name} must be an array of numbers; got {type(values).__name__}.", "Give a numpy array.")
    if not values.size or not values.ndim:
        refuse(f"{name} must hold at least one example; got shape {values.shape}.", "Give the examples along the first axis.")
    if np.isnan(values).any():
        refuse(f"{name} must be numbers; got nan.", "Leave these examples out, or look for where the model makes nan.")
    return values


def _probabilities(p: np.ndarray) -> np.ndarray:
    if p.shape[-1] < 2 or p.ndim < 2:
        refuse(
            f"p must be of shape (..., classes) with two classes or more; got {p.shape}.",
            "as_distribution(p) makes two columns of the one that a sigmoid gives.",
        )
    sums = p.sum(axis=-1)
    if p.min() < 0 or not np.abs(sums - 1).max() <= _OFF:
        refuse(
            "p must be probabilities, of at least 0 and summing to 1 over the last axis; "
            f"got values from {p.min():.4g} to {p.max():.4g} and sums from {sums.min():.4g} to {sums.max():.4g}.",
            "If the model's outputs are logits say so: logits=True, or --logits on the command line.",
        )
    return p


def _top_label(p: np.ndarray, y: np.ndarray) -> TopLabel:
    return TopLabel(np.minimum(p.max(axis=-1), 1.0), (p.argmax(axis=-1) == y).astype("float64"))


# Proper scores


def accuracy(p: Any, y: Any) -> float:
    """Return the fraction of examples whose most probable class is right; of equal probabilities the first counts."""
    return float(top_label(p, y).correct.mean())


def nll_each(p: Any, y: Any) -> np.ndarray:
    """Return the negative log-likelihood of each example, -log p[y], in nats and in the shape of `y`.

    As in Keras's crossentropy, p is divided by its sum and clipped to [1e-7, 1 - 1e-7]. No example costs more than 16.1 nats;
    without the clip, one probability of 0 would make the mean infinite.
    """
    p, y = check_predictions(p, y)
    return -np.log(np.clip(_of_class(p, y) / p.sum(axis=-1), CLIP, 1 - CLIP))


def nll(p: Any, y: Any) -> float:
    """Return the mean of `nll_each`, Keras's categorical crossentropy: proper (Good 1952, J. R. Stat. Soc. B 14: 107-114)."""
    return float(nll_each(p, y).mean())


def brier_each(p: Any, y: Any) -> np.ndarray:
    """Return the Brier score of each example, the sum over classes of (p - onehot)^2, from 0 to 2, in the shape of `y`."""
    off, y = check_predictions(p, y)
    off = off.copy()
    np.put_along_axis(off, y[..., None], _of_class(off, y)[..., None] - 1, axis=-1)
    return (off**2).sum(axis=-1)


def brier(p: Any, y: Any) -> float:
    """Return the mean of `brier_each`: proper, twice scikit-learn's for two classes (Brier 1950, Mon. Weather Rev. 78: 1-3)."""
    return float(brier_each(p, y).mean())


def _of_class(p: np.ndarray, y: np.ndarray) -> np.ndarray:
    return np.take_along_axis(p, y[..., None], axis=-1)[..., 0]


# Calibration


def ece(p: Any, y: Any, bins: int = 15, binning: str = "equal width", debiased: bool = False) -> float:
    """Return the expected calibration error of the top label: the sum over bins of n_b / n |accuracy_b - confidence_b|.

    Bins of equal width are ((b - 1) / bins, b / bins] (Guo et al. 2017, arXiv:1706.04599). Bins of equal mass hold equal numbers of
    examples (Nixon et al. 2019, arXiv:1904.01685), but equal confidences always share a bin.

    Chance alone makes each |gap| too large: see `ece_of_calibrated`. `debiased` subtracts the excess that there would be if the
    true gap were the one seen, gap_b ~ N(gap_b, s^2) with s^2 = accuracy_b (1 - accuracy_b) / n_b (Kumar, Liang and Ma 2019,
    arXiv:1909.10155, in closed form), so

        E|N(d, s^2)| - d = s sqrt(2 / pi) exp(-d^2 / 2 s^2) - 2 d Phi(-d / s)

    for each bin. It takes away a part of the bias, not all, as the gap seen is itself too large. Where 0 is right, a calibrated
    model of ten classes has 0.053 left of 0.086 with 200 examples, 0.021 of 0.037 with 1,000 and 0.007 of 0.012 with 10,000
    (simulated, 15 bins). A single result can be a little below 0: a cut at 0 would bias a mean over runs.
    """
    return _ece(*top_label(p, y), bins=bins, binning=binning, debiased=debiased)


def ece_of_calibrated(p: Any, bins: int = 15, binning: str = "equal width", draws: int = 100, seed: int = 0) -> float:
    """Return the ECE that a calibrated model with the probabilities `p` has by chance: the mean over labels drawn from `p`.

    An `ece` that is no larger shows no miscalibration. Labels are drawn `draws` times (consistency resampling: Bröcker and Smith
    2007, Weather and Forecasting 22: 651-661), the same ones for the same seed.
    """
    check_whole("draws", draws, 1, "100 is usual.")
    check_whole("seed", seed, 0, "For example 0.")
    confidence = np.minimum(_probabilities(_numbers("p", p)).max(axis=-1), 1.0).ravel()
    random = np.random.default_rng(seed)
    drawn = (random.random(len(confidence)) < confidence for _ in range(draws))
    return float(np.mean([_ece(confidence, correct.astype("float64"), bins, binning) for correct in drawn]))


def reliability(p: Any, y: Any, bins: int = 15) -> dict[str, np.ndarray]:
    """Return the reliability diagram of the top label (DeGroot and Fienberg 1983, The Statistician 32: 12-22).

    It holds "count" and the means "confidence" and "accuracy", each (bins,), in bins ((b - 1) / bins, b / bins]; nan in empty ones.
    """
    check_whole("bins", bins, 1, "15 is usual.")
    confidence, correct = (each.ravel() for each in top_label(p, y))
    number = _equal_width(confidence, bins)
    count = np.bincount(number, minlength=bins)
    with np.errstate(invalid="ignore"):
        certain, right = (np.bincount(number, values, bins) / count for values in (confidence, correct))
    return {"count": count, "confidence": certain, "accuracy": right}


def classwise_ece(p: Any, y: Any, bins: int = 15) -> float:
    """Return the mean over classes of the ECE of each class's probability, with bins of equal width.

    It uses all of p; with many classes most of it comes from probabilities near 0. Source: Kull et al. 2019, arXiv:1910.12656.
    """
    check_whole("bins", bins, 1, "15 is usual.")
    p, y = check_predictions(p, y)
    classes = p.shape[-1]
    p, y = np.minimum(p, 1.0).reshape(-1, classes), y.ravel()
    total = 0.0
    for k in range(classes):
        number = _equal_width(p[:, k], bins)
        # n_b |accuracy_b - confidence_b| is the absolute sum of the residuals in the bin.
        total += np.abs(np.bincount(number, (y == k) - p[:, k])).sum()
    return float(total / p.size)


def smooth_ece(p: Any, y: Any) -> float:
    """Return the smooth ECE of the top label, which needs no bins (Błasiok and Nakkiran 2023, arXiv:2309.12236).

    smECE_s is the integral over t in [0, 1] of |mean of K_s(confidence, t) (correct - confidence)|, with K_s the Gaussian kernel of
    standard deviation s, reflected at 0 and 1. It falls as s grows; the result is the one s with smECE_s = s.
    """
    return _smooth_ece(*top_label(p, y))


def _ece(
    confidence: np.ndarray, correct: np.ndarray, bins: int = 15, binning: str = "equal width", debiased: bool = False
) -> float:
    check_whole("bins", bins, 1, "15 is usual.")
    check_choice("binning", binning, BINNINGS)
    confidence, correct = confidence.ravel(), correct.ravel()
    if binning == "equal width":
        number = _equal_width(confidence, bins)
    else:  # by rank; equal values share a bin
        number = ((stats.rankdata(confidence) - 0.5) * bins / len(confidence)).astype("int64")
    size, hits, certain = (np.bincount(number, weights) for weights in (None, correct, confidence))
    size, hits, certain = size[size > 0], hits[size > 0], certain[size > 0]
    right = hits / size
    gap = np.abs(right - certain / size)
    if debiased:
        gap = gap - _excess(gap, np.sqrt(right * (1 - right) / size))
    return float(size @ gap / len(confidence))


def _excess(d: np.ndarray, s: np.ndarray) -> np.ndarray:
    """Return E|N(d, s^2)| - d for d of at least 0; 0 where s is 0."""
    z = np.divide(d, s, out=np.full_like(d, np.inf), where=s > 0)
    return s * math.sqrt(2 / math.pi) * np.exp(-(z**2) / 2) - 2 * d * special.ndtr(-z)


def _equal_width(values: np.ndarray, bins: int) -> np.ndarray:
    """Return the number of the bin ((b - 1) / bins, b / bins] of each value in [0, 1]; 0 is in the first."""
    return np.maximum(np.searchsorted(np.linspace(0, 1, bins + 1), values) - 1, 0)


def _smooth_ece(confidence: np.ndarray, correct: np.ndarray) -> float:
    # The reflected kernel is diagonal in cosines: cos(pi k t) becomes exp(-(pi k s)^2 / 2) cos(pi k t). Each residual is therefore
    # shared by the two nearest centres of small cells, and smoothing with any width is one cosine transform.
    confidence, correct = confidence.ravel(), correct.ravel()
    left = (correct - confidence) / len(confidence)
    place = np.clip(confidence * _CELLS - 0.5, 0, _CELLS - 1)
    below = np.minimum(place.astype("int64"), _CELLS - 2)
    above = place - below
    cells = np.bincount(below, left * (1 - above), _CELLS) + np.bincount(below + 1, left * above, _CELLS)
    waves = fft.dct(cells)
    numbers = -((math.pi * np.arange(_CELLS)) ** 2) / 2

    def surplus(width: float) -> float:
        return float(np.abs(fft.idct(waves * np.exp(numbers * width**2))).sum() - width)

    return float(optimize.brentq(surplus, 0.0, 1.0, xtol=1e-9)) if np.any(cells) else 0.0


# Intervals


def bootstrap_interval(
    metric: Callable[..., float],
    *arrays: Any,
    level: float = 0.95,
    resamples: int = 1000,
    seed: int = 0,
    **options: Any,
) -> tuple[float, float]:
    """Return the percentile bootstrap interval (Efron 1979, Ann. Stat. 7: 1-26): `bootstrap_interval(ece, p, y, bins=20)`.

    `metric(*arrays, **options)` is recomputed on examples drawn with replacement from the first axis, the same for all arrays: the
    pixels of an image stay together. The interval therefore holds for new examples, not for a model that is trained anew.

    An ECE is never much below 0, and its resamples lie above it. If a model is calibrated, or so nearly that chance makes most of
    its ECE, the interval lies too high. It is not a test of calibration. `debiased=True` makes this error smaller.
    """
    level = _check_level(level)
    check_whole("resamples", resamples, 2, "1000 is usual.")
    check_whole("seed", seed, 0, "For example 0.")
    # Some metrics need little of p and y. Compute that once and resample it: the same numbers, sooner.
    if metric in _MEANS:
        metric, arrays = np.mean, (_MEANS[metric](*arrays, **options),)
        options = {}
    elif metric in _OF_TOP_LABEL:
        metric, arrays = _OF_TOP_LABEL[metric], top_label(*arrays)
    sample = [np.asarray(array) for array in arrays]
    lengths = {array.shape[:1] for array in sample}
    if len(lengths) != 1 or lengths & {(), (0,)}:
        refuse(
            f"the arrays must have one first axis, the examples; got {', '.join(str(array.shape) for array in sample) or 'none'}.",
            "Give the metric's arrays in its order, and its options by name.",
        )
    size, rng = len(sample[0]), np.random.default_rng(seed)
    found = []
    for _ in range(resamples):
        drawn = rng.integers(size, size=size)
        found.append(metric(*(array[drawn] for array in sample), **options))
    low, high = np.quantile(found, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def _check_level(level: Any) -> float:
    try:
        inside = 0 < float(level) < 1
    except (TypeError, ValueError):
        inside = False
    if not inside:
        refuse(f"level must be a number between 0 and 1; got {level!r}.", "0.95 is usual.")
    return float(level)


# Selective prediction


def risk_coverage(confidence: Any, wrong: Any) -> tuple[np.ndarray, np.ndarray]:
    """Return coverage 1/n, 2/n, ... 1 and the selective risk at each: the mean of `wrong` over the most confident examples.

    Both have shape (n,). `wrong` is 1 or 0, or any loss, for each example. Where confidences are equal, the risk is the mean over
    all their orders (El-Yaniv and Wiener 2010, JMLR 11: 1605-1641; Geifman and El-Yaniv 2017, arXiv:1705.08500).
    """
    confidence, wrong = _alike(confidence=confidence, wrong=wrong)
    return _risk_coverage(confidence.ravel(), wrong.ravel())


def aurc(confidence: Any, wrong: Any) -> float:
    """Return the area under the risk-coverage curve: the mean of the selective risks.

    Errors among the most confident weigh most (`augrc`: equally). Source: Geifman, Uziel and El-Yaniv 2019, arXiv:1805.08206.
    """
    return float(risk_coverage(confidence, wrong)[1].mean())


def augrc(confidence: Any, wrong: Any) -> float:
    """Return the area under the generalised risk-coverage curve: coverage times selective risk, over coverage.

    It is the probability of an undetected error, averaged over thresholds (Traub et al. 2024, arXiv:2407.01032). With 0 and 1 for
    `wrong`, accuracy a, and the AUROC of right against wrong by confidence, it is (1 - AUROC) a (1 - a) + (1 - a)^2 / 2.
    """
    return _augrc(*risk_coverage(confidence, wrong))


def _risk_coverage(confidence: np.ndarray, wrong: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    _, group, size = np.unique(-confidence, return_inverse=True, return_counts=True)
    mean = np.bincount(group, wrong) / size
    count = np.arange(1, len(wrong) + 1)
    return count / len(wrong), np.cumsum(np.repeat(mean, size)) / count


def _augrc(coverage: np.ndarray, risk: np.ndarray) -> float:
    return float(np.trapezoid(np.append(0, coverage * risk), np.append(0, coverage)))


# Foreign data


def ood(score_in: Any, score_out: Any) -> dict[str, float]:
    """Measure how well a score separates foreign (out-of-distribution) examples from the data; a higher score means foreign.

    The foreign examples are the positives.

    "auroc": P(a foreign score is higher) + P(equal) / 2; 0.5 for an uninformative score.
    "aupr":  average precision, the sum over thresholds of (recall_t - recall_t-1) precision_t; depends on the share of positives.
    "fpr95": the smallest share of the data's own examples called foreign where at least 95 % of the foreign ones are (Hendrycks
             and Gimpel 2017, arXiv:1610.02136; Liang, Li and Srikant 2018, arXiv:1706.02690).

    Equal scores are always on the same side of a threshold. Infinite scores are allowed.
    """
    inside, outside = _numbers("score_in", score_in).ravel(), _numbers("score_out", score_out).ravel()
    scores, group = np.unique(np.concatenate([inside, outside]), return_inverse=True)
    # From the highest threshold to the lowest.
    of_in, of_out = (np.bincount(part, minlength=len(scores))[::-1] for part in (group[: len(inside)], group[len(inside) :]))
    false, true = np.cumsum(of_in), np.cumsum(of_out)
    pairs = len(inside) * len(outside)
    return {
        "auroc": float((of_in * (true - of_out / 2)).sum() / pairs),
        "aupr": float((of_out / len(outside) * true / (true + false)).sum()),
        "fpr95": float(false[np.argmax(20 * true >= 19 * len(outside))] / len(inside)),
    }


# Votes


def variation_ratio(votes: Any) -> np.ndarray:
    """Return, for each example, the share of votes that are not for the most frequent class.

    `votes` are the classes named by the samples, or by the members of an ensemble: whole numbers (samples, ...). The result has
    the shape (...). Source: Freeman 1965, Elementary Applied Statistics.
    """
    counts = _counts(votes)
    return 1 - counts.max(axis=0) / counts.sum(axis=0)


def disagreement(votes: Any) -> float:
    """Return the mean share of pairs of samples that name different classes.

    `votes` are as in `variation_ratio`, from two samples or more.
    Sources: Skalak 1996; Kuncheva and Whitaker 2003, Mach. Learn. 51.
    """
    counts = _counts(votes)
    samples = len(votes)
    if samples < 2:
        refuse("disagreement needs votes of two samples or more; got one.", "Draw more samples.")
    return float(1 - (counts * (counts - 1)).sum(axis=0).mean() / (samples * (samples - 1)))


def _counts(votes: Any) -> np.ndarray:
    """Return the number of votes for each class that was named, (classes, ...)."""
    votes = _numbers("votes", votes)
    if (votes != np.floor(votes)).any():
        refuse("votes must be whole numbers, the classes.", "Give p.argmax(-1) for probabilities p (samples, ..., classes).")
    return np.stack([(votes == k).sum(axis=0) for k in np.unique(votes)])


# Regression


def rmse(mean: Any, y: Any) -> float:
    """Return the root of the mean squared error, in the unit of `y`, over all entries if there are several outputs."""
    mean, y = _alike(mean=mean, y=y)
    return float(np.sqrt(((mean - y) ** 2).mean()))


def gaussian_nll_each(mean: Any, variance: Any, y: Any) -> np.ndarray:
    """Return log(2 pi variance) / 2 + (y - mean)^2 / (2 variance) for each entry, in nats and in the shape of `y`."""
    mean, variance, y = _alike(mean=mean, variance=variance, y=y)
    _check_spread("variance", variance)
    return (np.log(2 * math.pi * variance) + (y - mean) ** 2 / variance) / 2


def gaussian_nll(mean: Any, variance: Any, y: Any) -> float:
    """Return the mean of `gaussian_nll_each`. It may be below 0, because it comes from a density."""
    return float(gaussian_nll_each(mean, variance, y).mean())


def picp(lower: Any, upper: Any, y: Any) -> float:
    """Return the coverage of prediction intervals, the share of `y` in [lower, upper] (Khosravi et al. 2011, IEEE TNN 22)."""
    lower, upper, y = _interval(lower, upper, y)
    return float(((lower <= y) & (y <= upper)).mean())


def mpiw(lower: Any, upper: Any) -> float:
    """Return the mean width of prediction intervals, in the unit of `y`. Compare widths only at the same `picp`."""
    lower, upper, _ = _interval(lower, upper, lower)
    return float((upper - lower).mean())


def interval_score(lower: Any, upper: Any, y: Any, level: float = 0.95) -> float:
    """Return the mean of width + 2 / (1 - level) times how far y is outside; proper for central intervals of that level.

    Gneiting and Raftery 2007, J. Am. Stat. Assoc. 102: 359-378, section 6.2. In the unit of `y`, lower is better.
    """
    lower, upper, y = _interval(lower, upper, y)
    outside = np.maximum(lower - y, 0) + np.maximum(y - upper, 0)
    return float((upper - lower + 2 / (1 - _check_level(level)) * outside).mean())


def crps_gaussian_each(mean: Any, sd: Any, y: Any) -> np.ndarray:
    """Return the continuous ranked probability score of N(mean, sd^2) for each entry, in the unit of `y` and in its shape.

    sd (z (2 Phi(z) - 1) + 2 phi(z) - 1 / sqrt(pi)), z = (y - mean) / sd (Gneiting et al. 2005, Mon. Weather Rev. 133: 1098-1118).
    """
    mean, sd, y = _alike(mean=mean, sd=sd, y=y)
    _check_spread("sd", sd)
    z = (y - mean) / sd
    return sd * (z * (2 * special.ndtr(z) - 1) + 2 * stats.norm.pdf(z) - 1 / math.sqrt(math.pi))


def crps_gaussian(mean: Any, sd: Any, y: Any) -> float:
    """Return the mean of `crps_gaussian_each`."""
    return float(crps_gaussian_each(mean, sd, y).mean())


def crps_samples_each(samples: Any, y: Any) -> np.ndarray:
    """Return the CRPS of each entry from samples (samples, ...) of its distribution, in the unit of `y` (...) and in its shape.

    It is the fair estimate: mean |x_i - x_j| is over pairs of different samples, so few samples are not worse on average:

        mean |x_i - y| - sum_i (2 i - S - 1) x_(i) / (S (S - 1)),   x_(1) <= ... <= x_(S)

    (Ferro 2014, Q. J. R. Meteorol. Soc. 140: 1917-1923; sorted, as by probability-weighted moments, Zamo and Naveau 2018,
    Math. Geosci. 50: 209-234). A single entry may be below 0.
    """
    samples, y = _finite("samples", samples), _finite("y", y)
    count = len(samples)
    if samples.shape[1:] != y.shape or count < 2:
        refuse(
            f"samples must be (samples, ...), two or more, for y (...); got samples {samples.shape} and y {y.shape}.",
            "Stack the samples along the first axis, and give y the shape of one of them.",
        )
    rank = np.arange(1, count + 1)
    spread = np.tensordot((2 * rank - count - 1) / (count * (count - 1)), np.sort(samples, axis=0), axes=1)
    return np.abs(samples - y).mean(axis=0) - spread


def crps_samples(samples: Any, y: Any) -> float:
    """Return the mean of `crps_samples_each`."""
    return float(crps_samples_each(samples, y).mean())


def _finite(name: str, values: Any) -> np.ndarray:
    values = _numbers(name, values)
    if not np.isfinite(values).all():
        refuse(f"{name} must be finite; got an infinite value.", "Look for where it is made.")
    return values


def _alike(**arrays: Any) -> list[np.ndarray]:
    """Return the arrays in float64, finite and of one shape: a column and a row would otherwise broadcast to a table."""
    found = {name: _finite(name, values) for name, values in arrays.items()}
    if len({values.shape for values in found.values()}) > 1:
        shapes = ", ".join(f"{name} {values.shape}" for name, values in found.items())
        refuse(f"these must have one shape; got {shapes}.", "Take [..., 0] of what has one column too many.")
    return list(found.values())


def _check_spread(name: str, values: np.ndarray) -> None:
    if values.min() <= 0:
        refuse(f"{name} must be above 0; got {values.min():.4g}.", "Add the variance of the noise, which no prediction is without.")


def _interval(lower: Any, upper: Any, y: Any) -> list[np.ndarray]:
    lower, upper, y = _alike(lower=lower, upper=upper, y=y)
    if (lower > upper).any():
        refuse("lower must not be above upper.", "Give the lower limit first.")
    return [lower, upper, y]


# Standard sets


def classification(p: Any, y: Any, bins: int = 15) -> dict[str, float]:
    """Return metrics of classes: accuracy, nll, brier; ece, ece_equal_mass, ece_debiased, classwise_ece, smooth_ece; aurc, augrc.

    The last two use the largest probability as confidence. Lower is better for all but accuracy.
    """
    p, y = check_predictions(p, y)
    confidence, correct = (each.ravel() for each in _top_label(p, y))
    coverage, risk = _risk_coverage(confidence, 1 - correct)
    return {
        "accuracy": float(correct.mean()),
        "nll": nll(p, y),
        "brier": brier(p, y),
        "ece": _ece(confidence, correct, bins),
        "ece_equal_mass": _ece(confidence, correct, bins, binning="equal mass"),
        "ece_debiased": _ece(confidence, correct, bins, debiased=True),
        "classwise_ece": classwise_ece(p, y, bins),
        "smooth_ece": _smooth_ece(confidence, correct),
        "aurc": float(risk.mean()),
        "augrc": _augrc(coverage, risk),
    }


def regression(mean: Any, variance: Any, y: Any, level: float = 0.95) -> dict[str, float]:
    """Return the metrics of normal predictions: rmse, nll, picp and mpiw of the central interval of `level`, crps."""
    mean, variance, y = _alike(mean=mean, variance=variance, y=y)
    _check_spread("variance", variance)
    sd = np.sqrt(variance)
    half = special.ndtri((1 + _check_level(level)) / 2) * sd
    return {
        "rmse": rmse(mean, y),
        "nll": gaussian_nll(mean, variance, y),
        "picp": picp(mean - half, mean + half, y),
        "mpiw": mpiw(mean - half, mean + half),
        "crps": crps_gaussian(mean, sd, y),
    }


_MEANS: dict[Callable[..., float], Callable[..., np.ndarray]] = {
    accuracy: lambda p, y: top_label(p, y).correct,
    nll: nll_each,
    brier: brier_each,
}
_OF_TOP_LABEL: dict[Callable[..., float], Callable[..., float]] = {ece: _ece, smooth_ece: _smooth_ece}
