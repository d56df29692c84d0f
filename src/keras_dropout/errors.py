"""One form for every message about bad input: first the problem (what was expected, what was given), then the fix."""

import contextlib
import difflib
import math
import numbers
import re
import sys
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NoReturn

from keras_dropout.characters import clean


class BadInput(ValueError):
    """Input that cannot be used. Its text is two lines: what is wrong, and how to fix it."""

    _keras_call_info_injected = True  # so that Keras keeps the two lines unchanged when a layer raises it


def refuse(what: str, fix: str) -> NoReturn:
    """Raise `BadInput` with the two lines of every message here; join the lines of other libraries' messages."""
    raise BadInput("\n".join(clean(" ".join(line.strip() for line in part.splitlines())) for part in (what, fix)))


def first_line(error: BaseException) -> str:
    """Return the first informative line of an error: Keras puts escape codes, lines and configurations before a layer's message."""
    text = re.sub(r"\x1b\[\d*m", "", str(error)).rpartition("Exception encountered:")[2]
    lines = (line.strip() for line in text.splitlines())
    return next((line for line in lines if line and not line.startswith("Exception encountered when calling ")), "no message")


def described(error: BaseException) -> str:
    """Return the type of another library's error and its first informative line, cut after 300 characters."""
    return f"{type(error).__name__}: {first_line(error):.300}"


@contextlib.contextmanager
def refused(what: str, fix: str) -> Iterator[None]:
    """Turn any error that foreign code raises here into a refusal that describes it; our own refusals pass unchanged."""
    try:
        yield
    except BadInput:
        raise
    except Exception as error:
        refuse(f"{what}: {described(error)}", fix)


def meant(name: str, known: Iterable[str]) -> str:
    """Return "Did you mean …? " for the known name that is closest, "" if none is close."""
    lower = {each.lower(): each for each in known}
    close = difflib.get_close_matches(name.lower(), lower, n=1)
    return f"Did you mean {lower[close[0]]}? " if close else ""


def warn(message: str) -> None:
    """Warn, and name the line outside the package that made the call."""
    level, frame = 2, sys._getframe(1)
    while frame.f_back and str(frame.f_globals.get("__name__")).partition(".")[0] == "keras_dropout":
        level, frame = level + 1, frame.f_back
    warnings.warn(message, stacklevel=level)


def check_rate(owner: str, rate: object, name: str = "rate", one_is: str | None = None) -> float:
    """Return `rate` as a float in [0, 1], or refuse it. `one_is` says why 1 is not allowed; None allows it."""
    number = _as_float(rate)
    if 0 <= number <= 1:
        if one_is and number == 1:
            refuse(f"{owner}: {name} must be in [0, 1); got {rate!r}.", f"At rate 1 {one_is}; use a smaller rate.")
        return number
    refuse(
        f"{owner}: {name} must be a number in [0, 1{')' if one_is else ']'}; got {rate!r}.",
        f"{name} is the fraction that is dropped: to keep 80 % of the units write 0.2.",
    )


def check_whole(name: str, value: object, least: int, fix: str, most: float = math.inf) -> int:
    """Return `value` as an int from `least` to `most`, or refuse it."""
    if not isinstance(value, numbers.Integral) or isinstance(value, bool) or int(value) < least:
        refuse(f"{name} must be a whole number of at least {least}; got {value!r}.", fix)
    if int(value) > most:
        refuse(f"{name} must be at most {most:,}; got {value!r:.30}.", fix)
    return int(value)


def check_positive(name: str, value: object, fix: str) -> float:
    """Return `value` as a finite float above 0, or refuse it."""
    number = _as_float(value)
    if 0 < number < math.inf:
        return number
    refuse(f"{name} must be a number above 0; got {value!r}.", fix)


def check_number(name: str, value: object, fix: str) -> float:
    """Return `value` as a finite float, or refuse it."""
    number = _as_float(value)
    if math.isfinite(number):
        return number
    refuse(f"{name} must be a finite number; got {value!r:.30}.", fix)


def check_share(name: str, value: object) -> float:
    """Return `value` as a float between 0 and 1, or refuse it."""
    number = _as_float(value)
    if 0 < number < 1:
        return number
    refuse(f"{name} must lie between 0 and 1; got {value!r}.", "For example 0.1.")


def check_range(
    name: str, value: Iterable[float], what: str, fix: str, above: float = -math.inf, most: float = math.inf
) -> tuple[float, float]:
    """Return `value` as two finite floats, low and high, above `above` and at most `most`, or refuse it as not two `what`."""
    try:
        low, high = (float(end) for end in value)
    except (TypeError, ValueError):
        low, high = 1.0, 0.0
    if above < low <= high <= most and high < math.inf:
        return low, high
    refuse(f"{name} must be two {what}; got {value!r}.", fix)


def check_path(name: str, value: object, example: str) -> str | Path:
    """Return `value` if it can be the path of a file or folder, or refuse it."""
    if isinstance(value, str | Path):
        return value
    refuse(f"{name} must be a path; got {value!r}.", f"For example {example!r}; leave {name} out for the default.")


def _as_float(value: object) -> float:
    """Return a real number as a float, inf if it is too large; return nan for anything else."""
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        return math.nan
    try:
        return float(value)
    except OverflowError:
        return math.inf


def check_flag(name: str, value: object) -> bool:
    """Return `value` if it is True or False, or refuse it."""
    if isinstance(value, bool):
        return value
    refuse(f"{name} must be True or False; got {value!r}.", "Write one of the two.")


def check_choice(name: str, value: str, choices: tuple[str, ...], fix: str = "") -> str:
    """Return `value` if it is one of `choices`, or refuse it."""
    if value in choices:
        return value
    refuse(f"unknown {name} {value!r}.", fix or f"Use one of: {', '.join(choices)}.")
