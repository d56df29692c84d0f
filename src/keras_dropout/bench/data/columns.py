"""Read the texts of a table's column as numbers, where the whole column leaves one meaning only. No file is read here."""

import re
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from keras_dropout.errors import refuse

if TYPE_CHECKING:
    import pandas as pd

FEW = 20  # different texts that may be categories although they look like numbers
MISSING = frozenset(
    ("", "-", "--", "---", "–", "—", "?", ".", "..", "...", "*", "n/a", "na", "n.a.", "n.a", "nan", "null", "none", "nil")
    + ("missing", "unknown", "not available", "#n/a", "#na", "#value!", "#div/0!", "#ref!", "#num!")
)
_NUMBER = r"(?:[1-9]\d{0,2}(?P<group>[.,' ])\d{3}(?:(?P=group)\d{3})*(?:(?!(?P=group))[.,]\d*)?|\d+(?:[.,]\d*)?|[.,]\d+)"
_CURRENCY = r"[A-Za-z]{0,3}[$€£¥₹₽₩]|USD|EUR|GBP|CHF|JPY|CNY|INR|SEK|NOK|DKK|PLN|CZK|BRL|AUD|CAD|kr\.?|Rs\.?|Fr\.?"
_CELL = re.compile(
    rf"(?P<open>\()?\s*(?P<sign>[-+])?\s*(?P<before>{_CURRENCY}|[<>≤≥~≈]=?)?\s*(?P<inner>[-+])?\s*(?P<number>{_NUMBER})"
    rf"(?P<exponent>[eE][-+]?\d+)?\s*(?P<after>[%‰$€£¥₹₽₩]|°\s?[A-Za-z]?|[^\W\d_][^\d,;:()<>=+]{{0,11}})?\s*(?P<close>\))?"
)
_CLOCK = re.compile(r"(\d{1,3}):([0-5]\d)(?::([0-5]\d(?:\.\d+)?))?", re.ASCII)
_MONTHS = "jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec"
_DATE = re.compile(
    rf"(?:(?P<a>\d{{1,2}})(?P<mark>[/.-])(?P<b>\d{{1,2}})(?P=mark)(?:\d{{4}}|\d{{2}})|\d{{4}}([/.-])\d{{1,2}}\4\d{{1,2}}"
    rf"|\d{{1,2}}[ .-]{{0,2}}(?:{_MONTHS})[a-z]*[ .,-]*(?:\d{{4}}|\d{{2}})|(?:{_MONTHS})[a-z]*\.? \d{{1,2}},? \d{{4}})"
    r"(?:[T ,]+\d{1,2}:\d{2}.*)?",
    re.ASCII | re.IGNORECASE,
)
_ALIKE = str.maketrans({"\u00a0": " ", "\u202f": " ", "\u2009": " ", "’": "'", "−": "-"})


@dataclass(frozen=True)
class Reading:
    """Keep how the texts of a column are read as numbers: learned from the training file, applied to the test file."""

    decimal: str = "."
    grouping: str = ""
    affixes: tuple[str, str] = ("", "")  # a currency before each number, or a unit behind it
    clock: bool = False  # hours:minutes, or minutes:seconds

    def value(self, text: str) -> float | None:
        """Return the number that a cell holds, nan if it says that none is there, or None if it has another form."""
        text = text.strip()
        if text.casefold() in MISSING:
            return np.nan
        if self.clock:
            match = _CLOCK.fullmatch(text)
            return match and int(match[1]) + int(match[2]) / 60 + float(match[3] or 0) / 3600
        cell = _cell(text)
        if cell is None or cell.affixes != self.affixes or not _fits(cell.number, self.decimal, self.grouping):
            return None
        return cell.sign * float(self.plain(cell.number) + cell.exponent)

    def plain(self, number: str) -> str:
        """Return the number without grouping and with a decimal point."""
        return (number.replace(self.grouping, "") if self.grouping else number).replace(self.decimal, ".")

    def read(self, values: "pd.Series", path: str) -> "pd.Series":
        """Return the column as numbers; refuse a cell of another form."""
        import pandas as pd

        known = values.dropna()
        found = {text: self.value(text) for text in known.astype(str).unique()}
        for text, number in found.items():
            if number is None:
                row = known.index[(known.astype(str) == text).argmax()] + 1
                refuse(
                    f"{path}: column {values.name!r} holds {text!r} in row {row}; the other cells are read in another form.",
                    "Write the column in one form in all files, or leave the cell empty.",
                )
        numbers = values.astype(object).where(values.isna(), known.astype(str).map(found)).astype("float64")
        whole = not numbers.isna().any() and bool((numbers == np.round(numbers)).all() and (abs(numbers) < 2**53).all())
        integral = whole and not self.clock and not any(re.search(rf"[eE]|{re.escape(self.decimal)}", text) for text in found)
        return pd.Series(numbers.astype("int64") if integral else numbers, values.index, name=values.name)


