"""New divisions of one data set: whole, without leaks, by class and by group, each with an encoding of its own."""

import keras
import numpy as np
import pytest

from keras_dropout.bench.data import divisions, files, folders
from keras_dropout.bench.data.dataset import Data, Part, from_arrays
from keras_dropout.bench.study.loading import load_divisions
from keras_dropout.errors import BadInput

SEEDS = (0, 1, 2, 7)
SIZE = 200
X = np.arange(SIZE, dtype="float32")[:, None] * np.ones((1, 3), "float32")  # each example is known by its first number
Y = np.repeat([0, 1, 2], [100, 60, 40])


def parts(data: Data) -> dict[str, Part]:
    return data.parts("held-out")


def numbers(part: Part) -> np.ndarray:
    """Which examples a part has."""
    return np.asarray(part.x)[:, 0].astype(int)


def check_no_leak(data: Data, size: int = SIZE) -> None:
    """Each example is in exactly one part."""
    assert np.array_equal(np.sort(np.concatenate([numbers(part) for part in parts(data).values()])), np.arange(size))


def test_arrays_are_divided_anew_by_each_seed():
    found = divisions.of_arrays((X, Y))
    tested = {}
    for seed in SEEDS:
        data, about = found.of(seed)
        assert about is None
        check_no_leak(data)
        tested[seed] = frozenset(numbers(data.test))
        for part, share in (("train", 0.72), ("validation", 0.08), ("test", 0.2)):
            counts = np.bincount(parts(data)[part].y, minlength=3)
            assert np.abs(counts - share * np.array([100, 60, 40])).max() <= 1, f"{part}: classes do not keep their shares"
            assert np.array_equal(Y[numbers(parts(data)[part])], parts(data)[part].y), "an answer moved to another example"
    assert len(set(tested.values())) == len(SEEDS), "two seeds test on the same examples"
    assert len({found.of(seed)[0].fingerprint() for seed in SEEDS}) == len(SEEDS)


def test_the_division_of_seed_0_is_the_one_without_new_divisions():
    plain = from_arrays((X, Y))
    found = divisions.of_arrays((X, Y))
    assert found.of(0)[0].fingerprint() == plain.fingerprint() == found.facts.fingerprint
    assert found.of(1)[0].fingerprint() != plain.fingerprint()
    assert found.how == "by class, at random"


def test_several_inputs_and_weights_stay_together():
    data, _ = divisions.of_arrays(({"a": X, "b": X * 2}, Y, Y + 1.0)).of(3)
    for part in parts(data).values():
        assert np.array_equal(part.x["b"], 2 * part.x["a"])
        assert np.array_equal(part.weights, part.y + 1)


def test_a_division_is_made_when_asked_for_and_only_the_latest_is_kept():
    made = []

    def divide(seed):
        made.append(seed)
        return from_arrays((X, Y)), None

    found = divisions.Divisions(from_arrays((X, Y)), "at random", divide)
    assert made == []
    assert [seed for seed, _ in found.all((4, 5, 6))] == [6, 5, 4]
    assert found.of(4) is found.of(4)
    assert made == [6, 5, 4]  # the first seed's, made last, is still there
    found.of(5)
    assert made == [6, 5, 4, 5]


def test_inputs_on_disk_stay_there(tmp_path):
    np.save(tmp_path / "x.npy", X)
    np.save(tmp_path / "y.npy", Y)
    found = divisions.of_file(f"{tmp_path / 'x.npy'},{tmp_path / 'y.npy'}")
    data, _ = found.of(2)
    assert type(data.train.x).__name__ == "Rows"
    check_no_leak(data)
    assert np.array_equal(numbers(data.test), numbers(divisions.of_arrays((X, Y)).of(2)[0].test))


def table(tmp_path, rows, name="t.csv"):
    path = tmp_path / name
    path.write_text("\n".join(",".join(map(str, row)) for row in rows) + "\n")
    return path


def test_a_table_is_encoded_anew_from_each_divisions_training_rows(tmp_path):
    """Also where a division's training rows lack a category or an empty cell: its column is there, and 0."""
    rng = np.random.default_rng(0)
    values, kinds = rng.normal(5, 3, 60), ["a"] * 40 + ["b"] * 19 + ["rare"]
    cells = ["" if n == 7 else f"{value:.6f}" for n, value in enumerate(values)]
    path = table(tmp_path, [("value", "kind", "y"), *zip(cells, kinds, ["p", "q"] * 30)])
    found = divisions.of_file(path, target="y")
    shapes, lacking = set(), 0
    for seed in range(12):
        data, about = found.of(seed)
        train, test = parts(data)["train"], parts(data)["test"]
        assert about.features == ("value", "value missing", "kind=a", "kind=b", "kind=rare", "kind other")
        shapes.add(about.input_shape)
        assert abs(float(train.x[:, 0].mean())) < 1e-5, "the numbers are not standardised by this division's training rows"
        assert float(train.x[:, 0].std()) == pytest.approx(1, abs=1e-4)
        if not train.x[:, 4].any():  # no training row is rare
            lacking += 1
            assert not test.x[:, 4].any()
            assert test.x[:, 5].sum() + parts(data)["validation"].x[:, 5].sum() == 1, "the rare category is known without training"
    assert shapes == {(6,)}
    assert lacking, "no division lacks the rare category: choose other seeds"


