"""Convert a table's text columns to numbers, if the whole column has only one possible meaning. Reads no files."""

import math
import re
from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from keras_dropout.errors import refuse

if TYPE_CHECKING:
    import pandas as pd

FEW = 20  # number of different texts up to which texts that look like numbers may be categories
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
    rf"(?:(?P<a>\d{{1,2}})(?P<mark>[/.-])(?P<b>\d{{1,2}})(?P=mark)(?P<c>\d{{4}}|\d{{2}})"
    r"|\d{4}(?P<year_first>[/.-])\d{1,2}(?P=year_first)\d{1,2}"
    rf"|\d{{1,2}}[ .-]{{0,2}}(?:{_MONTHS})[a-z]*[ .,-]*(?:\d{{4}}|\d{{2}})|(?:{_MONTHS})[a-z]*\.? \d{{1,2}},? \d{{4}})"
    r"(?:[T ,]+\d{1,2}:\d{2}.*)?",
    re.ASCII | re.IGNORECASE,
)
_ALIKE = str.maketrans({"\u00a0": " ", "\u202f": " ", "\u2009": " ", "’": "'", "−": "-"})


@dataclass(frozen=True)
class Reading:
    """The rule that converts a column's texts to numbers: learned from the training file, applied to the test file."""

    decimal: str = "."
    grouping: str = ""
    affixes: tuple[str, str] = ("", "")  # a currency before each number, or a unit behind it
    clock: bool = False  # hours:minutes, or minutes:seconds
    marked: bool = False  # every number has a mark that may or may not group; a number without the mark would be ambiguous

    def value(self, text: str) -> float | None:
        """Return the number in a cell, nan for a word that means missing, or None if the cell has another form."""
        text = text.strip()
        if text.casefold() in MISSING:
            return np.nan
        if self.clock:
            match = _CLOCK.fullmatch(text)
            return match and int(match[1]) + int(match[2]) / 60 + float(match[3] or 0) / 3600
        cell = _cell(text)
        if cell is None or cell.affixes != self.affixes or not _fits(cell.number, self.decimal, self.grouping):
            return None
        if self.marked and cell.number.isdigit() and cell.number.strip("0"):
            return None
        return cell.sign * float(self.plain(cell.number) + cell.exponent)

    def plain(self, number: str) -> str:
        """Return the text of a number without grouping and with a decimal point."""
        return (number.replace(self.grouping, "") if self.grouping else number).replace(self.decimal, ".")

    def read(self, values: "pd.Series", path: str) -> "pd.Series":
        """Return the column as numbers; refuse a cell that has another form."""
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
        cells = () if self.clock or not whole else map(_cell, found)
        integral = whole and not self.clock and not any(cell and (cell.exponent or self.decimal in cell.number) for cell in cells)
        return pd.Series(numbers.astype("int64") if integral else numbers, values.index, name=values.name)


class _Cell(NamedTuple):
    sign: int
    affixes: tuple[str, str]
    number: str
    exponent: str


def _cell(text: str) -> _Cell | None:
    """Return the parts of a text that holds one number, maybe with a currency or a unit; None for other texts."""
    match = _CELL.fullmatch(text.translate(_ALIKE).strip())
    if match is None or bool(match["open"]) != bool(match["close"]) or len(re.sub(r"\D", "", match["number"])) > 18:
        return None  # a number with more digits is a code
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


def decimal_mark(table: "pd.DataFrame", texts_only: bool = False) -> str:
    """Return the decimal mark that a column of a file shows beyond doubt; "" if no column does, or if columns differ."""
    marks = set()
    for name in table:
        values = table[name].dropna()
        if is_text(values):
            texts = [text for text in values.unique() if text.strip().casefold() not in MISSING]
            cells = [cell for text in texts if (cell := _cell(text))]
            if len(texts) == len(cells) > 0 and len(found := _readings(cells)) == 1 and _marks(cells) & {".", ","}:
                marks.add(found[0].decimal)
        elif not texts_only and values.dtype.kind == "f" and (values % 1 != 0).any():
            marks.add(".")
    return marks.pop() if len(marks) == 1 else ""


