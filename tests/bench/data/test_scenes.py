"""Scenes of real garments: what they hold, and that their answers are where the garments are."""

import numpy as np
import pytest

from keras_dropout.bench.data import scenes
from keras_dropout.bench.data.public_sets import GARMENTS, fashion_mnist
from keras_dropout.errors import BadInput

TASKS = (scenes.segmentation, scenes.boxes, scenes.keypoints)


@pytest.fixture(scope="module")
def garments():
    return fashion_mnist()


@pytest.fixture(scope="module", autouse=True)
def read_once(garments):
    """Fashion-MNIST takes a second to read."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scenes, "fashion_mnist", lambda data_dir: garments)
        yield


@pytest.fixture(scope="module", params=TASKS, ids=lambda task: task.__name__)
def task(request):
    return request.param


@pytest.fixture(scope="module")
def segments(read_once):
    return scenes.segmentation(train=200, test=50)


@pytest.fixture(scope="module")
def pieces(garments):
    def found(role, number, target=None):
        random = np.random.default_rng([0, ("train", "test").index(role)])
        return list(scenes._scenes(role, garments, number, 40, target, random))

    return found


def test_shapes_and_values(task):
    found = task(train=30, test=20, size=48)
    width = {scenes.segmentation: (48, 48), scenes.boxes: (4,), scenes.keypoints: (8,)}[task]
    for part, number in ((found.train, 30), (found.test, 20)):
        assert (part.x.shape, part.x.dtype) == ((number, 48, 48, 1), np.uint8)
        assert part.y.shape == (number, *width)
    assert (found.validation, found.divide_by) == (3, 255)
    if task is not scenes.segmentation:
        assert found.train.y.dtype == np.float32
        assert 0 < found.train.y.min() < found.train.y.max() <= 1


def test_the_same_seed_gives_the_same_scenes_and_more_of_them(task):
    few, more, other = task(train=20, test=10), task(train=30, test=15), task(train=20, test=10, seed=1)
    assert few.fingerprint() == more.first(20, 10).fingerprint()
    np.testing.assert_array_equal(few.train.x, more.train.x[:20])
    np.testing.assert_array_equal(few.test.y, more.test.y[:10])
    assert (few.train.x != other.train.x).any()


def test_every_pixel_has_one_of_eleven_classes(segments):
    assert segments.classes == ("background", *GARMENTS)
    assert np.unique(segments.train.y).tolist() == list(range(11))
    there = [len(np.unique(y)) - 1 for y in segments.train.y]
    assert set(there) == {1, 2, 3}  # two may be of one class
    assert 0.6 < (segments.train.y == 0).mean() < 0.9


def test_garments_are_brighter_than_what_is_behind_them(segments):
    """The map is that of the picture: shifted by some pixels it says much less of it."""

    def contrast(y):
        garments = y > 0
        return segments.train.x[..., 0][garments].mean() - segments.train.x[..., 0][~garments].mean()

    assert contrast(segments.train.y) > 60
    for axis in (1, 2):
        assert contrast(np.roll(segments.train.y, 10, axis)) < 0.5 * contrast(segments.train.y)


def test_brightness_alone_does_not_solve_it(segments):
    """The best threshold mistakes some pixels, and classes are not to be told by brightness."""
    x, y = segments.train.x[..., 0], segments.train.y > 0
    errors = [((x > threshold) != y).mean() for threshold in range(0, 256, 8)]
    assert min(errors) > 0.03


def test_no_garment_is_in_two_scenes_or_in_both_parts(garments, pieces):
    """Every garment in a scene is one of the published images of its part and class, at each pixel."""
    for target in (None, "Bag"):
        for role in ("train", "test"):
            images, labels = getattr(garments, role)[:2]
            for scene in pieces(role, 3, target):
                for piece in scene:
                    rows = np.arange(len(piece.pixels)) * 28 // len(piece.pixels)
                    middle = len(rows) // 2  # one row leaves few to be compared
                    alike = np.flatnonzero((images[:, rows[middle]][:, rows] == piece.pixels[middle]).all(axis=1))
                    same = alike[(images[alike][:, rows][:, :, rows] == piece.pixels).all(axis=(1, 2))]
                    assert labels[same].tolist() == [piece.label]
    used = [piece.pixels.tobytes() for scene in pieces("train", 500) for piece in scene]
    assert len(set(used)) == len(used)


@pytest.mark.parametrize("target", ["Bag", "Ankle boot"])
def test_there_is_one_target_and_nothing_covers_it(pieces, target):
    number = GARMENTS.index(target)
    for scene in pieces("train", 100, target):
        assert len(scene) in (2, 3)
        assert [piece.label == number for piece in scene] == [False] * (len(scene) - 1) + [True]


def test_garments_overlap_little(pieces):
    """Of all garments' pixels together less than a tenth lies on others; at the first place drawn it would be more."""

    def covered(tries):
        scenes._TRIES, before = tries, scenes._TRIES
        try:
            found = pieces("train", 200)
        finally:
            scenes._TRIES = before
        lost = total = 0
        for scene in found:
            counts = np.zeros((40, 40), int)
            for piece in scene:
                counts[piece.area()] += piece.solid
                total += piece.solid.sum()
            lost += np.maximum(counts - 1, 0).sum()
        return lost / total

    assert covered(scenes._TRIES) < 0.1 < covered(1)