def test_where_training_has_all_columns_seed_0_is_as_without(tmp_path):
    rng = np.random.default_rng(0)
    path = table(tmp_path, [("value", "kind", "y"), *zip(rng.normal(size=80).round(4), ["a", "b"] * 40, ["p", "p", "q", "q"] * 20)])
    found = divisions.of_file(path, target="y")
    assert found.of(0)[0].fingerprint() == files.load(path, target="y")[0].fingerprint()


def test_no_group_is_divided(tmp_path):
    owners = [f"o{n % 17}" for n in range(SIZE)]
    path = table(tmp_path, [("number", "owner", "y"), *zip(X[:, 0] + 0.5, owners, np.where(Y > 0, "p", "q"))])
    found = divisions.of_file(path, target="y", group="owner")
    tested = set()
    for seed in SEEDS:
        source = files.read_source(path, target="y", group="owner")
        data, about = found.of(seed)
        # The encoded number grows with the number of the row, which tells the row.
        rows = np.concatenate([part.x[:, 0] for part in parts(data).values()])
        of_row = np.argsort(np.argsort(rows))
        groups, start = [], 0
        for part in parts(data).values():
            groups.append({owners[row] for row in of_row[start : start + len(part.y)]})
            start += len(part.y)
        assert sum(map(len, groups)) == len(set().union(*groups)) == 17, "a group is in two parts"
        tested.add(frozenset(groups[2]))
        assert len(source.raw.parts["all"]) == SIZE
        assert "by group" in about.split
    assert len(tested) > 1
    assert found.how == "by group, at random"


def test_words_are_learned_from_each_divisions_training_texts(tmp_path):
    lines = [f"{'good' if n % 2 else 'bad'}\tword{n} common {'fine' if n % 2 else 'poor'}" for n in range(60)]
    path = tmp_path / "t.txt"
    path.write_text("\n".join(lines))
    found = divisions.of_file(path, vocabulary=1000, length=3)
    for seed in SEEDS:
        data, _ = found.of(seed)
        assert (np.asarray(data.test.x)[:, 0] == 1).all(), "a word of a test text is known"  # 1 is the unknown word
        assert (np.asarray(data.test.x)[:, 1] > 1).all()


def test_class_folders_are_divided_anew(tmp_path):
    pytest.importorskip("PIL")
    from PIL import Image

    for number in range(40):
        folder = tmp_path / "images" / ("dark" if number % 2 else "light")
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((4, 4), number, "uint8")).save(folder / f"{number:02}.png")
    found = divisions.of_file(tmp_path / "images")
    tested = set()
    for seed in SEEDS:
        data, _ = found.of(seed)
        each = [part.x[:, 0, 0, 0].astype(int) for part in parts(data).values()]
        assert np.array_equal(np.sort(np.concatenate(each)), np.arange(40))
        assert np.bincount(data.test.y).tolist() == [4, 4]
        tested.add(frozenset(each[2]))
    assert len(tested) == len(SEEDS)


def test_a_folder_with_training_data_only_is_undivided(tmp_path):
    pytest.importorskip("PIL")
    from PIL import Image

    for number in range(20):
        folder = tmp_path / "images" / "train" / "ab"[number % 2]
        folder.mkdir(parents=True, exist_ok=True)
        Image.new("L", (4, 4), number).save(folder / f"{number:02}.png")
    found = divisions.of_file(tmp_path / "images")
    assert found.of(0)[0].fingerprint() == files.load(tmp_path / "images")[0].fingerprint() != found.of(1)[0].fingerprint()


