"""Regions: the shares, shapes and sums of what is dropped, against formulas and enumeration, on the backend of this process."""

import itertools
from math import prod

import keras
import numpy as np
import pytest
from keras import ops
from scipy import ndimage

from keras_dropout import BadInput, Cutout, DropBlock1D, DropBlock2D, DropBlock3D, Dropout, PatchDropout, layers

DROP_BLOCK = {1: DropBlock1D, 2: DropBlock2D, 3: DropBlock3D}


def train(layer, x):
    return ops.convert_to_numpy(layer(x, training=True))


def covering(n, b):
    """For each position of an axis: how many of the places of a block cover it, counted."""
    return np.array([sum(first <= i < first + b for first in range(n - b + 1)) for i in range(n)])


def dropped_share(sizes, blocks, gamma):
    """Expected share of a map that blocks drop whose corners are drawn with probability gamma."""
    covers = [covering(n, b) for n, b in zip(sizes, blocks)]
    return 1 - np.mean([(1 - gamma) ** prod(n) for n in itertools.product(*covers)])


def paper_gamma(sizes, blocks, rate):
    return rate * prod(n / (b * (n - b + 1)) for n, b in zip(sizes, blocks))


def check_share(dropped, expected):
    """`dropped` has one share per independent map."""
    error = dropped.std(ddof=1) / np.sqrt(len(dropped))
    assert abs(dropped.mean() - expected) < 5 * error + 1e-9, f"{dropped.mean():.4f} dropped, expected {expected:.4f}"


