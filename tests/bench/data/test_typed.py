"""Tables whose cells have types: what is read is what a .csv of the same cells gives, and what is unclear is refused."""

import datetime
import json

import numpy as np
import pytest

from keras_dropout.bench.data import files
from keras_dropout.errors import BadInput

pd = pytest.importorskip("pandas")
N = 60
RANDOM = np.random.default_rng(0)
PLAIN = pd.DataFrame(
    {
        "size": RANDOM.normal(size=N).round(3),
        "rooms": np.arange(N) % 4,
        "kind": ["x", "None", "z"] * (N // 3),
        "code": [f"{n % 7:03}" for n in range(N)],
        "price": RANDOM.normal(size=N).round(2),
    }
)
PLAIN.loc[3, "size"] = np.nan


@pytest.fixture
def sheets(tmp_path):
    """Writes a workbook: the sheets by name, each a table or a list of rows."""
    pytest.importorskip("python_calamine")
    pytest.importorskip("openpyxl")

    def write(name="a.xlsx", **found):
        with pd.ExcelWriter(tmp_path / name) as book:
            for sheet, content in found.items():
                if isinstance(content, list):
                    pd.DataFrame(content).to_excel(book, sheet_name=sheet, index=False, header=False)
                else:
                    content.to_excel(book, sheet_name=sheet, index=False)
        return tmp_path / name

    return write


def same(one, other):
    assert one[1].features == other[1].features
    assert one[1].classes == other[1].classes
    for mine, theirs in zip((*one[0].train, *one[0].test), (*other[0].train, *other[0].test)):
        np.testing.assert_array_equal(mine, theirs)


@pytest.mark.parametrize("target", ["price", "kind"])
def test_a_sheet_is_read_as_the_same_table_in_a_csv(sheets, tmp_path, target):
    PLAIN.to_csv(tmp_path / "a.csv", index=False)
    found = files.load(sheets(Homes=PLAIN, empty=[]), target=target)
    same(found, files.load(tmp_path / "a.csv", target=target))
    assert "sheet 'Homes' is read, of 2" in found[1].notes
    assert any("'000' is taken as a code" in note for note in found[1].notes)


def test_of_several_sheets_one_is_named(sheets):
    path = sheets(first=PLAIN, second=PLAIN.assign(price=PLAIN["price"] + 10))
    with pytest.raises(BadInput, match=r"2 sheets that are not empty: first, second.\nName one: --sheet 'first'"):
        files.load(path, target="price")
    with pytest.raises(BadInput, match=r"no sheet 'third'.\nIts sheets: first, second"):
        files.load(path, target="price", sheet="third")
    one, two = (files.load(path, target="price", sheet=name)[0] for name in ("first", "second"))
    np.testing.assert_allclose(two.train.y, one.train.y + 10, rtol=1e-5)


def test_a_sheet_is_of_spreadsheets_alone(tmp_path):
    PLAIN.to_csv(tmp_path / "a.csv", index=False)
    with pytest.raises(BadInput, match="has no sheets, so there is no sheet 'x'"):
        files.load(tmp_path / "a.csv", target="price", sheet="x")


def test_cells_of_several_types_are_read_as_in_a_csv(sheets, tmp_path):
    """Texts among numbers, numbers with decimal commas, dates, times of day and missing cells."""
    table = PLAIN.assign(
        size=["?" if n % 9 == 0 else n / 8 for n in range(N)],
        weight=[f"{n},5" for n in range(N)],
        day=[datetime.datetime(2024, 1, 1) + datetime.timedelta(days=n % 50) for n in range(N)],
        at=[datetime.time(n % 24, 30) for n in range(N)],
    )
    found, about = files.load(sheets(a=table), target="price")
    said = " ".join(about.notes)
    assert "column day holds dates" in said
    assert "'00:30:00' as 0.5" in said
    assert "column weight is read as numbers: '0,5' as 0.5" in said
    table.drop(columns="day").to_csv(tmp_path / "a.csv", index=False)
    expected, of_csv = files.load(tmp_path / "a.csv", target="price")
    assert about.features == of_csv.features
    np.testing.assert_array_equal(found.train.x, expected.train.x)


TITLE = [["Prices of homes", None, None], [None, None, None], ["size", "rooms", "price"]]
WRONG = {
    "no header": ([[2, 3.5, 1.5]] + [[n / 2, n % 3, n / 4] for n in range(N)], "is no header: it holds values, such as '2'"),
    "a title above": (TITLE + [[n / 2, n % 3, n / 4] for n in range(N)], "the first line names 1 of 3 columns"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_sheet_without_names_is_refused_and_its_way_out_works(sheets, tmp_path, monkeypatch, case):
    rows, said = WRONG[case]
    with pytest.raises(BadInput) as caught:
        files.load(sheets(a=rows), target="price")
    assert said in str(caught.value)
    monkeypatch.chdir(tmp_path)
    call = str(caught.value).partition("in Python: ")[2]
    call = call[: call.index("index=False)") + len("index=False)")]
    exec("import pandas; " + call)
    assert files.load(tmp_path / "clean.csv", target="c2" if case == "no header" else "price")[0].train.y.shape in ((48,), (49,))


def test_what_is_no_spreadsheet_is_refused(sheets, tmp_path):
    for name, content in (("a.xlsx", b"PK\x03\x04"), ("b.xlsx", b""), ("c.xls", b"size;price\n"), ("d.ods", bytes(600))):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(BadInput, match=rf"{name} cannot be read: .*\nIt must be a whole"):
            files.load(tmp_path / name, target="price")


def test_a_spreadsheet_without_its_library_says_what_to_install(tmp_path, monkeypatch):
    import importlib.util

    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *more: None if name == "python_calamine" else find(name, *more))
    (tmp_path / "a.xlsx").write_bytes(b"PK")
    with pytest.raises(BadInput, match=r"python-calamine is not installed.\npip install 'keras-dropout\[tables\]'"):
        files.load(tmp_path / "a.xlsx", target="price")


def test_texts_in_lines_of_json_stay_texts(tmp_path):
    rows = [{"date": 20240101 + n, "code": f"{n % 7:03}", "2021": n % 5, "y": n / 3, "in": {"a": 1}} for n in range(N)]
    for row in rows[::4]:
        row.pop("2021")
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n\n")
    _, about = files.load(tmp_path / "a.jsonl", target="y")
    assert {"code=001", "2021", "2021 missing", "date"} <= set(about.features)
    assert "column in holds no plain values: left out" in about.notes
