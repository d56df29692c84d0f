"""How the columns of tables that people write are read: as which values, with which note; or how they are refused."""

import bz2
import gzip
import lzma
import re
import subprocess

import numpy as np
import pandas as pd
import pytest

from keras_dropout.bench.data import columns, files, readers
from keras_dropout.errors import BadInput

N = 60
RANDOM = np.random.default_rng(0)
SIZE = RANDOM.normal(size=N)
HALVES = RANDOM.integers(1, 4000, N) / 2


def write(path, cells, name="c", separator=",", other=SIZE):
    """A table of the cells, quoted where needed, and a target of numbers."""
    quoted = ['"' + cell.replace('"', '""') + '"' if separator in cell or '"' in cell or "\n" in cell else cell for cell in cells]
    lines = [separator.join((cell, f"{y:.6f}")) for cell, y in zip(quoted, other)]
    path.write_text("\n".join([f"{name}{separator}y", *lines]) + "\n", encoding="utf-8")
    return path


def read(path, **options):
    """The table's columns as they come before they are encoded, and the notes."""
    raw = readers.read(str(path), readers.Options(**{"target": "y", **options}))
    return raw.parts["all"].x, raw.parts["all"].y, raw.notes


def comma(value, digits=1):
    return f"{value:.{digits}f}".replace(".", ",")


def european(value):
    return f"{value:,.2f}".replace(",", "_").replace(".", ",").replace("_", ".")


def holes(cells, hole):
    return [hole if n % 7 == 3 else cell for n, cell in enumerate(cells)]


def with_holes(values):
    return np.where(np.arange(N) % 7 == 3, np.nan, values)


WHOLE = RANDOM.integers(1000, 900_000, N)
MIXED = np.where(np.arange(N) % 2 == 0, WHOLE, WHOLE % 1000)
HOURS = RANDOM.integers(0, 24 * 60, N)
DAYS = pd.Timestamp("2023-12-20") + pd.to_timedelta(RANDOM.permutation(N), unit="D")

# name: (cells, the numbers that they are)
NUMBERS = {
    "points": ([f"{v:.1f}" for v in HALVES], HALVES),
    "decimal commas": ([comma(v) for v in HALVES], HALVES),
    "decimal commas below one": ([comma(v / 4000, 3) for v in HALVES], np.array([float(f"{v / 4000:.3f}") for v in HALVES])),
    "thousands": ([f"{v:,}" for v in MIXED], MIXED),
    "thousands in every cell": ([f"{v:,}" for v in WHOLE], WHOLE),  # or a thousandth of them: standardised they are the same
    "millions": ([f"{v * 1000:,}" for v in WHOLE], WHOLE * 1000),
    "thousands and decimals": ([f"{v:,.2f}" for v in HALVES], HALVES),
    "points for thousands": ([european(v) for v in HALVES], HALVES),
    "spaces for thousands": ([f"{v:,}".replace(",", "\u202f") for v in MIXED], MIXED),
    "spaces and commas": ([f"{v:,.1f}".replace(",", " ").replace(".", ",") for v in HALVES], HALVES),
    "apostrophes": ([f"{v:,.2f}".replace(",", "’") for v in HALVES], HALVES),
    "dollars": ([f"${v:,}" for v in WHOLE], WHOLE),
    "negative dollars": ([f"-${v:,}" if v % 2 else f"${v:,}" for v in WHOLE], np.where(WHOLE % 2, -WHOLE, WHOLE)),
    "euros behind": ([f"{european(v)} €" for v in HALVES], HALVES),
    "a currency's letters": ([f"EUR {v}" for v in WHOLE], WHOLE),
    "percent": ([f"{v:.1f}%" for v in HALVES], HALVES),
    "percent with a comma": ([f"{comma(v)} %" for v in HALVES], HALVES),
    "accountants' negatives": ([f"({v})" if v % 2 else f"{v}" for v in WHOLE], np.where(WHOLE % 2, -WHOLE, WHOLE)),
    "a real minus": ([f"−{v}" for v in HALVES], -HALVES),
    "a unit": ([f"{v} kg" for v in HALVES], HALVES),
    "a unit of several letters": ([f"{v} months" for v in MIXED], MIXED),
    "exponents": ([f"{v:.4e}" for v in HALVES], HALVES),
    "exponents with a comma": ([f"{v:.4e}".replace(".", ",") for v in HALVES], HALVES),
    "question marks": (holes([f"{v}" for v in HALVES], "?"), with_holes(HALVES)),
    "dashes": (holes([f"{v}" for v in HALVES], "-"), with_holes(HALVES)),
    "N/A": (holes([f"{v}" for v in HALVES], "N/A"), with_holes(HALVES)),
    "errors of a spreadsheet": (holes([comma(v) for v in HALVES], "#DIV/0!"), with_holes(HALVES)),
    "times of day": ([f"{m // 60:02}:{m % 60:02}" for m in HOURS], HOURS / 60),
    "epoch seconds": ([f"{1_700_000_000 + 3600 * m}" for m in HOURS], 1_700_000_000 + 3600 * HOURS),
    "five numbers with a comma": ([comma(n % 5 + 0.5) for n in range(N)], np.arange(N) % 5 + 0.5),
    "numbers of one length": ([f"{v % 90 + 10}" for v in WHOLE], WHOLE % 90 + 10),
    "hours with a zero": ([f"{v % 24:02}" for v in WHOLE], WHOLE % 24),
}