def test_each_image_is_decoded_once_and_the_divisions_are_those_of_their_seeds(tmp_path, monkeypatch):
    pytest.importorskip("PIL")
    from PIL import Image

    for number in range(20):
        folder = tmp_path / "images" / "ab"[number % 2]
        folder.mkdir(parents=True, exist_ok=True)
        mode, color = ("RGB", (number, 0, 9)) if number == 8 else ("L", number)  # one image in colour
        Image.new(mode, (4, 4), color).save(folder / f"{number:02}.png")
    options = {"image_size": (3, 2)}
    plain = {seed: files.read_source(tmp_path / "images", **options).divide(seed)[0].fingerprint() for seed in range(8)}
    encoded, learn = [], folders.learn_images

    def counting(*arguments):
        encode = learn(*arguments)
        return lambda some: [encoded.append(len(some)), encode(some)][1]

    monkeypatch.setattr(folders, "learn_images", counting)
    found = divisions.of_file(tmp_path / "images", **options)
    assert {seed: found.of(seed)[0].fingerprint() for seed in range(8)} == plain
    channels = {found.of(seed)[0].train.x.shape[-1] for seed in range(8)}
    assert sum(size > 1 for size in encoded) == len(channels) == 2  # once in grey, once in colour


def test_what_a_function_returns_is_divided_anew(tmp_path):
    (tmp_path / "given.py").write_text("import numpy as np\ndef make():\n    return np.arange(60.)[:, None], np.arange(60) % 2\n")
    found = load_divisions(None, f"{tmp_path / 'given.py'}:make", {"validation_split": 0.1})
    a, b = (set(numbers(found.of(seed)[0].test)) for seed in (0, 1))
    assert len(a) == len(b) == 12
    assert a != b


def test_a_stream_is_read_once_and_divided_anew():
    class Batches(keras.utils.PyDataset):
        def __len__(self):
            return 4

        def __getitem__(self, number):
            return X[number * 50 : number * 50 + 50], Y[number * 50 : number * 50 + 50]

    found = load_divisions(None, Batches(), {"validation_split": 0.1})
    for seed in SEEDS:
        check_no_leak(found.of(seed)[0])


def ready() -> Data:
    return Data("ready", Part(X[:150], Y[:150]), Part(X[150:], Y[150:]), 30, 255.0, ("a", "b", "c"))


def test_a_ready_data_set_is_put_together_and_divided_by_class():
    data = ready()
    found = divisions.pooled(data, drawn=False)
    for seed in SEEDS:
        division, _ = found.of(seed)
        check_no_leak(division)
        assert [len(part.y) for part in parts(division).values()] == [120, 30, 50]
        assert np.bincount(division.test.y).tolist() == [25, 15, 10]
        assert (division.divide_by, division.classes, division.name) == (255.0, ("a", "b", "c"), "ready")
    assert found.of(0)[0].fingerprint() != data.fingerprint() == found.facts.fingerprint  # its test part is no random one
    assert divisions.pooled(data, drawn=True).of(0)[0] is data


REFUSED = {
    "by time": lambda folder: divisions.of_file(
        table(folder, [("v", "day", "y"), *((n, f"2024-01-{n % 28 + 1:02}", n % 2) for n in range(40))]), target="y", time="day"
    ),
    "test_data": lambda folder: divisions.of_file(
        table(folder, [("v", "y"), *((n * 1.5, n % 2) for n in range(40))]), target="y", test_data="t.csv"
    ),
    "test data of its own": lambda folder: divisions.of_file(_npz(folder)),
    "validation data of its own": lambda folder: divisions.of_returned(
        {"x_train": X, "y_train": Y, "x_val": X[:9], "y_val": Y[:9]}, "f"
    ),
    "the test data are given": lambda folder: load_divisions(None, ((X, Y), (X, Y)), {"validation_split": 0.1}),
    "a Data has test data": lambda folder: load_divisions(None, ready(), {"validation_split": 0.1}),
}


def _npz(folder):
    np.savez(folder / "a.npz", x_train=X, y_train=Y, x_test=X, y_test=Y)
    return folder / "a.npz"


@pytest.mark.parametrize("why", REFUSED)
def test_data_that_are_divided_are_refused_in_two_lines(why, tmp_path):
    with pytest.raises(BadInput, match="resample_split divides the data anew for each seed") as found:
        REFUSED[why](tmp_path)
    assert why in str(found.value)
    assert len(str(found.value).splitlines()) == 2


def test_what_are_no_data_is_refused_as_such():
    with pytest.raises(BadInput, match="data must be a pair"):
        load_divisions(None, 5, {"validation_split": 0.1})


def test_a_column_that_only_a_division_learns_is_refused(tmp_path):
    """Of more than a hundred categories, each division takes its own most frequent ones."""
    kinds = [f"k{n % 130}" for n in range(400)]
    path = table(tmp_path, [("kind", "value", "y"), *zip(kinds, np.arange(400) * 0.5, ["p", "q"] * 200)])
    found = divisions.of_file(path, target="y")
    with pytest.raises(BadInput, match="learned in one division of the data and not from all rows"):
        _ = [found.of(seed) for seed in range(9)]