def map_shares(layer, sizes, maps=4000):
    """Dropped share of each map of ones, one channel after the other."""
    y = train(layer, np.ones((maps // 4, *sizes, 4), "float32"))
    return (y == 0).mean(axis=tuple(range(1, 1 + len(sizes)))).ravel()


SHAPES = [
    ((14, 14), (7, 7)),
    ((14, 14), (4, 4)),  # even blocks
    ((7, 7), (7, 7)),  # a block is the map
    ((8, 8), (7, 7)),
    ((12, 20), (5, 5)),  # not square
    ((20, 10), (5, 2)),
    ((6, 5), (1, 1)),  # single units
    ((9, 6), (1, 6)),
    ((30,), (7,)),
    ((5,), (5,)),
    ((5, 6, 7), (3, 2, 4)),
]


@pytest.mark.parametrize("rate", [0.1, 0.5])
@pytest.mark.parametrize(("sizes", "blocks"), SHAPES, ids=str)
def test_the_share_dropped_is_the_rate(sizes, blocks, rate):
    check_share(map_shares(DROP_BLOCK[len(sizes)](rate, blocks, seed=1), sizes), rate)


# The values of the catalogue: size of the map, edge of a block, rate, share.
PAPER = [
    ((14, 14), 7, 0.1, 0.09294),
    ((14, 14), 7, 0.3, 0.24329),
    ((14, 14), 4, 0.1, 0.09438),
    ((8, 8), 7, 0.1, 0.09608),
    ((28, 28), 7, 0.1, 0.09394),
    ((12, 20), 5, 0.1, 0.09391),
    ((7, 7), 7, 0.1, 0.1),
]


@pytest.mark.parametrize(("sizes", "edge", "rate", "share"), PAPER, ids=str)
def test_the_papers_gamma_drops_what_its_formula_says(sizes, edge, rate, share):
    assert dropped_share(sizes, (edge, edge), paper_gamma(sizes, (edge, edge), rate)) == pytest.approx(share, abs=1e-5)
    check_share(map_shares(DropBlock2D(rate, edge, gamma="paper", seed=2), sizes), share)


def test_every_block_size_that_fits_has_the_share_of_its_rate():
    """Exactly, by the formula: the gamma that the layer takes from its table, between the table's rates too."""
    for sizes in ((9,), (6, 4), (2, 3, 2)):
        for blocks in itertools.product(*(range(1, n + 1) for n in sizes)):
            table = layers.regions._gamma_table(sizes, blocks, "solved")
            for rate in (0.0001, 0.01, 0.3333, 0.95, 0.9998, 1):
                share = dropped_share(sizes, blocks, np.interp(rate, *table))
                assert share == pytest.approx(rate, abs=1e-4), (sizes, blocks)


@pytest.mark.parametrize(("sizes", "blocks"), SHAPES, ids=str)
def test_what_is_dropped_is_a_union_of_whole_blocks(sizes, blocks):
    """A union of blocks is what is left of it after eroding and dilating by a block, and no block reaches over the border."""
    y = train(DROP_BLOCK[len(sizes)](0.2, blocks, seed=3), np.ones((50, *sizes, 2), "float32"))
    dropped = np.moveaxis(y == 0, -1, 1).reshape(-1, *sizes)
    block = np.ones(blocks, bool)
    for each in dropped:
        np.testing.assert_array_equal(ndimage.binary_opening(each, block), each)
    assert dropped.any()
    assert not dropped.all()


def test_a_single_corner_drops_one_whole_block():
    """At a rate so small that a map has one corner at most, nearly always."""
    y = train(DropBlock2D(0.01, (3, 2), seed=4), np.ones((2000, 9, 8, 1), "float32"))[..., 0]
    counts = (y == 0).sum(axis=(1, 2))
    assert set(counts[counts > 0]) >= {6}
    assert counts[counts > 0].min() == 6
    assert (counts[counts > 0] == 6).mean() > 0.9


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.9])
def test_each_examples_sum_of_ones_is_kept(rate):
    x = np.ones((200, 7, 9, 3), "float32")
    sums = train(DropBlock2D(rate, (3, 4), seed=5), x).astype("float64").sum(axis=(1, 2, 3))
    empty = sums == 0
    np.testing.assert_allclose(sums[~empty], x[0].size, rtol=1e-5)
    assert empty.mean() < 0.1  # an example of which nothing is left stays empty, and finite


def test_an_example_of_which_nothing_is_left_is_zero():
    y = train(DropBlock2D(1, 2, seed=6), np.full((3, 5, 5, 2), 7.0, "float32"))
    np.testing.assert_array_equal(y, np.zeros((3, 5, 5, 2)))
    y = train(DropBlock2D(0.5, 5, shared_channels=True, seed=6), np.ones((400, 5, 5, 2), "float32"))
    assert {float(v) for v in np.unique(y)} == {0.0, 1.0}


def test_examples_do_not_touch_each_other():
    layer, twin = (DropBlock2D(0.3, 3, seed=7) for _ in range(2))
    x = np.random.default_rng(0).uniform(1, 2, (8, 9, 7, 3)).astype("float32")
    other = x.copy()
    other[1:] = 5
    np.testing.assert_array_equal(train(layer, x)[0], train(twin, other)[0])


def test_blocks_of_one_unit_are_dropout():
    """The same draws, unit by unit, with the share that is left in place of its expectation."""
    x = np.ones((100, 6, 5, 4), "float32")
    blocks, units = train(DropBlock2D(0.3, 1, seed=8), x), train(Dropout(0.3, seed=8), x)
    different = ((blocks == 0) != (units == 0)).mean()
    assert different < 1e-3  # gamma is taken from a table
    assert np.abs(blocks[blocks > 0].mean() - 1 / 0.7) < 0.02


@pytest.mark.parametrize("kind", [DropBlock2D, DropBlock3D])
def test_shared_channels_share_and_others_do_not(kind):
    shape = (20, *(6,) * (int(kind.__name__[-2])), 5)
    shared = train(kind(0.3, 2, shared_channels=True, seed=9), np.ones(shape, "float32"))
    assert (shared == shared[..., :1]).all()
    own = train(kind(0.3, 2, seed=9), np.ones(shape, "float32"))
    correlations = np.corrcoef(np.moveaxis(own == 0, -1, 0).reshape(5, -1))
    assert np.abs(correlations - np.eye(5)).max() < 0.2


@pytest.mark.parametrize("name", ["DropBlock1D", "DropBlock2D", "DropBlock3D", "Cutout", "SpatialDropout2D"])
def test_channels_first_follows_the_same_law(name):
    """What is dropped along each spatial axis, in the mean over 4,000 maps, is the same for both formats."""
    sizes = {"DropBlock1D": (9,), "DropBlock3D": (4, 6, 3)}.get(name, (9, 6))
    options = {"Cutout": {"size": (5, 2)}, "SpatialDropout2D": {}}.get(name, {"block_size": (3, 2, 2)[: len(sizes)]})
    kind = getattr(layers, name)
    x = np.ones((1000, *sizes, 4), "float32")
    last = kind(0.4, seed=10, data_format="channels_last", **options)
    first = kind(0.4, seed=11, data_format="channels_first", **options)
    y = (train(last, x) == 0, np.moveaxis(train(first, np.moveaxis(x, -1, 1)) == 0, 1, -1))
    independent = 1000 if name == "Cutout" else 4000  # Cutout's channels share the square
    for axis in range(1, 1 + len(sizes)):
        others = tuple(a for a in range(1 + len(sizes) + 1) if a != axis)
        gap = np.abs(y[0].mean(axis=others) - y[1].mean(axis=others)).max()
        assert gap < 5 * np.sqrt(2 * 0.25 / independent)


def test_a_map_too_small_or_unknown_is_refused():
    with pytest.raises(BadInput, match=r"blocks of \(3, 3\) do not fit a map of \(5, 2\)"):
        DropBlock2D(0.1, 3)(np.ones((1, 5, 2, 1), "float32"), training=True)
    with pytest.raises(BadInput, match="do not fit"):
        DropBlock2D(0.1, 3)(keras.Input((5, 2, 1)))
    with pytest.raises(BadInput, match="size must be known"):
        DropBlock2D(0.1, 3)(keras.Input((None, None, 1)))


# Cutout


def expected_cut(n, size):
    """Mean over all centres of the length of a square inside the image."""
    return np.mean([sum(0 <= i < n for i in range(centre - size // 2, centre - size // 2 + size)) for centre in range(n)])


@pytest.mark.parametrize(
    ("image", "size"), [((32, 32), 16), ((9, 12), (4, 3)), ((7, 5), 9), ((6, 6), 1), ((8, 20), (5, 8))], ids=str
)
def test_cutouts_area_and_shape(image, size):
    y = train(Cutout(1, size=size, seed=1), np.ones((3000, *image, 2), "float32"))
    cut = y == 0
    assert (cut == cut[..., :1]).all()
    cut = cut[..., 0]
    rows, columns = cut.any(axis=2), cut.any(axis=1)
    np.testing.assert_array_equal(cut, rows[:, :, None] & columns[:, None, :])  # a rectangle
    edges = (size, size) if isinstance(size, int) else size
    for profile, n, edge in zip((rows, columns), image, edges):
        lengths = profile.sum(axis=1)
        assert (np.diff(profile.astype(int), axis=1, prepend=0, append=0) == 1).sum(axis=1).max() == 1  # in one piece
        assert lengths.max() <= edge
        assert lengths.min() >= min(n, edge // 2 if edge > 1 else 1)
        assert abs(lengths.mean() - expected_cut(n, edge)) < 5 * lengths.std() / np.sqrt(3000) + 1e-9
    assert set(np.unique(y)) <= {0, 1}  # what is left is not scaled


def test_the_area_of_the_paper():
    assert expected_cut(32, 16) ** 2 / 1024 == pytest.approx(14**2 / 1024)


def test_cutouts_rate_is_the_share_of_images():
    y = train(Cutout(0.3, size=3, seed=2), np.ones((4000, 6, 6, 1), "float32"))
    hit = (y == 0).any(axis=(1, 2, 3)).mean()
    assert abs(hit - 0.3) < 5 * np.sqrt(0.21 / 4000)


def test_cutouts_centres_are_uniform():
    centres = train(Cutout(1, size=1, seed=3), np.ones((20_000, 4, 5, 1), "float32"))[..., 0] == 0
    assert np.abs(centres.mean(axis=0) - 1 / 20).max() < 5 * np.sqrt(1 / 20 / 20_000)


# PatchDropout


def tokens(batch, count):
    """Token t of example b is (b, t)."""
    return np.stack(np.meshgrid(np.arange(batch), np.arange(count), indexing="ij"), -1).astype("float32")


@pytest.mark.parametrize(
    ("patches", "rate", "kept"), [(100, 0.9, 10), (20, 0.9, 2), (1000, 0.9, 100), (196, 0.5, 98), (3, 0.99, 1), (10, 0.0, 10)]
)
def test_patches_are_counted_exactly(patches, rate, kept):
    """Where int(patches * (1 - rate)) truncates: 9 of 100 at rate 0.9."""
    y = train(PatchDropout(rate, prefix=1, seed=1), tokens(2, patches + 1))
    assert y.shape == (2, 1 + kept, 2)


@pytest.mark.parametrize("ordered", [True, False])
@pytest.mark.parametrize("prefix", [0, 1, 3])
def test_patches_are_distinct_tokens_of_their_example(prefix, ordered):
    x = tokens(50, 20 + prefix)
    y = train(PatchDropout(0.4, prefix=prefix, ordered=ordered, seed=2), x)
    np.testing.assert_array_equal(y[:, :prefix], x[:, :prefix])
    example, token = y[..., 0], y[:, prefix:, 1]
    assert (example == np.arange(50)[:, None]).all()
    assert token.min() >= prefix
    assert all(len(set(row)) == 12 for row in token)
    assert (np.diff(token, axis=1) > 0).all() == ordered


def test_each_patch_is_kept_equally_often():
    layer = PatchDropout(0.75, prefix=1, seed=3)
    kept = train(layer, tokens(8000, 17))[:, 1:, 1].astype(int)
    frequency = np.bincount(kept.ravel(), minlength=17)[1:] / 8000
    assert np.abs(frequency - 0.25).max() < 5 * np.sqrt(0.25 * 0.75 / 8000)
    subsets = {tuple(row) for row in kept}
    assert len(subsets) > 1700  # nearly all of the 1,820


def test_patches_need_a_known_number_of_tokens():
    with pytest.raises(BadInput, match="known number of tokens"):
        PatchDropout(0.5)(keras.Input((None, 8)))
    with pytest.raises(BadInput, match="no patch is left"):
        PatchDropout(0.5, prefix=4)(np.ones((1, 4, 2), "float32"), training=True)


def test_a_padding_mask_is_not_lost_in_silence():
    with pytest.raises(BadInput, match="padding mask"):
        PatchDropout(0.5)(keras.layers.Masking()(keras.Input((6, 2))))