@pytest.mark.parametrize("case", NUMBERS)
def test_what_is_a_number_is_read_as_one(tmp_path, case):
    cells, numbers = NUMBERS[case]
    table, _, notes = read(write(tmp_path / "a.csv", cells))
    np.testing.assert_allclose(table["c"].to_numpy("float64"), numbers, rtol=1e-12)
    plain = all(re.fullmatch(r"-?[\d.]+(e[-+]\d+)?|N/A", cell) for cell in cells)
    assert plain == (not any("column c" in note for note in notes))


@pytest.mark.parametrize("case", [name for name in NUMBERS if name not in ("times of day", "thousands in every cell")])
def test_what_is_a_number_is_one_as_the_target(tmp_path, case):
    """As texts they were classes, and a model of numbers was trained on the numbers of the classes."""
    cells, numbers = NUMBERS[case]
    data, about = files.load(write(tmp_path / "a.csv", cells), target="c", task="regression")
    assert about.task == "regression"
    found = np.sort(np.concatenate([data.train.y, data.test.y]))
    np.testing.assert_allclose(found, np.sort(numbers[~np.isnan(numbers)]), rtol=1e-6)


# name: (cells, the texts that they stay)
CATEGORIES = {
    "truth": ([["TRUE", "FALSE"][n % 2] for n in range(N)], ["False", "True"]),
    "yes and no": ([["yes", "no"][n % 2] for n in range(N)], ["no", "yes"]),
    "grades": ([["1", "2", "3+"][n % 3] for n in range(N)], ["1", "2", "3+"]),
    "ranges": ([["0-17", "18-25", "26-35"][n % 3] for n in range(N)], ["0-17", "18-25", "26-35"]),
    "incomes": ([["<=50K", ">50K"][n % 2] for n in range(N)], ["<=50K", ">50K"]),
    "postal codes": ([f"{[501, 10115, 80331][n % 3]:05}" for n in range(N)], ["00501", "10115", "80331"]),
    "a question mark among words": ([["a", "b", "?"][n % 3] for n in range(N)], ["?", "a", "b"]),
    "words of two lines": ([["one\ntwo", 'said "so"'][n % 2] for n in range(N)], ["one\ntwo", 'said "so"']),
}


@pytest.mark.parametrize("case", CATEGORIES)
def test_what_is_a_category_stays_one(tmp_path, case):
    cells, names = CATEGORIES[case]
    path = write(tmp_path / "a.csv", cells)
    _, about = files.load(path, target="y")
    assert about.features == (*(f"c={name}" for name in names), "c other")
    table = read(path)[0]
    assert table["c"].astype(str).tolist() == [cell.capitalize() if case == "truth" else cell for cell in cells]