def find_reading(
    values: "pd.Series", path: str, call: str, exact: bool = False, mark: str = "", order: bool = False
) -> tuple[Reading | None, list[str]]:
    """Return the rule that reads a column's texts as numbers, or None if they are not numbers, and notes.

    Refuse a column whose numbers have more than one possible meaning. `call` is the pandas call that reads the file. Set `exact` if
    the scale of the column matters, as for a target. `mark` is the file's decimal mark, if other columns show it. With `order`,
    read only plain numbers and times of day, which may stand in a column of dates.
    """
    name = values.name
    counts = Counter(values.dropna())
    words = {text: count for text, count in counts.items() if text.strip().casefold() not in MISSING}
    if not words:
        return None, []
    if are_codes(words) and not order:
        code = next(text for text in words if text.strip().startswith("0"))
        return None, [f"column {name}: {code!r} is taken as a code, not as a number"]
    cells = {text: _cell(text) for text in words}
    parsed = {text: cell for text, cell in cells.items() if cell is not None}
    reading = None
    if len(parsed) == len(words):
        reading = _uniform(list(parsed.values()), name, path, call, exact, mark)
    elif all(_CLOCK.fullmatch(text.strip()) for text in words):
        if exact:
            refuse(f"{path}: column {name!r} holds times such as {next(iter(words))!r}.", "Write numbers, such as hours.")
        reading = Reading(clock=True)
    if order and (reading is None or reading.affixes != ("", "")):
        return None, []
    if reading is not None:
        return reading, _said(name, reading, words, counts)
    return None, _not_numbers(values, words, parsed, path, call, exact)


def _not_numbers(
    values: "pd.Series", words: dict[str, int], parsed: dict[str, _Cell], path: str, call: str, exact: bool
) -> list[str]:
    """Return notes on texts that are not all numbers of one form; refuse the texts if they look like numbers."""
    name = values.name
    others = [text for text in words if (cell := parsed.get(text)) is None or cell.affixes != ("", "")]
    total = sum(words.values())
    plain = total - sum(words[text] for text in others)
    all_numbers = len(parsed) == len(words)
    forms = {cell.affixes: text for text, cell in reversed(parsed.items())}
    strange = others[0] if others else next(iter(words))
    leave_out = "." if exact else f', or leave the column out: {call}.drop(columns=[{name!r}]).to_csv("clean.csv", index=False)'
    if all_numbers and len(forms) == 1 and ((exact and plain) or len(words) > FEW):
        if _is_limit(next(iter(forms))):
            refuse(f"{path}: column {name!r} holds limits such as {strange!r}, which are no numbers.", f"Write numbers{leave_out}")
        by_mark = {mark: text for text, cell in parsed.items() for mark in _marks([cell])}
        shown = " and ".join(dict.fromkeys(map(repr, by_mark.values())))
        refuse(f"{path}: column {name!r} writes its numbers in several ways, such as {shown}.", "Write all in one way.")
    if len(words) > FEW:
        if (all_numbers and len(forms) <= 3) or plain >= 0.9 * total:
            row = int(np.argmax((values == strange).to_numpy(bool, na_value=False))) + 1
            shown = f"{strange!r} in row {row}" if plain else " and ".join(map(repr, list(forms.values())[::-1]))
            fix = f"Write one unit{leave_out}"
            if plain and len(others) <= FEW:
                empty = f"table = {call}; table.loc[table[{name!r}].isin({others}), {name!r}] = None; table"
                fix = f'Empty these cells, in Python: {empty}.to_csv("clean.csv", index=False)'
            refuse(f"{path}: column {name!r} holds numbers in several forms, such as {shown}.", fix)
        like = sum(count for text, count in words.items() if 2 * len(re.findall(r"\d", text)) >= len(text.strip()))
        if like >= total / 2 and not dates(words):
            return [f"column {name}: cells such as {strange!r} look like numbers and are taken as categories"]
    elif plain >= total / 2:
        return [f"column {name} is taken as categories: {strange!r} is no plain number"]
    return []


