"""Windows of a series: the right rows in them, the right row as the answer, and nothing of one part in another."""

import numpy as np
import pytest

from keras_dropout.bench.data import divisions, files
from keras_dropout.bench.data.example_store import shown
from keras_dropout.errors import BadInput

pd = pytest.importorskip("pandas")
N = 200
TIMES = pd.date_range("2024-01-01", periods=N, freq="h")
RANDOM = np.random.default_rng(0)
# Each number of the series stands in one row alone, so that a window shows which rows it has.
SERIES = pd.DataFrame({"at": TIMES, "heat": RANDOM.permutation(N) / 8, "load": RANDOM.permutation(N) / 4 + 0.25})
KINDS = SERIES.assign(kind=np.where(SERIES["heat"] > 12, "warm", "cold"))


def saved(tmp_path, table=SERIES, name="a.csv"):
    table.to_csv(tmp_path / name, index=False)
    return tmp_path / name


def rows_in(x, about, column, train_rows, window):
    """The row of the series that each place in each window shows, by the value in a column."""
    values = SERIES[column].to_numpy()
    known = values[:train_rows]
    encoded = ((values - known.mean()) / known.std()).astype("float32")
    place = x[:, :, about.features.index(column)]
    found = np.abs(place[..., None] - encoded).argmin(axis=-1)
    np.testing.assert_allclose(encoded[found], place, atol=1e-4)  # the encoding is that of the training rows
    assert x.shape[1] == window
    return found


def parts_of(data):
    x, y, v = data.train.x, data.train.y, data.validation
    return {"validation": (x[:v], y[:v]), "training": (x[v:], y[v:]), "test": (data.test.x, data.test.y)}


@pytest.mark.parametrize(("window", "horizon"), [(1, 1), (5, 1), (6, 3)])
@pytest.mark.parametrize("shuffled", [False, True])
def test_windows_and_answers_are_the_rows_they_should_be_and_parts_share_none(tmp_path, window, horizon, shuffled):
    path = saved(tmp_path, SERIES.sample(frac=1, random_state=1) if shuffled else SERIES)
    data, about = files.load(path, target="load", time="at", window=window, horizon=horizon)
    assert about.input_shape == (window, 2)
    borders = {"training": (0, 144), "validation": (144, 160), "test": (160, 200)}  # 20 % of all, 10 % of the rest
    for part, (x, y) in parts_of(data).items():
        first, end = borders[part]
        starts = np.arange(first, end - window - horizon + 1)
        for column in ("heat", "load"):
            found = rows_in(x, about, column, 144, window)
            np.testing.assert_array_equal(found, starts[:, None] + np.arange(window), err_msg=part)
        np.testing.assert_array_equal(y, SERIES["load"].to_numpy("float32")[starts + window - 1 + horizon], err_msg=part)
    lost = window + horizon - 1
    assert f"which costs training {lost}, validation {lost}, test {lost}" in " ".join(about.notes)
    assert f"{144 - lost} training, {16 - lost} validation and {40 - lost} test examples" in about.split
    assert "divided off by time" in about.split


def test_without_a_time_the_rows_are_taken_as_they_are_and_this_is_said(tmp_path):
    one, _ = files.load(saved(tmp_path), target="load", time="at", window=4)
    other, about = files.load(saved(tmp_path, SERIES.drop(columns="at"), "b.csv"), target="load", window=4)
    for mine, theirs in zip((*one.train, *one.test), (*other.train, *other.test)):
        np.testing.assert_array_equal(mine, theirs)
    assert "the rows are taken in the order of the file; --time names a column that orders them" in about.notes
    assert "the past of load is in the windows" in about.notes


def test_classes_and_weights_are_those_of_the_answer(tmp_path):
    data, about = files.load(saved(tmp_path, KINDS), target="kind", time="at", weight="load", window=4, horizon=2)
    warm = (KINDS["kind"] == "warm").to_numpy()
    assert about.classes == ("cold", "warm")
    np.testing.assert_array_equal(data.test.y, warm[165:])
    np.testing.assert_allclose(data.test.weights, KINDS["load"].to_numpy()[165:], rtol=1e-6)


def test_test_data_of_their_own_are_windows_too_and_must_be_later(tmp_path):
    train, test = saved(tmp_path, SERIES[:150]), saved(tmp_path, SERIES[150:], "b.csv")
    data, _ = files.load(train, target="load", time="at", window=4, test_data=test)
    np.testing.assert_array_equal(data.test.y, SERIES["load"].to_numpy("float32")[154:])
    with pytest.raises(BadInput, match="the parts of the series overlap in time"):
        files.load(test, target="load", time="at", window=4, test_data=train)


def test_windows_are_no_pictures_in_a_report(tmp_path):
    wide = SERIES.assign(**{f"c{n}": RANDOM.normal(size=N) for n in range(8)})
    data, _ = files.load(saved(tmp_path, wide), target="load", time="at", window=8)
    assert shown(data)[0]["kind"] == "none"


def holes(table):
    return table.assign(load=table["load"].where(np.arange(N) % 50 != 7))


WRONG = {
    "a part that is too short": (SERIES, {"time": "at", "window": 16}, "the validation part has 16 rows; a window of 16"),
    "two rows of one time": (
        SERIES.assign(at=TIMES.floor("2h")),
        {"time": "at", "window": 4},
        "100 row.s. have the time of another",
    ),
    "holes in the target": (holes(SERIES), {"time": "at", "window": 4}, "the target is missing in 4 row"),
    "a window of 0": (SERIES, {"window": 0}, "window must be"),
    "a horizon of 0": (SERIES, {"window": 4, "horizon": 0}, "horizon must be"),
    "a horizon alone": (SERIES, {"horizon": 2}, "horizon 2 is given without a window"),
    "groups": (KINDS, {"window": 4, "group": "kind"}, "windows are of one series"),
    "texts": (KINDS, {"window": 4, "text": "kind"}, "windows are of one series"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_no_series_is_refused(tmp_path, case):
    table, options, said = WRONG[case]
    with pytest.raises(BadInput, match=said) as caught:
        files.load(saved(tmp_path, table), target="load", **options)
    assert len(str(caught.value).splitlines()) == 2


def test_arrays_and_new_divisions_have_no_windows(tmp_path):
    np.savez(tmp_path / "a.npz", x=np.zeros((40, 2)), y=np.arange(40) / 4)
    with pytest.raises(BadInput, match="is no table; windows are cut from the rows of one"):
        files.load(tmp_path / "a.npz", window=3)
    with pytest.raises(BadInput, match="the test data are always the latest"):
        divisions.of_file(saved(tmp_path), target="load", window=4)


def test_uneven_steps_are_said(tmp_path):
    uneven = SERIES.assign(at=TIMES + pd.to_timedelta(np.where(np.arange(N) >= 90, 5, 0), unit="h"))
    _, about = files.load(saved(tmp_path, uneven), target="load", time="at", window=4)
    assert "column at: the longest step of time is 6 times the shortest; windows count rows" in about.notes