class _Cell(NamedTuple):
    sign: int
    affixes: tuple[str, str]
    number: str
    exponent: str


def _cell(text: str) -> _Cell | None:
    """Return the parts of a text that holds one number, maybe with a currency or a unit; None for others."""
    match = _CELL.fullmatch(text.translate(_ALIKE).strip())
    if match is None or bool(match["open"]) != bool(match["close"]) or len(re.sub(r"\D", "", match["number"])) > 18:
        return None  # a number of more digits is a code
    if match["sign"] and match["inner"]:
        return None
    negative = match["open"] or "-" in (match["sign"], match["inner"])
    return _Cell(
        -1 if negative else 1,
        (match["before"] or "", (match["after"] or "").strip()),
        match["number"],
        match["exponent"] or "",
    )


def _fits(number: str, decimal: str, grouping: str) -> bool:
    whole, _, fraction = number.partition(decimal)
    if not (whole + fraction).replace(grouping, "").isdigit() or (grouping and grouping in fraction):
        return False
    return not grouping or grouping not in whole or bool(re.fullmatch(rf"[1-9]\d{{0,2}}(?:{re.escape(grouping)}\d{{3}})+", whole))


def is_text(values: "pd.Series") -> bool:
    """Return whether the known cells of a column are texts."""
    from pandas.api import types

    if not (types.is_object_dtype(values) or types.is_string_dtype(values)):
        return False
    known = values.dropna()
    return len(known) > 0 and bool(known.map(type).eq(str).all())


def find_reading(
    values: "pd.Series", path: str, call: str, exact: bool = False, commas: bool = False
) -> tuple[Reading | None, list[str]]:
    """Return how the texts of a column are read as numbers (None: they are not), and notes.

    Refuse a column that holds numbers in forms with more than one meaning; `call` is how pandas reads the file. With `exact` its
    scale matters, as that of a target does. With `commas` other columns of the file have decimal commas.
    """
    name = values.name
    counts = Counter(values.dropna())
    words = {text: count for text, count in counts.items() if text.strip().casefold() not in MISSING}
    if not words:
        return None, []
    if are_codes(words):
        code = next(text for text in words if text.strip().startswith("0"))
        return None, [f"column {name}: {code!r} is taken as a code, not as a number"]
    cells = {text: _cell(text) for text in words}
    parsed = {text: cell for text, cell in cells.items() if cell is not None}
    reading = None
    if len(parsed) == len(words):
        reading = _uniform(list(parsed.values()), name, path, call, exact, commas)
    elif all(map(_CLOCK.fullmatch, words)):
        if exact:
            first = next(iter(words))
            refuse(f"{path}: the target column {name!r} holds times such as {first!r}.", "Write numbers, such as hours.")
        reading = Reading(clock=True)
    if reading is not None:
        return reading, _said(name, reading, words, counts)
    plain = sum(count for text, count in words.items() if (cell := parsed.get(text)) and cell.affixes == ("", ""))
    total = sum(words.values())
    strange = next((text for text in words if (cell := parsed.get(text)) is None or cell.affixes != ("", "")), next(iter(words)))
    forms = {cell.affixes for cell in parsed.values()}
    all_numbers = len(parsed) == len(words)
    if exact and all_numbers and len(forms) == 1 and plain:
        refuse(
            f"{path}: column {name!r} has decimal points and decimal commas, such as {' and '.join(map(repr, _two(parsed)))}.",
            "Write one of them throughout.",
        )
    if len(words) > FEW:
        if (all_numbers and len(forms) <= 3) or plain >= 0.9 * total:
            row = int(np.argmax((values == strange).to_numpy(bool, na_value=False))) + 1
            mend = f"table = {call}; table[{name!r}] = pandas.to_numeric(table[{name!r}], errors='coerce'); table"
            mend = f"Empty these cells, in Python: {mend}" if plain else f"Write one unit, or leave the column out: {call}"
            end = "" if plain else f".drop(columns=[{name!r}])"
            refuse(
                f"{path}: column {name!r} holds numbers in several forms, such as {strange!r} in row {row}.",
                f'{mend}{end}.to_csv("clean.csv", index=False)',
            )
        like = sum(count for text, count in words.items() if 2 * len(re.findall(r"\d", text)) >= len(text.strip()))
        if like >= total / 2 and not dates(words):
            return None, [f"column {name}: cells such as {strange!r} look like numbers and are taken as categories"]
    elif plain >= total / 2:
        return None, [f"column {name} is taken as categories: {strange!r} is no plain number"]
    return None, []


