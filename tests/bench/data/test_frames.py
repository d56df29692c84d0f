"""Tables that a program holds: they give what the same table in a file gives, and the labels keep their numbers."""

import numpy as np
import pytest

from keras_dropout.bench.data import files
from keras_dropout.bench.study.loading import load_data, load_divisions
from keras_dropout.errors import BadInput

pd = pytest.importorskip("pandas")
N = 60
RANDOM = np.random.default_rng(0)
TABLE = pd.DataFrame(
    {
        "size": RANDOM.normal(size=N).round(3),
        "weight": [f"{n % 9},5" for n in range(N)],
        "kind": ["x", "y", "z"] * (N // 3),
        "price": RANDOM.normal(size=N).round(2),
    }
)
NAMES = ["zebra", "ape", "cat"]  # not in the order of the alphabet: their numbers are the order here


@pytest.fixture
def hf():
    return pytest.importorskip("datasets")


def same(one, other):
    assert one[1].features == other[1].features
    for mine, theirs in zip((*one[0].train, *one[0].test), (*other[0].train, *other[0].test)):
        np.testing.assert_array_equal(mine, theirs)


def test_a_frame_is_read_as_its_file(tmp_path):
    TABLE.to_csv(tmp_path / "a.csv", index=False)
    found = load_data(None, TABLE, {"target": "price"})
    same(found, files.load(tmp_path / "a.csv", target="price"))
    assert "column weight is read as numbers: '0,5' as 0.5" in found[1].notes
    assert TABLE["weight"].iloc[0] == "0,5"  # the caller's own table is as it was
    windows, about = load_data(None, TABLE, {"target": "price", "window": 4})
    assert windows.train.x.shape[1:] == about.input_shape == (4, len(about.features))
    assert load_divisions(None, TABLE, {"target": "price"}).of(1)[0].train.x.shape[1] == len(found[1].features)
    series = TABLE.assign(at=np.arange(N) * 10)
    hf = pytest.importorskip("datasets")
    parts = {"train": series[:30], "validation": series[30:45], "test": series[45:]}
    data, _ = load_data(
        None,
        hf.DatasetDict({n: hf.Dataset.from_pandas(p, preserve_index=False) for n, p in parts.items()}),
        {"target": "price", "time": "at", "window": 4},
    )
    prices = TABLE["price"].to_numpy("float32")
    np.testing.assert_array_equal(data.train.y, np.concatenate([prices[34:45], prices[4:30]]))
    np.testing.assert_array_equal(data.test.y, prices[49:])
    with pytest.raises(BadInput, match=r"no target column is named.\nIn Python data_options="):
        load_data(None, TABLE, {})


def test_a_dataset_is_read_as_its_table(hf, tmp_path):
    TABLE.to_csv(tmp_path / "a.csv", index=False)
    same(load_data(None, hf.Dataset.from_pandas(TABLE), {"target": "price"}), files.load(tmp_path / "a.csv", target="price"))


def labelled(hf, numbers, **columns):
    features = {"label": hf.ClassLabel(names=NAMES), **{name: feature for name, (feature, _) in columns.items()}}
    values = {name: value for name, (_, value) in columns.items()}
    return hf.Dataset.from_dict({"label": list(numbers), **values}, features=hf.Features(features))


def test_labels_keep_their_numbers_in_all_parts(hf):
    numbers = np.arange(N) % 3
    image = (hf.Array2D((5, 5), "float32"), RANDOM.normal(size=(N, 5, 5)).tolist())
    sizes = (hf.Value("float32"), RANDOM.normal(size=N).tolist())
    texts = (hf.Value("string"), [f"a word of {NAMES[n]}" for n in numbers])
    for columns, options, shape in (
        ({"image": image}, {}, (5, 5)),
        ({"size": sizes}, {}, (1,)),
        ({"t": texts}, {"text": "t"}, (200,)),
    ):
        one = labelled(hf, numbers, **columns)
        whole, about = load_data(None, one, options)
        assert about.classes == tuple(NAMES)
        assert about.input_shape == shape
        parts = hf.DatasetDict(train=one, test=one.select(range(7)), validation=one.select(range(6)), unsupervised=one)
        data, about = load_data(None, parts, options)
        np.testing.assert_array_equal(data.test.y, numbers[:7])
        np.testing.assert_array_equal(data.train.y[: data.validation], numbers[:6])
        np.testing.assert_array_equal(data.train.y[6:], numbers)
        assert "split unsupervised: not used" in about.notes
        if "image" in columns:
            np.testing.assert_array_equal(data.test.x, np.asarray(image[1][:7], "float32"))
        assert sorted(np.concatenate([whole.train.y, whole.test.y])) == sorted(numbers)


def test_pictures_are_decoded(hf):
    Image = pytest.importorskip("PIL.Image")
    pixels = RANDOM.integers(0, 255, (N, 6, 6, 3)).astype("uint8")
    one = labelled(hf, np.arange(N) % 3, img=(hf.Image(), [Image.fromarray(each) for each in pixels]))
    parts = hf.DatasetDict(train=one, test=one.select(range(9)))
    np.testing.assert_array_equal(load_data(None, parts, {"divide_by": 255})[0].test.x, pixels[:9])


def test_what_a_dataset_lacks_is_refused(hf):
    image = (hf.Array2D((2, 2), "float32"), np.zeros((N, 2, 2)).tolist())
    unlabelled = labelled(hf, [-1] * 4 + [0, 1] * 28, size=(hf.Value("float32"), list(range(N))))
    cases = [
        (unlabelled, {}, r"4 example\(s\) have no label"),
        (labelled(hf, np.arange(N) % 3, a=image, b=image), {}, "one of arrays and one target"),
        (hf.DatasetDict(test=unlabelled), {}, "has the splits test"),
        (unlabelled, {"sheet": "a"}, "has no sheets"),
        (hf.Dataset.from_pandas(TABLE), {}, "no target column is named"),
        (labelled(hf, np.arange(N) % 3, a=image), {"group": "label"}, "has no columns, so there is no group"),
    ]
    for data, options, said in cases:
        with pytest.raises(BadInput, match=said):
            load_data(None, data, options)