def silhouettes(garments, task, number, target):
    """(answers, the target's pixels as (scene, 40, 40) bool) of the first training scenes, from the scenes' own drawing order."""
    found = task(train=number, test=1, target=target)
    random = np.random.default_rng([0, 0])
    masks = np.zeros((number, 40, 40), bool)
    for mask, scene in zip(masks, scenes._scenes("train", garments, number, 40, target, random)):
        scenes._drawn(scene, 40, random)
        mask[scene[-1].area()] = scene[-1].solid
    return found.train.y * 40, masks


def test_a_box_is_the_tightest_around_its_target(garments):
    for (x, y, width, height), mask in zip(*silhouettes(garments, scenes.boxes, 40, "Sneaker")):
        left, right, top, bottom = np.round([x - width / 2, x + width / 2, y - height / 2, y + height / 2], 3)
        rows, columns = mask.any(axis=1), mask.any(axis=0)
        assert [left, right] == [columns.argmax(), 40 - columns[::-1].argmax()]
        assert [top, bottom] == [rows.argmax(), 40 - rows[::-1].argmax()]


def test_keypoints_are_the_ends_of_the_silhouette(garments):
    for points, mask in zip(*silhouettes(garments, scenes.keypoints, 40, "Ankle boot")):
        rows, columns = np.nonzero(mask)
        (top, lowest, leftmost, rightmost) = points.reshape(4, 2)
        np.testing.assert_allclose([top[1], lowest[1]], [rows.min() + 0.5, rows.max() + 0.5], atol=1e-4)
        np.testing.assert_allclose([leftmost[0], rightmost[0]], [columns.min() + 0.5, columns.max() + 0.5], atol=1e-4)
        assert columns[rows == rows.min()].mean() + 0.5 == pytest.approx(top[0], abs=1e-4)
        assert rows[columns == columns.max()].mean() + 0.5 == pytest.approx(rightmost[1], abs=1e-4)


@pytest.mark.parametrize(
    "wrong",
    [{"train": 1}, {"test": 0}, {"train": 10**6}, {"test": 1.5}, {"size": 20}, {"seed": -1}],
)
def test_what_cannot_be_is_refused(task, wrong):
    with pytest.raises(BadInput) as caught:
        task(**{"train": 20, "test": 10, **wrong})
    assert str(caught.value).startswith(next(iter(wrong)))
    assert len(str(caught.value).splitlines()) == 2


def test_an_unknown_target_and_too_many_of_one_are_refused():
    for wrong in ({"target": "Hat"}, {"train": 6001}, {"test": 1001}):
        with pytest.raises(BadInput, match=next(iter(wrong))):
            scenes.boxes(**{"train": 20, "test": 10, **wrong})