def _marks(cells: Iterable[_Cell]) -> set[str]:
    return {character for cell in cells for character in cell.number if not character.isdigit()}


def _is_limit(affixes: tuple[str, str]) -> bool:
    return affixes[0][:1] in tuple("<>≤≥~≈")


def _readings(cells: list[_Cell]) -> list[Reading]:
    """Return all possible readings of cells of one form as numbers, the reading with a decimal point first."""
    affixes = {cell.affixes for cell in cells}
    if len(affixes) > 1 or _is_limit(cells[0].affixes):
        return []
    marks, found = _marks(cells), []
    for decimal in [".", ","] if marks & {".", ","} else ["."]:
        groupings = marks - {decimal}
        grouping = next(iter(groupings), "")
        if len(groupings) < 2 and all(_fits(cell.number, decimal, grouping) for cell in cells):
            found.append(Reading(decimal, grouping, next(iter(affixes))))
    return found


def _uniform(cells: list[_Cell], name: object, path: str, call: str, exact: bool, mark: str) -> Reading | None:
    """Return the only reading of cells that are all numbers, or None if they have several forms; refuse ambiguous cells."""
    found = _readings(cells)
    if len(found) < 2:
        return found[0] if found else None
    marks, numbers = _marks(cells), [cell.number for cell in cells]
    dollars = cells[0].affixes[0] in ("$", "US$", "£", "¥", "₹")
    if mark == "," and (marks == {"."} or (marks == {","} and not dollars)):
        return found[1]
    if marks == {"."} and (mark or not may_group(numbers)):
        return found[0]
    single = [number for number in numbers if number.isdigit() and number.strip("0")]
    # With decimal commas, some cells would have one or two decimals. A number below a thousand needs no grouping comma, so cells
    # without a comma show that the comma groups.
    if marks == {","} and mark != "," and (dollars or (single and all(len(number) <= 3 for number in single))):
        return found[0]
    # Features are standardised: if every cell has the mark, both readings give the same values.
    if len(marks) == 1 and not exact and not single:
        return replace(found[0], marked=True)
    shown = next(number for number in numbers if not number.isdigit())
    mark = "," if "," in shown else "."
    refuse(
        f"{path}: column {name!r} holds {shown!r}: the {_CALLED[mark]} may group thousands or stand before decimals.",
        two_ways(name, mark, call),
    )


_CALLED = {",": "comma", ".": "point"}


def two_ways(name: object, mark: str, call: str) -> str:
    """Return the advice on how to rewrite ambiguous numbers such as 1.234, for each of the two meanings."""
    as_texts = f"{call[:-1]}, dtype={{{name!r}: str}})" if call.startswith("pandas.read_csv") else call
    change = f"table = {as_texts}; table[{name!r}] = table[{name!r}].str.replace({mark!r}, ''); table"
    return (
        f'If it groups, in Python: {change}.to_csv("clean.csv", index=False). '
        r"Else add a decimal: .str.replace(r'([.,]\d+)', r'\g<1>0', regex=True) in its place."
    )


def check_scale(values: "pd.Series", path: str, call: str) -> None:
    """Refuse texts of a test file whose points may group thousands, if the column holds whole numbers in training."""
    known = values.dropna()
    if may_group(known.unique()):
        row = known.index[known.map(lambda text: "." in text).argmax()]
        refuse(
            f"{path}: column {values.name!r} holds {known[row]!r} in row {row + 1}; in training it holds whole numbers.",
            two_ways(values.name, ".", call),
        )