# name: (cells, words of the note with which the column is left out or taken as it is)
NOTED = {
    "ids with zeros": ([f"{7 * n:06}" for n in range(N)], "differs in every row"),
    "numbers of the rows": ([f"{n}" for n in range(N)], "numbers the rows"),
    "numbers of the rows in any order": ([f"{n + 1}" for n in RANDOM.permutation(N)], "numbers the rows"),
    "one value": (["7,5"] * N, "is constant"),
    "empty": ([""] * N, "is constant"),
    "dashes only": (["-"] * N, "is constant"),
    "names": ([f"item {n}" for n in range(N)], "differs in every row"),
    "texts": ([f"the film {n} was very good" for n in range(N)], "--text c learns from its words"),
    "ISO dates": ([f"{d:%Y-%m-%d}" for d in DAYS], "holds dates"),
    "dates with points": ([f"{d:%d.%m.%Y}" for d in DAYS], "holds dates"),
    "dates with slashes": ([f"{d:%m/%d/%Y}" for d in DAYS[: N // 2]] * 2, "holds dates"),
    "dates and times": ([f"{d:%Y-%m-%d %H:%M:%S}" for d in DAYS], "holds dates"),
    "months in letters": ([f"{d:%d %b %Y}" for d in DAYS], "holds dates"),
    "tickets": ([f"{n % 40 * 37}" if n % 3 else f"A/5 {n % 40 * 37}" for n in range(N)], "are taken as categories"),
    "seats": ([f"{n % 30}{'ABCDEF'[n % 6]}" for n in range(N)], "are taken as categories"),
    "addresses of machines": ([f"10.0.{n % 25}.1" for n in range(N)], "are taken as categories"),
}


@pytest.mark.parametrize("case", NOTED)
def test_what_cannot_be_learned_from_is_said(tmp_path, case):
    cells, said = NOTED[case]
    path = tmp_path / "a.csv"
    frame = pd.DataFrame({"c": cells, "size": SIZE, "y": HALVES})
    frame.to_csv(path, index=False)
    _, about = files.load(path, target="y")
    assert any(said in note for note in about.notes if "column c" in note)
    assert about.features == ("size",) if "taken" not in said else len(about.features) > 20


# name: (cells, words of the refusal, whether it is one as a feature, too)
REFUSED = {
    "thousands or decimals": ([f"{v:,}" for v in WHOLE], "may group thousands or stand before decimals", False),
    "thousands here and there": ([f"{v:,}" if v % 2 else f"{v}" for v in WHOLE], "may group thousands", True),
    "limits of detection": (
        [f"<{v}" if n % 3 == 0 else f"{v}" for n, v in enumerate(HALVES)],
        "in several forms, such as '<",
        True,
    ),
    "two units": ([f"{v} kg" if n % 2 else f"{v} g" for n, v in enumerate(HALVES)], "in several forms", True),
    "millions by letter": ([f"€{v}M" if n % 2 else f"€{v}K" for n, v in enumerate(HALVES)], "in several forms", True),
    "a word among numbers": (["many" if n == 7 else f"{v}" for n, v in enumerate(HALVES)], "such as 'many' in row 8", True),
    "limits alone": ([f"<{v}" for v in HALVES], "holds limits such as '<", True),
    "units of one column": ([f"{n} {'kg' if n % 2 else 'lb'}" for n in range(N)], "such as '0 lb' and '1 kg'.", True),
    "commas and points": ([comma(v) if n % 2 else f"{v}" for n, v in enumerate(HALVES)], "such as", True),
    "times": ([f"{m // 60:02}:{m % 60:02}" for m in HOURS], "holds times", False),
    "dates": ([f"{d:%Y-%m-%d}" for d in DAYS], "holds dates", False),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_has_more_than_one_meaning_is_refused(tmp_path, case):
    cells, said, as_feature = REFUSED[case]
    path = write(tmp_path / "a.csv", cells, other=SIZE)
    with pytest.raises(BadInput, match=re.escape(said)):
        files.load(path, target="c")
    if as_feature:
        with pytest.raises(BadInput) as caught:
            files.load(path, target="y")
        assert said in str(caught.value)
    else:
        files.load(path, target="y") if case != "dates" else None


def follow(refusal, folder, monkeypatch):
    """Run the Python that a refusal gives; the path of what it wrote."""
    fix = str(refusal).splitlines()[1]
    program = re.search(r"((?:table = )?pandas\.read_\w+\(.*index=False\))", fix)[1]
    monkeypatch.chdir(folder)
    exec(program, {"pandas": pd})
    return folder / "clean.csv"


@pytest.mark.parametrize(
    ("case", "target"),
    [
        ("thousands or decimals", "c"),
        ("thousands here and there", "y"),
        ("limits of detection", "y"),
        ("limits of detection", "c"),
        ("two units", "y"),
        ("a word among numbers", "c"),
        ("limits alone", "y"),
    ],
)
def test_the_way_out_works(tmp_path, monkeypatch, case, target):
    table = pd.DataFrame({"c": REFUSED[case][0], "size": SIZE, "y": HALVES})
    table.to_csv(tmp_path / "a.csv", index=False)
    with pytest.raises(BadInput) as caught:
        files.load(tmp_path / "a.csv", target=target)
    clean = follow(caught.value, tmp_path, monkeypatch)
    data, about = files.load(clean, target=target)
    assert about.task == "regression"
    if case == "thousands or decimals":
        np.testing.assert_array_equal(np.sort(np.concatenate([data.train.y, data.test.y])), np.sort(WHOLE).astype("float32"))


@pytest.mark.parametrize(
    ("form", "scale"), [(lambda v: f"{1000 + v:,}", 1), (comma, 1), (lambda v: f"{1000 * v:,.0f}".replace(",", " "), 1000)]
)
def test_the_way_out_empties_the_cells_of_another_form_alone(tmp_path, monkeypatch, form, scale):
    numbers = np.arange(1, N + 1) * 7
    cells = ["abc" if n == 9 else form(int(v)) for n, v in enumerate(numbers)]
    with pytest.raises(BadInput, match="such as 'abc' in row 10") as caught:
        read(write(tmp_path / "a.csv", cells))
    values = read(follow(caught.value, tmp_path, monkeypatch))[0]["c"].to_numpy("float64")
    assert np.flatnonzero(np.isnan(values)).tolist() == [9]
    expected = numbers * scale + 1000 * ("," in form(1) and form is not comma)
    np.testing.assert_array_equal(np.delete(values, 9), np.delete(expected, 9))


def test_with_too_many_cells_of_another_form_the_column_is_left_out(tmp_path, monkeypatch):
    table = pd.DataFrame({"c": [f"<{n}" if n % 2 else f"{n}" for n in range(N)], "size": SIZE, "y": HALVES})
    table.to_csv(tmp_path / "a.csv", index=False)
    with pytest.raises(BadInput, match="or leave the column out") as caught:
        files.load(tmp_path / "a.csv", target="y")
    assert files.load(follow(caught.value, tmp_path, monkeypatch), target="y")[1].features == ("size",)


@pytest.mark.parametrize(("cell", "number"), [("{} km", 3), ("{} years", 3), ("{} Meter", 3), ("Rs. {}", 300)])
def test_the_letters_of_a_unit_do_not_decide_what_a_target_is(tmp_path, cell, number):
    """An e, or a point, in the unit made a quantity of it."""
    cells = [cell.format(number + n % 3) for n in range(N)]
    data, about = files.load(write(tmp_path / "a.csv", cells), target="c")
    assert about.classes == tuple(str(number + n) for n in range(3))
    assert set(data.train.y) == {0, 1, 2}


def test_a_time_of_day_may_have_spaces_around_it(tmp_path):
    cells = [f"{m // 60:02}:{m % 60:02}" + " " * (n % 2) for n, m in enumerate(HOURS)]
    np.testing.assert_allclose(read(write(tmp_path / "a.csv", cells))[0]["c"], HOURS / 60)


def test_both_meanings_give_the_same_features_where_one_is_taken(tmp_path):
    cells = [f"{v:,}" for v in WHOLE]
    one, two = (
        files.load(write(tmp_path / f"{name}.csv", each), target="y")[0]
        for name, each in (("text", cells), ("decimal", [c.replace(",", ".") for c in cells]))
    )
    np.testing.assert_allclose(one.train.x, two.train.x, atol=1e-5)


def POINTS(v):
    return f"{v:,}".replace(",", ".")


def semicolon_table(path, **columns):
    rows = zip(*columns.values())
    path.write_text("\n".join([";".join(columns), *(";".join(map(str, row)) for row in rows)]), encoding="utf-8")
    return path


@pytest.mark.parametrize("case", ["a target", "a target with the point in each cell", "a feature"])
def test_points_that_may_group_are_refused_where_no_other_column_tells(tmp_path, monkeypatch, case):
    numbers = WHOLE if "each" in case else MIXED
    path = semicolon_table(tmp_path / "a.csv", n=np.arange(N) % 7, c=map(POINTS, numbers), z=WHOLE[::-1])
    target = "z" if case == "a feature" else "c"
    with pytest.raises(BadInput, match="the point may group thousands or stand before decimals") as caught:
        read(path, target=target)

    def found(path):
        table, y, _ = read(path, target=target, task="regression")
        return table["c"].to_numpy("float64") if target == "z" else y

    np.testing.assert_allclose(found(follow(caught.value, tmp_path, monkeypatch)), numbers, rtol=1e-6)
    np.testing.assert_allclose(found(follow(with_a_decimal(caught.value), tmp_path, monkeypatch)), as_decimals(numbers), rtol=1e-6)


def as_decimals(numbers):
    return np.where(numbers > 999, numbers / 1000, numbers)


def with_a_decimal(refusal):
    """The program of a refusal for numbers that do not group."""
    other = re.search(r"Else add a decimal: (.*) in its place", str(refusal))[1]
    return re.sub(r"\.str\.replace\('.', ''\)", lambda _: other, str(refusal))


@pytest.mark.parametrize("first", ["c", "d"])
@pytest.mark.parametrize(
    ("cell", "other", "numbers"),
    [
        ("{} €", "0,{}", MIXED),
        ("{}", "0,{}", MIXED),
        ("{}", "2.500,{}", MIXED),
        ("{} €", "0.{}", as_decimals(MIXED)),
        ("{}", "0.{} kg", as_decimals(MIXED)),
    ],
)
def test_the_order_of_the_columns_does_not_decide_what_a_point_is(tmp_path, first, cell, other, numbers):
    both = {"c": [cell.format(POINTS(v)) for v in MIXED], "d": [other.format(n % 9 + 1) for n in range(N)]}
    path = semicolon_table(tmp_path / "a.csv", **dict(sorted(both.items(), reverse=first == "d")), y=WHOLE % 50)
    np.testing.assert_allclose(read(path)[0]["c"].to_numpy("float64"), numbers)


def test_a_comma_stands_before_decimals_where_it_does_in_other_columns(tmp_path):
    cells = [f"{v:,}" for v in MIXED]
    path = semicolon_table(tmp_path / "a.csv", c=cells, d=[f"0,{n % 9 + 1}" for n in range(N)], y=cells[::-1])
    table, y, _ = read(path)
    np.testing.assert_allclose(table["c"], as_decimals(MIXED))
    np.testing.assert_allclose(y, as_decimals(MIXED)[::-1], rtol=1e-6)


@pytest.mark.parametrize("unit", ["", " kg"])
@pytest.mark.parametrize("hole", ["7", ""])
def test_points_of_a_test_file_do_not_stand_for_decimals_where_training_has_whole_numbers(tmp_path, monkeypatch, unit, hole):
    numbers = np.r_[MIXED[:9], 1234, MIXED[9:]][:N] % 900
    cells = [f"{v}{unit}" for v in numbers[:-1]] + [hole and hole + unit]
    train = semicolon_table(tmp_path / "a.csv", n=cells, z=map(comma, HALVES), y=HALVES.astype(int))
    values = [f"{v}{unit}" for v in ("985", "1.234", "2.345")]
    test = semicolon_table(tmp_path / "b.csv", n=values, z=["0,5", "1,5", "2,5"], y=[1, 2, 3])
    said = f"holds '1.234{unit}' in row 2; in training it holds whole numbers"
    with pytest.raises(BadInput, match=re.escape(said)) as caught:
        files.load(train, target="y", test_data=test)
    like = readers.read(str(train), readers.Options(target="y")).like
    for refusal, numbers in ((caught.value, [985, 1234, 2345]), (with_a_decimal(caught.value), [985, 1.234, 2.345])):
        raw = readers.read(str(follow(refusal, tmp_path, monkeypatch)), readers.Options(target="y"), like)
        np.testing.assert_allclose(raw.parts["all"].x["n"], numbers)


@pytest.mark.parametrize("mark", [",", "."])
def test_a_test_file_cannot_lack_the_mark_whose_meaning_is_open(tmp_path, mark):
    """All of 1,234 and 2,500 are standardised alike in both meanings; 985 is not."""
    train = semicolon_table(tmp_path / "a.csv", c=[f"{v:,}".replace(",", mark) for v in WHOLE], y=range(N))
    test = semicolon_table(tmp_path / "b.csv", c=[f"1{mark}234"], y=[1])
    data, _ = files.load(train, target="y", test_data=test)
    known = WHOLE[data.train.y[data.validation :].astype(int)]
    assert data.test.x[0, 0] == pytest.approx((1234 - known.mean()) / known.std(), rel=1e-4)
    with pytest.raises(BadInput, match="'985' in row 1; the other cells are read in another form"):
        files.load(train, target="y", test_data=semicolon_table(tmp_path / "b.csv", c=["985"], y=[1]))


@pytest.mark.parametrize(("other", "numbers"), [("3,5", MIXED), ("3.5", np.where(MIXED > 999, MIXED / 1000, MIXED))])
def test_points_group_thousands_where_other_columns_have_decimal_commas(tmp_path, other, numbers):
    cells = [POINTS(v) for v in MIXED]
    rows = [f"{cell};{other};{n}{other}" for n, cell in enumerate(cells)]
    (tmp_path / "a.csv").write_text("\n".join(["c;d;y", *rows]))
    table, y, _ = read(tmp_path / "a.csv")
    np.testing.assert_allclose(table["c"].to_numpy("float64"), numbers)
    np.testing.assert_allclose(y, np.array([float(f"{n}3.5") for n in range(N)], "float32"))


def test_test_data_are_read_as_the_training_data_are(tmp_path):
    """What stands alone would be read in another way: 1.234 as a little more than one, 3 and 007 as numbers."""
    path = tmp_path / "a.csv"
    pd.DataFrame(
        {"c": [european(v) for v in HALVES], "zip": [f"{n % 3:03}" for n in range(N)], "k": ["1", "2", "3+"] * (N // 3), "y": SIZE}
    ).to_csv(path, index=False)
    other = tmp_path / "b.csv"
    other.write_text("c,zip,k,y\n1.234,001,2,0.5\n2.000,002,,1.5\n")
    data, about = files.load(path, target="y", test_data=other)
    frame = pd.DataFrame(data.test.x, columns=about.features)
    train = HALVES[np.isin(SIZE.astype("float32"), data.train.y[data.validation :])]
    np.testing.assert_allclose(frame["c"], (np.array([1234, 2000]) - train.mean()) / train.std(), atol=1e-4)
    assert frame["zip=001"].tolist() == [1, 0]
    assert frame["k=2"].tolist() == [1, 0]
    other.write_text("c,zip,k,y\n12.5 kg,001,2,0.5\n2.000,002,3+,1.5\n")
    with pytest.raises(BadInput, match=r"'12.5 kg' in row 1; the other cells are read in another form"):
        files.load(path, target="y", test_data=other)


# ---------------------------------------------------------------------------------------------------------- days, months


@pytest.mark.parametrize(
    ("form", "days", "said"),
    [
        ("%d/%m/%Y", 60, "gives the day first"),
        ("%m/%d/%Y", 60, None),
        ("%d.%m.%Y", 9, "gives the day first"),
        ("%Y-%m-%d", 9, None),
        ("%d-%m-%Y", 60, "gives the day first"),
        ("%m/%d/%y", 60, None),
    ],
)
def test_the_whole_column_tells_days_from_months(tmp_path, form, days, said):
    """The first date alone does not: 05/04/2024 may be in April or in May."""
    order = np.r_[3, RANDOM.permutation(np.delete(np.arange(days), 3))]
    when = pd.Timestamp("2024-04-02") + pd.to_timedelta(order, unit="D")
    table = pd.DataFrame({"a": SIZE[:days], "when": when.strftime(form), "y": np.arange(days) * 0.5})
    (pd.concat([table] * 3) if days < 10 else table).to_csv(tmp_path / "a.csv", index=False)
    raw = readers.read(str(tmp_path / "a.csv"), readers.Options(target="y", time="when"))
    times = raw.parts["all"].times[:days]
    np.testing.assert_array_equal(np.argsort(times), np.argsort(order))
    assert any(said in note for note in raw.notes) if said else not any("when" in note for note in raw.notes)


def test_dates_that_leave_days_and_months_open_are_refused(tmp_path, monkeypatch):
    when = [f"{n % 12 + 1:02}/{n % 5 + 1:02}/2024" for n in range(N)]
    pd.DataFrame({"a": SIZE, "when": when, "y": HALVES}).to_csv(tmp_path / "a.csv", index=False)
    with pytest.raises(BadInput, match="does not tell days from months: '01/01/2024'") as caught:
        files.load(tmp_path / "a.csv", target="y", time="when")
    raw = readers.read(str(follow(caught.value, tmp_path, monkeypatch)), readers.Options(target="y", time="when"))
    days = [int(text[3:5]) * 100 + int(text[:2]) for text in when]
    np.testing.assert_array_equal(np.argsort(raw.parts["all"].times, kind="stable"), np.argsort(days, kind="stable"))


YEARS_FIRST = ["23/12/31", "24/01/15", "22/05/01", "23/01/02"]


def times_of(path):
    return readers.read(str(path), readers.Options(target="y", time="c")).parts["all"].times


def test_two_digits_of_a_year_may_be_those_of_a_day(tmp_path, monkeypatch):
    path = write(tmp_path / "a.csv", YEARS_FIRST * 5)
    with pytest.raises(BadInput, match="does not tell days from years: '23/12/31'") as caught:
        times_of(path)
    days_first = times_of(follow(caught.value, tmp_path, monkeypatch))[:4]  # in 2031, 2015, 2001 and 2002
    assert np.argsort(days_first).tolist() == [2, 3, 1, 0]
    other = re.search("or with (.*)[.]$", str(caught.value))[1]
    years_first = times_of(follow(str(caught.value).replace("dayfirst=True", other), tmp_path, monkeypatch))[:4]
    assert np.argsort(years_first).tolist() == [2, 3, 0, 1]


@pytest.mark.parametrize(
    ("last", "said", "order"), [("98/12/31", "gives the year first", [2, 0, 1]), ("31/12/98", "gives the day first", [2, 1, 0])]
)
def test_years_of_two_digits_are_read_where_one_is_no_day(tmp_path, last, said, order):
    path = write(tmp_path / "a.csv", ["01/02/05", "02/01/04", last] * 5)
    raw = readers.read(str(path), readers.Options(target="y", time="c"))
    assert np.argsort(raw.parts["all"].times[:3]).tolist() == order
    assert any(said in note for note in raw.notes)


@pytest.mark.parametrize("cells", [["31/12/2024", "12/31/2024"], ["2024-05-04", "31/12/2024"], ["2024-05-04", "05/06/2024"]])
def test_two_orders_of_days_and_months_in_a_column_are_refused(tmp_path, cells):
    with pytest.raises(BadInput, match=f"in several orders: '{cells[0]}' and '{cells[1]}'"):
        times_of(write(tmp_path / "a.csv", cells * 5))


@pytest.mark.parametrize(
    "cells",
    [["1,25", "1,5", "2,125", "10,5"], ["9:05", "10:00", "23:59", "100:00"], ["1.250,5", "1.300,0", "2.000,5", "10.000,5"]]
    + [["098", "099", "100", "101"], ["2024-01-31", "12/24/2024", "01/02/2025", "01/13/2025"]],
)
def test_times_of_numbers_are_in_the_order_of_the_numbers(tmp_path, cells):
    order = [2, 0, 3, 1]
    path = write(tmp_path / "a.csv", [cells[n] for n in order] * 5, separator=";")
    assert np.argsort(times_of(path)[:4]).tolist() == np.argsort(order).tolist()


# -------------------------------------------------------------------------------------------------------------- whole files

PLAIN = pd.DataFrame({"a": SIZE.round(3), "kind": ["x", "y", "z"] * (N // 3), "y": HALVES})


def semicolons(folder):
    text = PLAIN.to_csv(index=False, sep=";", decimal=",")
    return save(folder, "a.csv", text.encode())


def save(folder, name, content):
    (folder / name).write_bytes(content)
    return folder / name


def written(folder, name, write):
    write(folder / name)
    return folder / name


CSV = PLAIN.to_csv(index=False).encode()
JSON = PLAIN.to_json(orient="records", lines=True, double_precision=15).encode()
FORMS = {  # the same table, written in other ways; words of the note
    "semicolons": (semicolons, "separated by semicolons"),
    "tabs": (lambda f: save(f, "a.csv", CSV.replace(b",", b"\t")), "separated by tabs"),
    "vertical bars": (lambda f: save(f, "a.csv", CSV.replace(b",", b"|")), "separated by vertical bars"),
    "gzip": (lambda f: save(f, "a.csv.gz", gzip.compress(CSV)), "unpacked from .gz"),
    "bzip2": (lambda f: save(f, "a.csv.bz2", bz2.compress(CSV)), None),
    "xz": (lambda f: save(f, "a.csv.xz", lzma.compress(CSV)), None),
    "tabs, gzip": (lambda f: save(f, "a.tsv.gz", gzip.compress(CSV.replace(b",", b"\t"))), None),
    "feather": (lambda f: written(f, "a.feather", PLAIN.to_feather), None),
    "JSON lines": (lambda f: save(f, "a.jsonl", JSON), None),
    "JSON lines, gzip": (lambda f: save(f, "a.jsonl.gz", gzip.compress(JSON)), "unpacked from .gz"),
    "a mark of UTF-8": (lambda f: save(f, "a.csv", b"\xef\xbb\xbf" + CSV), None),
    "UTF-16": (lambda f: save(f, "a.csv", CSV.decode().encode("utf-16")), None),
    "Windows lines": (lambda f: save(f, "a.csv", CSV.replace(b"\n", b"\r\n")), None),
    "empty lines": (lambda f: save(f, "a.csv", b"\n\n" + CSV.replace(b"\n", b"\n\n")), "2 line(s) before"),
    "comments": (lambda f: save(f, "a.csv", b"# made in May\n# by us, them, all\n" + CSV), "2 line(s) before"),
    "a line for Excel": (lambda f: save(f, "a.csv", b"sep=;\n" + CSV.replace(b",", b";")), "separated by semicolons"),
    "separators at the ends of rows": (lambda f: save(f, "a.csv", CSV.replace(b"\n", b",\n").replace(b",\n", b"\n", 1)), None),
    "separators at all ends": (lambda f: save(f, "a.csv", CSV.replace(b"\n", b",\n")), "Unnamed: 3 is constant"),
    "quotes around all": (lambda f: save(f, "a.csv", PLAIN.to_csv(index=False, quoting=1).encode()), None),
    "numbers of rows": (
        lambda f: save(f, "a.csv", PLAIN.to_csv().encode()),
        "Unnamed: 0",
    ),
}


@pytest.mark.parametrize("case", FORMS)
def test_the_same_table_in_another_form(tmp_path, case):
    make, said = FORMS[case]
    expected, about = files.load(save(tmp_path, "plain.csv", CSV), target="y")
    data, other = files.load(make(tmp_path), target="y")
    assert other.features == about.features
    for mine, theirs in zip((*data.train, *data.test), (*expected.train, *expected.test)):
        np.testing.assert_array_equal(mine, theirs)
    assert said is None or any(said in note for note in other.notes)


BROKEN = {
    "no header": (lambda f: save(f, "a.csv", CSV.partition(b"\n")[2]), "2", "is no header"),
    "no header, words": (lambda f: save(f, "a.csv", b"x,y\n" + b"y,x\nx,y\n" * 30), "y", "is no header"),
    "no name for the rows": (
        lambda f: save(f, "a.csv", b"a,kind,y\n" + PLAIN.to_csv(header=False).encode()),
        "y",
        "3 column names, and rows of 4 cells",
    ),
    "spaces": (lambda f: save(f, "a.csv", CSV.replace(b",", b"  ")), "y", "has one column"),
    "a spreadsheet": (lambda f: save(f, "a.xlsx", b"PK\x03\x04"), "y", "a.xlsx"),
    "half of JSON lines": (lambda f: save(f, "a.jsonl", JSON[:-20]), "y", "cannot be read"),
    "JSON lines of numbers": (lambda f: save(f, "a.jsonl", b"[1, 2]\n[3, 4]\n"), "y", "no JSON object in line 1"),
    "nothing": (lambda f: save(f, "a.csv", b""), "y", "cannot be read"),
    "no lines of JSON": (lambda f: save(f, "a.jsonl", b""), "y", "has no rows"),
    "no feather": (lambda f: save(f, "a.feather", CSV), "y", "cannot be read"),
    "a spreadsheet called csv": (lambda f: save(f, "a.csv", b"PK\x03\x04" + bytes(90)), "y", "is no text"),
    "half of a gzip": (lambda f: save(f, "a.csv.gz", gzip.compress(CSV)[:-20]), "y", "is broken"),
    "no gzip": (lambda f: save(f, "a.csv.gz", CSV), "y", "is broken"),
    "Latin-1": (lambda f: save(f, "a.csv", b"a,y\n" + "é,1\n".encode("cp1252") * 30), "y", "is not UTF-8"),
    "another column": (semicolons, "a;kind;y", "there is no target column 'a;kind;y'"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_table_that_cannot_be_read_is_refused(tmp_path, case):
    make, target, said = BROKEN[case]
    with pytest.raises(BadInput) as caught:
        files.load(make(tmp_path), target=target)
    lines = str(caught.value).splitlines()
    assert len(lines) == 2
    assert said in lines[0]


@pytest.mark.parametrize(("case", "target"), [("no header", "c2"), ("no name for the rows", "y"), ("spaces", "y")])
def test_the_way_out_of_a_broken_table_works(tmp_path, monkeypatch, case, target):
    make, named, _ = BROKEN[case]
    with pytest.raises(BadInput) as caught:
        files.load(make(tmp_path), target=named)
    data, _ = files.load(follow(caught.value, tmp_path, monkeypatch), target=target)
    np.testing.assert_array_equal(np.sort(np.concatenate([data.train.y, data.test.y])), np.sort(HALVES).astype("float32"))


@pytest.mark.parametrize("names", [("400.5", "401.0", "401.5", "402.0"), ("2021", "2020", "2019"), ("1", "2")])
def test_numbers_in_order_are_names_of_columns(tmp_path, names):
    table = pd.DataFrame(RANDOM.random((N, len(names))), columns=names).assign(y=HALVES)
    table.to_csv(tmp_path / "a.csv", index=False)
    assert files.load(tmp_path / "a.csv", target="y")[1].features == names


def test_a_value_in_place_of_names_is_shown(tmp_path):
    path = save(tmp_path, "a.csv", b"name,7.5,2,y\n" + b"a,1.5,2,3\nb,2.5,3,4\n" * 30)
    with pytest.raises(BadInput, match=r"it holds values, such as '7\.5'"):
        files.load(path, target="y")


def test_a_column_that_numbers_the_rows_of_the_test_file_alone_is_kept(tmp_path):
    train = save(tmp_path, "a.csv", PLAIN.assign(month=np.arange(N) % 12 + 1).to_csv(index=False).encode())
    test = save(tmp_path, "b.csv", PLAIN[:12].assign(month=np.arange(1, 13)).to_csv(index=False).encode())
    data, about = files.load(train, target="y", test_data=test)
    assert about.features[-1] == "month"
    assert (np.diff(data.test.x[:, -1]) > 0).all()


def test_the_command_that_changes_the_encoding_works(tmp_path):
    path = save(tmp_path, "a b.csv", b"shop,y\n" + "café “é”,1.5\nbar,2\n".encode("cp1252") * 30)
    with pytest.raises(BadInput) as caught:
        files.load(path, target="y")
    subprocess.run(str(caught.value).splitlines()[1], shell=True, check=True, cwd=tmp_path)
    assert "shop=café “é”" in files.load(tmp_path / "utf8.csv", target="y")[1].features


def test_columns_of_one_name_are_said_and_a_copy_of_the_target_is_left_out(tmp_path):
    table = PLAIN.assign(again=PLAIN["y"], scaled=PLAIN["y"] * 1.8 + 32).rename(columns={"again": "y"})
    table.to_csv(tmp_path / "a.csv", index=False)
    _, about = files.load(tmp_path / "a.csv", target="y")
    assert about.features[0] == "a"
    assert not any("y.1" in name for name in about.features)
    said = " ".join(about.notes)
    assert "2 columns are called y: the second is y.1" in said
    assert "column y.1 repeats the target: left out" in said
    assert "column scaled tells the target exactly" in said


def test_ids_of_rows_that_were_drawn_are_left_out(tmp_path):
    PLAIN.assign(user_id=RANDOM.permutation(9000)[:N], year=np.arange(1960, 1960 + N)).to_csv(tmp_path / "a.csv", index=False)
    _, about = files.load(tmp_path / "a.csv", target="y")
    assert "column user_id numbers the rows: left out" in about.notes
    assert "year" in about.features


def test_test_data_without_answers_are_refused_with_a_way_out(tmp_path):
    path = save(tmp_path, "a.csv", CSV)
    other = save(tmp_path, "b.csv", PLAIN.drop(columns="y").to_csv(index=False).encode())
    with pytest.raises(BadInput, match="have no column 'y': without answers nothing is measured"):
        files.load(path, target="y", test_data=other)


def test_texts_alone_are_taken_with_the_option_that_the_refusal_names(tmp_path):
    table = pd.DataFrame({"said": [f"the film {n} was very good" for n in range(N)], "y": HALVES})
    table.to_csv(tmp_path / "a.csv", index=False)
    with pytest.raises(BadInput, match="--text said learns from its words"):
        files.load(tmp_path / "a.csv", target="y")
    assert files.load(tmp_path / "a.csv", target="y", text="said")[1].kind == "text"


def test_plain_values_of_a_database_are_numbers_and_dates(tmp_path):
    import datetime
    import decimal

    days = [datetime.date(2024, 1, 1) + datetime.timedelta(days=n) for n in range(N)]
    table = pd.DataFrame({"price": [decimal.Decimal(n) / 4 for n in range(N, 2 * N)], "day": days, "list": [[n] for n in range(N)]})
    table["wait"], table["y"] = pd.to_timedelta(WHOLE, unit="s"), HALVES
    table.to_parquet(tmp_path / "a.parquet")
    table, _, notes = read(tmp_path / "a.parquet")
    np.testing.assert_array_equal(table["price"], np.arange(N, 2 * N) / 4)
    np.testing.assert_array_equal(table["wait"], WHOLE)
    assert "column list holds no plain values: left out" in notes
    assert "column day holds dates: left out" in files.load(tmp_path / "a.parquet", target="y")[1].notes


def test_a_reading_that_a_cell_does_not_fit_gives_none():
    reading = columns.Reading(",", ".")
    assert reading.value("1.234,5") == 1234.5
    assert np.isnan(reading.value("n/a"))
    assert [reading.value(text) for text in ("1,234.5", "12.34", "5 kg", "x", "1.2.3", "()")] == [None] * 6
