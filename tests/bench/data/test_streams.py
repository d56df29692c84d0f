"""Streams of batches: the same examples in each pass, in any order, or a refusal whose way out works."""

import keras
import numpy as np
import pytest

from keras_dropout import BadInput
from keras_dropout.bench.compare import make_plan
from keras_dropout.bench.data.dataset import from_arrays

L = keras.layers
_rng = np.random.default_rng(0)
X = _rng.random((103, 4, 4, 1)).astype("float32")
Y = _rng.integers(0, 3, 103)
TEST = (X[:20], Y[:20])


class Batches(keras.utils.PyDataset):
    """103 examples in seven batches; `change` is called with each batch, and `at_end` after each epoch."""

    def __init__(self, change=lambda x, y: (x, y), at_end=lambda self: None):
        super().__init__()
        self.change, self.at_end, self.order = change, at_end, np.arange(103)

    def __len__(self):
        return 7

    def __getitem__(self, number):
        rows = self.order[number * 15 : number * 15 + 15]
        return self.change(X[rows], Y[rows])

    def on_epoch_end(self):
        self.at_end(self)


def tf_stream(act):
    def make():
        tf = pytest.importorskip("tensorflow")
        tf.random.set_seed(None)  # with a seed of the whole program, as other tests set one, each pass would draw the same
        return act(tf, tf.data.Dataset.from_tensor_slices((X, Y)))

    return make


def loader(change=lambda x: x, **options):
    def make():
        torch = pytest.importorskip("torch")

        class Examples(torch.utils.data.Dataset):
            def __len__(self):
                return 103

            def __getitem__(self, number):
                return change(torch.tensor(X[number])), int(Y[number])

        return torch.utils.data.DataLoader(Examples(), batch_size=15, **options)

    return make


def flip(x):
    return x.flip(0) if _rng.random() < 0.5 else x


def rotated():
    from keras.src.legacy.preprocessing.image import ImageDataGenerator  # as many programs still have it

    return ImageDataGenerator(rotation_range=40).flow(X, Y, 15, seed=1)


SAME = {
    "in order": Batches,
    "shuffled after each epoch": lambda: Batches(at_end=lambda self: _rng.shuffle(self.order)),
    "tf in order": tf_stream(lambda tf, data: data.batch(15)),
    "tf shuffled": tf_stream(lambda tf, data: data.shuffle(103).batch(15)),
    "tf shuffled single examples": tf_stream(lambda tf, data: data.shuffle(103)),
    "tf changed in the same way": tf_stream(lambda tf, data: data.map(lambda x, y: (1 - x, y)).batch(15)),
    "torch in order": loader(),
    "torch shuffled": loader(shuffle=True),
}
OTHER = {
    "noise on the inputs": lambda: Batches(lambda x, y: (x + _rng.normal(size=x.shape), y)),
    "noise on the targets": lambda: Batches(lambda x, y: (x, np.where(_rng.random(len(y)) < 0.2, 0, y))),
    "pairs of inputs and targets": lambda: Batches(lambda x, y: (x, _rng.permutation(y))),
    "drawn after each epoch": lambda: Batches(at_end=lambda self: setattr(self, "order", _rng.choice(103, 103))),
    "weights": lambda: Batches(lambda x, y: (x, y, _rng.random(len(y)))),
    "another type": lambda: Batches(at_end=lambda self: setattr(self, "change", lambda x, y: (x.astype("float64"), y))),
    "fewer": lambda: Batches(at_end=lambda self: setattr(self, "order", self.order[:-1])),
    "tf augmentation": tf_stream(lambda tf, data: data.map(lambda x, y: (tf.image.random_brightness(x, 0.3), y)).batch(15)),
    "tf shuffled, the rest dropped": tf_stream(lambda tf, data: data.shuffle(103).batch(15, drop_remainder=True)),
    "torch augmentation": loader(flip),
    "torch shuffled, the rest dropped": loader(shuffle=True, drop_last=True),
    "an image generator": rotated,
}


def ordered(data):
    order = np.lexsort(data.train.x.reshape(103, -1).T)
    return data.train.x[order], data.train.y[order]


@pytest.mark.parametrize("name", SAME)
def test_another_order_is_the_same_data(name):
    (x, y), (x_again, y_again) = (ordered(from_arrays((make(), TEST), rank=4)) for make in (SAME[name], SAME[name]))
    np.testing.assert_array_equal(x, x_again)
    np.testing.assert_array_equal(y, y_again)
    assert set(map(float, x.ravel())) in (set(map(float, X.ravel())), set(map(float, (1 - X).ravel())))


@pytest.mark.parametrize("part", ["training", "test"])
@pytest.mark.parametrize("name", OTHER)
def test_other_examples_in_a_second_pass_are_refused(name, part):
    stream = OTHER[name]()
    with pytest.raises(BadInput, match=r"in each pass|in a pass and") as refused:
        from_arrays((stream, TEST) if part == "training" else (TEST, stream), rank=4)
    assert len(str(refused.value).splitlines()) == 2
    if name == "fewer":
        assert "103 examples in a pass and 102 in the next" in str(refused.value)


@pytest.mark.parametrize("stream", [lambda: ((X, Y) for _ in range(3)), lambda: iter([(X, Y)]), lambda: zip(X, Y)])
def test_what_can_be_read_once_is_refused(stream):
    with pytest.raises(BadInput, match="gives its examples only once"):
        from_arrays((stream(), TEST))


@pytest.mark.parametrize("make", SAME.values(), ids=SAME)
def test_a_stream_in_the_place_of_an_array_is_refused(make):
    with pytest.raises(BadInput, match="where an array is expected"):
        from_arrays((make(), Y), rank=4)
    for data in (make(), (make(), make()), (make(), (X, Y))):  # the ways out
        assert from_arrays(data, rank=4).train.x.shape[1:] == X.shape[1:]


def test_the_way_out_works(tmp_path):
    """The refused augmentation as a layer, with the stream left as it is or as arrays: each step then draws anew."""
    model = keras.Sequential([keras.Input((4, 4, 1)), L.RandomFlip(), L.Flatten(), L.Dense(8, "relu"), L.Dense(3, "softmax")])
    model.compile("sgd", "sparse_categorical_crossentropy")
    for train in (Batches(), (X, Y)):
        plan = make_plan(model, (train, TEST), ledger=tmp_path / "r.db", engine="compiled", backend="jax")
        np.testing.assert_array_equal(ordered(plan.data)[0], X[np.lexsort(X.reshape(103, -1).T)])
    flipped = [keras.ops.convert_to_numpy(model.layers[0](X, training=True)) for _ in range(2)]
    assert not np.array_equal(*flipped)
