"""The laws of DropEdge, on the backend of this process."""

import numpy as np
import pytest
from keras import ops

from keras_dropout import BadInput, DropEdge, Dropout

RNG = np.random.default_rng(0)
NODES = 30
GRAPHS = RNG.uniform(1, 2, (200, NODES, NODES)).astype("float32") * (RNG.random((200, NODES, NODES)) < 0.4)
GRAPHS = np.triu(GRAPHS, 1) + np.triu(GRAPHS, 1).transpose(0, 2, 1) + 3 * np.eye(NODES, dtype="float32")
EDGE = np.triu(GRAPHS, 1) > 0


def numpy(x):
    return ops.convert_to_numpy(x)


def normalized(edges, normalize):
    degrees = edges.sum(axis=-1, keepdims=True)
    return {"symmetric": edges / np.sqrt(degrees * degrees.swapaxes(-1, -2)), "row": edges / degrees, "none": edges}[normalize]


def test_edges_go_in_both_directions_and_self_loops_stay():
    y = numpy(DropEdge(0.4, normalize="none", seed=1)(GRAPHS, training=True))
    np.testing.assert_array_equal(y, y.transpose(0, 2, 1))
    np.testing.assert_array_equal(np.einsum("bii->bi", y), 3)
    np.testing.assert_array_equal(y, np.where(y != 0, GRAPHS, 0))


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.9])
def test_the_share_of_dropped_edges(rate):
    y = numpy(DropEdge(rate, normalize="none", seed=2)(GRAPHS, training=True))
    dropped = (y[EDGE] == 0).mean()
    assert abs(dropped - rate) < 5 * np.sqrt(rate * (1 - rate) / EDGE.sum())


def test_each_graph_loses_edges_of_its_own():
    full = np.ones((2, 40, 40), "float32")
    first, second = numpy(DropEdge(0.5, normalize="none", seed=3)(full, training=True))
    upper = np.triu_indices(40, 1)
    agree = (first[upper] == second[upper]).mean()
    assert abs(agree - 0.5) < 5 * np.sqrt(0.25 / len(upper[0]))


@pytest.mark.parametrize("normalize", ["symmetric", "row"])
def test_what_is_left_is_normalised_by_its_own_degrees(normalize):
    left = numpy(DropEdge(0.4, normalize="none", seed=4)(GRAPHS, training=True))
    y = numpy(DropEdge(0.4, normalize=normalize, seed=4)(GRAPHS, training=True))
    np.testing.assert_allclose(y, normalized(left, normalize), rtol=1e-5)
    np.testing.assert_allclose(numpy(DropEdge(0.4, normalize=normalize)(GRAPHS)), normalized(GRAPHS, normalize), rtol=1e-5)
    if normalize == "row":
        np.testing.assert_allclose(y.sum(axis=-1), 1, rtol=1e-5)
    else:
        # D^(1/2) 1 is an eigenvector of eigenvalue 1.
        root = np.sqrt(left.sum(axis=-1, keepdims=True))
        np.testing.assert_allclose(y @ root, root, rtol=1e-5)


@pytest.mark.parametrize("normalize", ["symmetric", "row", "none"])
def test_a_node_without_edges_has_zeros(normalize):
    graph = np.array([[0, 1, 0], [1, 0, 0], [0, 0, 0]], "float32")
    np.testing.assert_array_equal(numpy(DropEdge(0.0, normalize=normalize)(graph, training=True)), graph)
    np.testing.assert_array_equal(numpy(DropEdge(1.0, normalize=normalize)(graph, training=True)), 0 * graph)


def test_rate_one_leaves_the_self_loops():
    y = numpy(DropEdge(1.0, seed=5)(GRAPHS, training=True))
    np.testing.assert_allclose(y, np.broadcast_to(np.eye(NODES), y.shape), rtol=1e-6)


def test_one_graph_without_a_batch():
    one = numpy(DropEdge(0.5, seed=6)(GRAPHS[0], training=True))
    np.testing.assert_allclose(one, one.T, rtol=1e-6)


@pytest.mark.parametrize("shape", [(4,), (2, 3, 4), (1, 2, 3, 3)], ids=str)
def test_what_is_no_adjacency_matrix_is_refused(shape):
    with pytest.raises(BadInput, match="DropEdge: inputs must be adjacency matrices"):
        DropEdge(0.5)(np.ones(shape, "float32"), training=True)


def test_nodes_edges_and_messages_are_dropped_by_noise_shapes():
    """DropNode and DropEdge as cases of DropMessage: element by element, with the draws of a node or of an edge shared."""
    messages = np.ones((2, 40, 40, 6), "float32")  # from node j to node i

    def kept(noise_shape):
        return ops.convert_to_numpy(Dropout(0.3, noise_shape, seed=1)(messages, training=True)) != 0

    for noise_shape, shared in ((None, ()), ((None, None, None, 1), (3,)), ((None, 1, None, 1), (1, 3))):
        found = kept(noise_shape)
        for axis in range(4):
            assert (found == found.take([0], axis)).all() == (axis in shared)
        draws = found.take([0], 1) if 1 in shared else found
        assert abs(found.mean() - 0.7) < 5 * np.sqrt(0.21 * (6 if 3 in shared else 1) / draws.size)