def _two(parsed: dict[str, _Cell]) -> list[str]:
    return [next((text for text in parsed if mark in text), next(iter(parsed))) for mark in ",."]


def _uniform(cells: list[_Cell], name: object, path: str, call: str, exact: bool, commas: bool) -> Reading | None:
    """Return the only reading of cells that are all numbers; None where they have several forms."""
    affixes = {cell.affixes for cell in cells}
    if len(affixes) > 1 or (before := cells[0].affixes[0])[:1] in tuple("<>≤≥~≈"):
        return None
    numbers = [cell.number for cell in cells]
    marks = {character for number in numbers for character in number if not character.isdigit()}
    decimals = [".", ","] if marks & {".", ","} else ["."]
    found = []
    for decimal in decimals:
        groupings = marks - {decimal}
        if len(groupings) < 2 and all(_fits(number, decimal, next(iter(groupings), "")) for number in numbers):
            found.append(Reading(decimal, next(iter(groupings), ""), next(iter(affixes))))
    if len(found) < 2:
        return found[0] if found else None
    thousands = found[0]  # with a decimal point; in the other reading the comma stands before the decimals
    if marks == {"."}:
        return found[commas]  # elsewhere 1.234 has a decimal point
    grouped = [number for number in numbers if "," in number]
    single = [number for number in numbers if "," not in number and number.strip("0")]
    # Numbers with up to three decimals would also have one or two; what is below a thousand has no comma to group it.
    told = before in ("$", "US$", "£", "¥", "₹") or (single and all(len(number) <= 3 for number in single))
    # A feature is standardised: where every cell has the comma, both readings give the same.
    if marks == {","} and (told or (not exact and not single and grouped)):
        return thousands
    change = f"table = {call}; table[{name!r}] = table[{name!r}].str.replace(',', '')"
    refuse(
        f"{path}: column {name!r} holds {grouped[0]!r}: the comma may group thousands or stand before decimals.",
        f"If it groups, in Python: {change}; table.to_csv(\"clean.csv\", index=False). Else replace it by '.'.",
    )


def _said(name: object, reading: Reading, words: dict[str, int], counts: Counter) -> list[str]:
    """Return the notes on a column whose texts are read as numbers."""
    telling = [text for text in words if not _as_it_stands(text, reading)]
    notes = []
    if telling:
        shown = max(telling, key=lambda text: len(set(text) - set("0123456789")))
        notes.append(f"column {name} is read as numbers: {shown!r} as {reading.value(shown):.12g}")
    missing = {text: count for text, count in counts.items() if text not in words}
    if missing:
        shown = ", ".join(map(repr, sorted(missing)[:3]))
        notes.append(f"column {name}: {shown} in {sum(missing.values()):,} row(s) taken as missing")
    return notes


def _as_it_stands(text: str, reading: Reading) -> bool:
    try:
        return float(text) == reading.value(text)
    except ValueError:
        return False


def are_codes(texts: Collection[str]) -> bool:
    """Return whether whole numbers have leading zeros and one length of three digits or more, as postal codes do."""
    found = [text.strip() for text in texts]
    alike = len({len(text) for text in found}) == 1 and len(found[0]) >= 3
    return alike and any(text.startswith("0") for text in found) and all(re.fullmatch("[0-9]+", text) for text in found)


def may_group(texts: Collection[str]) -> bool:
    """Return whether all points may group thousands, and there is one: 1.234 and 985, but not 1.5."""
    found = [text.strip() for text in texts]
    return any("." in text for text in found) and all(
        re.fullmatch(r"-?(?:[1-9]\d{0,2}(?:\.\d{3})+|\d{1,3})", text) for text in found
    )


def dates(texts: Collection[str]) -> bool:
    """Return whether all texts have the form of a date."""
    return len(texts) > 0 and all(_DATE.fullmatch(text.strip()) for text in texts)


def day_first(texts: Collection[str]) -> bool | None:
    """Return whether dates such as 31/12/2024 give the day first; None where the whole column does not tell."""
    found = [match for text in texts if (match := _DATE.fullmatch(text.strip())) and match["mark"]]
    first, second = (max((int(match[part]) for match in found), default=0) for part in "ab")
    if first > 12 or (found and second <= 12 and all(match["mark"] == "." for match in found)):
        return True
    return False if second > 12 or not found or all(match["a"] == match["b"] for match in found) else None