def _said(name: object, reading: Reading, words: dict[str, int], counts: Counter) -> list[str]:
    """Return the notes on a column whose texts are read as numbers."""
    telling = [text for text in words if as_number(text) != reading.value(text)]
    notes = []
    if telling:
        shown = max(telling, key=lambda text: len(set(text) - set("0123456789")))
        notes.append(f"column {name} is read as numbers: {shown!r} as {reading.value(shown):.12g}")
    missing = {text: count for text, count in counts.items() if text not in words}
    if missing:
        shown = ", ".join(map(repr, sorted(missing)[:3]))
        notes.append(f"column {name}: {shown} in {sum(missing.values()):,} row(s) taken as missing")
    return notes


def as_number(text: str) -> float | None:
    """Return the finite number that Python reads from a text, or None."""
    try:
        found = float(text)
    except ValueError:
        return None
    return found if math.isfinite(found) else None


def are_codes(texts: Collection[str]) -> bool:
    """Return whether texts are codes, such as postal codes: digits of one length of at least three, some with a leading zero."""
    found = [text.strip() for text in texts]
    alike = len({len(text) for text in found}) == 1 and len(found[0]) >= 3
    return alike and any(text.startswith("0") for text in found) and all(re.fullmatch("[0-9]+", text) for text in found)


def may_group(texts: Iterable[str]) -> bool:
    """Return whether some number has a point, and all points may group thousands: 1.234 and 985, but not 1.5."""
    found = False
    for cell in filter(None, map(_cell, texts)):
        if not re.fullmatch(r"[1-9]\d{0,2}(?:\.\d{3})+|\d{1,3}", cell.number + cell.exponent):
            return False
        found = found or "." in cell.number
    return found


def dates(texts: Collection[str]) -> bool:
    """Return whether all texts have the form of a date."""
    return len(texts) > 0 and all(_DATE.fullmatch(text.strip()) for text in texts)


def date_order(texts: Collection[str], name: object, call: str) -> dict[str, bool]:
    """Return pandas' option for the order of day, month and year that the whole column shows; refuse an ambiguous order."""
    found = {text: match for text in texts if (match := _DATE.fullmatch(text.strip()))}
    given = {text: (match["a"], match["b"], match["c"]) for text, match in found.items() if match["mark"]}
    if not given:
        return {}
    can = {
        "days": all(int(a) <= 31 and int(b) <= 12 for a, b, _ in given.values()),
        "months": all(int(a) <= 12 and int(b) <= 31 for a, b, _ in given.values()),
        "years": all(len(a) == len(c) == 2 and int(b) <= 12 and 1 <= int(c) <= 31 for a, b, c in given.values()),
    }
    if can["days"] and can["months"]:
        can["months"] = not all(found[text]["mark"] == "." for text in given)
        can["days"] = not (can["months"] and all(a == b for a, b, _ in given.values()))
    first = [what for what, possible in can.items() if possible]
    iso = [text for text, match in found.items() if match["year_first"]]  # pandas swaps days and months in these texts, too
    two = [iso[0], next(iter(given))] if iso else [max(given, key=lambda text: int(given[text][n])) for n in (0, 1)]
    if (not first and two[0] != two[1]) or (iso and first != ["months"]):
        refuse(
            f"the time column {name!r} has days, months and years in several orders: {two[0]!r} and {two[1]!r}.",
            "Write all dates as 2024-01-31.",
        )
    options = {"days": "dayfirst=True", "months": "dayfirst=False", "years": "yearfirst=True"}
    if len(first) > 1:
        read = f"table = {call}; table[{name!r}] = pandas.to_datetime(table[{name!r}], format='mixed', {options[first[0]]})"
        refuse(
            f"the time column {name!r} does not tell {' from '.join(first)}: {next(iter(given))!r}.",
            f'Say it in Python: {read}; table.to_csv("clean.csv", index=False), or with '
            f"{' or '.join(options[what] for what in first[1:])}.",
        )
    return {"dayfirst": True} if first == ["days"] else {"yearfirst": True} if first == ["years"] else {}
