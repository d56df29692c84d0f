"""Every random quantity against the numpy oracle, eager and compiled, and what backward keeps, on the backend of this process."""

import os
import subprocess
import sys
import textwrap
from functools import partial

import keras
import numpy as np
import oracles
import pytest
from keras import ops

from keras_dropout import AlphaDropout, GaussianDropout, backends, noise

BACKEND = keras.backend.backend()
jax_only = pytest.mark.skipif(BACKEND != "jax", reason="about JAX")
tensorflow_only = pytest.mark.skipif(BACKEND != "tensorflow", reason="about TensorFlow")
torch_only = pytest.mark.skipif(BACKEND != "torch", reason="about PyTorch")

SHAPE = (6, 5, 4)
SHARED = (6, 1, 4)
X = np.random.default_rng(0).normal(size=SHAPE).astype("float32")
STATE = oracles.state(20, step=7)


def tensor(state):
    """A state as a stream gives it."""
    return ops.convert_to_tensor(state.view("int32") if BACKEND == "torch" else state)


def quantities(x, state, rate):
    """One of everything that layers use, for inputs of SHAPE."""
    return (
        noise.bernoulli_product(x, state, rate, SHAPE),
        noise.bernoulli_product(x, state, rate, SHARED),
        noise.bernoulli_product(x, noise.fold(state, 3), rate, SHAPE, scaled=False),
        noise.gaussian_product(x, state, rate, SHAPE),
        noise.gaussian_product(x, state, rate, SHARED),
        noise.kept(state, rate, SHAPE),
        noise.uniform(noise.fold(state, 1), SHAPE),
        noise.normal(noise.fold(state, 2), SHAPE),
        noise.logistic(noise.fold(noise.fold(state, 2), 5), SHAPE),
    )


def expected(x, state, rate):
    return (
        oracles.bernoulli_product(x, state, rate, SHAPE),
        oracles.bernoulli_product(x, state, rate, SHARED),
        np.where(oracles.kept(oracles.fold(state, 3), rate, SHAPE), x, 0),
        oracles.gaussian_product(x, state, rate, SHAPE),
        oracles.gaussian_product(x, state, rate, SHARED),
        oracles.kept(state, rate, SHAPE),
        oracles.uniform(oracles.fold(state, 1), SHAPE),
        oracles.normal(oracles.fold(state, 2), SHAPE),
        oracles.logistic(oracles.fold(oracles.fold(state, 2), 5), SHAPE),
    )


def check(found, x, state, rate):
    for number, (ours, theirs) in enumerate(zip(found, expected(x, state, rate), strict=True)):
        ours = ops.convert_to_numpy(ours)
        np.testing.assert_array_equal(ours == 0, theirs == 0, err_msg=f"quantity {number}")
        np.testing.assert_allclose(ours, theirs, rtol=2e-5, atol=2e-6, err_msg=f"quantity {number}")


@pytest.mark.parametrize("rate", [0.0, 0.2, 0.7])
def test_eager_calls_are_those_of_the_oracle(rate):
    check(quantities(ops.convert_to_tensor(X), tensor(STATE), rate), X, STATE, rate)


# JAX: under each of its transformations.


@jax_only
def test_jit_and_scan():
    import jax

    check(jax.jit(quantities)(X, STATE, np.float32(0.3)), X, STATE, 0.3)

    def step(state, x):
        return state + np.array([0, 0, 1], "uint32"), quantities(x, state, np.float32(0.3))

    inputs = np.stack([X, 2 * X, -X])
    _, found = jax.lax.scan(step, jax.numpy.asarray(STATE), inputs)
    for k in range(3):
        check([y[k] for y in found], inputs[k], oracles.state(20, step=7 + k), 0.3)


@jax_only
@pytest.mark.parametrize("over", ["x", "state", "rate"])
def test_vmap(over):
    import jax

    several = {
        "x": [X, 2 * X, -X],
        "state": [oracles.state(20, 7), oracles.state(20, 8), oracles.state(21, 7)],
        "rate": np.array([0.0, 0.25, 0.8], "float32"),
    }
    one = {"x": X, "state": STATE, "rate": np.float32(0.3)}
    arguments = [jax.numpy.asarray(several[name] if name == over else one[name]) for name in one]
    found = jax.vmap(quantities, in_axes=[0 if name == over else None for name in one])(*arguments)
    for k in range(3):
        # What `over` does not decide has no batch of its own in the oracle either: vmap repeats it.
        check([y[k] for y in found], *(several[name][k] if name == over else one[name] for name in one))


@jax_only
def test_gradients_under_vmap_and_scan_are_those_of_the_product():
    import jax

    def loss(x, state, rate):
        return (noise.bernoulli_product(x, state, rate, SHAPE) * X + noise.gaussian_product(x, state, rate, SHAPE)).sum()

    def factor(state, rate):
        return oracles.bernoulli_product(X, state, rate, SHAPE) + oracles.gaussian_product(np.ones(SHAPE), state, rate, SHAPE)

    states = np.stack([oracles.state(3, k) for k in range(4)])
    rate = np.float32(0.4)
    mapped = jax.vmap(jax.grad(loss), in_axes=(None, 0, None))(X, states, rate)
    _, scanned = jax.lax.scan(lambda carry, state: (carry, jax.grad(loss)(X, state, rate)), 0, states)
    for k in range(4):
        np.testing.assert_allclose(mapped[k], factor(states[k], rate), rtol=2e-5, atol=2e-6)
        np.testing.assert_allclose(scanned[k], factor(states[k], rate), rtol=2e-5, atol=2e-6)


def isolated(program, **environment):
    """What a program prints in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)],
        env=os.environ | {"KERAS_BACKEND": BACKEND, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))} | environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


SHARDED = """
    import jax, numpy as np, oracles
    from jax.sharding import AxisType, NamedSharding, PartitionSpec as P
    from keras_dropout import BadInput, layers, noise

    assert jax.device_count() == 4
    x = jax.numpy.asarray(np.random.default_rng(0).normal(size=(8, 6, 3)).astype("float32"))
    state = np.array([5, 6, 7], "uint32")

    def everything(x):
        shapes = [x.shape, (x.shape[0], 1, 3)]
        return [
            *(noise.bernoulli_product(x, state, 0.4, shape) for shape in shapes),
            *(noise.gaussian_product(x, state, 0.4, shape) for shape in shapes),
            *(draw(state, x.shape, x) for draw in (noise.uniform, noise.normal, noise.logistic)),
        ]

    def trained(layer):
        return lambda x: [layer.stateless_call([], [v.value for v in layer.variables], x, training=True)[0]]

    names = {"AlphaDropout": {}, "FeatureAlphaDropout": {}, "ShakeDrop": {}, "StochasticDepth": {}, "PatchDropout": {},
             "DropBlock1D": {"block_size": 2}, "SpatialDropout1D": {}}
    functions = {"noise": everything} | {name: trained(getattr(layers, name)(0.5, seed=1, **more)) for name, more in names.items()}
    meshes = {
        "one axis": (jax.make_mesh((4,), ("rows",), axis_types=(AxisType.Auto,)), P("rows")),
        "two axes": (jax.make_mesh((2, 2), ("a", "b"), axis_types=(AxisType.Auto,) * 2), P(("a", "b"))),
        "one of two": (jax.make_mesh((2, 2), ("a", "b"), axis_types=(AxisType.Auto,) * 2), P("b")),
    }
    for name, function in functions.items():
        alone = function(x)
        for where, (mesh, split) in meshes.items() if name == "noise" else [("one axis", meshes["one axis"])]:
            mapped = jax.jit(jax.shard_map(function, mesh=mesh, in_specs=split, out_specs=split))(x)
            automatic = jax.jit(function)(jax.device_put(x, NamedSharding(mesh, split)))
            for kind, found in (("shard_map", mapped), ("jit of a sharded array", automatic)):
                for k, (a, b) in enumerate(zip(found, alone, strict=True)):
                    np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6, err_msg=f"{name} {k}, {where}, {kind}")

    # Beyond 2**32 positions over all devices, though on none of them. XLA computes only the few that are asked for.
    mesh, split = meshes["one axis"]

    def few(shape):
        def part(one):
            like = jax.numpy.broadcast_to(one, shape)
            return noise.uniform(state, shape, like)[(slice(0, 1), *[slice(0, 50)] * (len(shape) - 1))]

        return jax.jit(jax.shard_map(part, mesh=mesh, in_specs=split, out_specs=split))(np.zeros((4, *[1] * (len(shape) - 1))))

    shape = (2**13, 2**18)
    for device, row in enumerate(few(shape)):
        positions = np.arange(50, dtype=np.uint64) + np.uint64(device * 2**31)
        np.testing.assert_array_equal(row, oracles.draws(state, positions) / 2**24)
    try:
        few((2**31,))
    except BadInput as error:
        assert "2**32 entries; got shape (8589934592,)" in str(error)
    else:
        raise AssertionError("an axis of 2**33 rows over four devices is accepted")
"""


@jax_only
def test_devices_together_draw_what_one_device_draws():
    isolated(SHARDED, XLA_FLAGS="--xla_force_host_platform_device_count=4")


# TensorFlow: in graphs, compiled and not, with a batch of any size.


@tensorflow_only
@pytest.mark.parametrize("compiled", [False, True])
def test_graphs_of_tensorflow(compiled):
    import tensorflow as tf

    check(tf.function(quantities, jit_compile=compiled)(tf.constant(X), tensor(STATE), tf.constant(0.3)), X, STATE, 0.3)


@tensorflow_only
@pytest.mark.parametrize("compiled", [False, True])
def test_a_batch_of_any_size_in_one_graph_of_tensorflow(compiled):
    import tensorflow as tf

    @tf.function(jit_compile=compiled, input_signature=[tf.TensorSpec((None, 5)), tf.TensorSpec(3, tf.uint32)])
    def products(x, state):
        shape = tuple(ops.shape(x))
        return (
            noise.bernoulli_product(x, state, 0.3, shape),
            noise.gaussian_product(x, state, 0.3, shape),
            noise.normal(state, shape),
        )

    for rows in (1, 7, 4):
        x = np.random.default_rng(rows).normal(size=(rows, 5)).astype("float32")
        bernoulli, gaussian, normal = products(tf.constant(x), tensor(STATE))
        np.testing.assert_allclose(bernoulli, oracles.bernoulli_product(x, STATE, 0.3, x.shape), rtol=1e-6)
        np.testing.assert_allclose(gaussian, oracles.gaussian_product(x, STATE, 0.3, x.shape), rtol=2e-5, atol=2e-6)
        np.testing.assert_allclose(normal, oracles.normal(STATE, x.shape), rtol=2e-5, atol=2e-6)
    assert products.experimental_get_tracing_count() == 1


# PyTorch: compiled as eager.


@torch_only
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Dynamo detected a call")
def test_compiled_by_torch():
    import torch

    @torch.compile
    def some(x, state, rate):
        bernoulli = noise.bernoulli_product(x, state, rate, SHARED)
        return bernoulli, noise.gaussian_product(x, state, rate, SHAPE), noise.uniform(noise.fold(state, 1), SHAPE)

    x = torch.tensor(X, requires_grad=True)
    bernoulli, gaussian, uniform = some(x, tensor(STATE), torch.tensor(0.3))
    np.testing.assert_allclose(bernoulli.detach(), oracles.bernoulli_product(X, STATE, 0.3, SHARED), rtol=1e-6)
    np.testing.assert_allclose(gaussian.detach(), oracles.gaussian_product(X, STATE, 0.3, SHAPE), rtol=2e-5, atol=2e-6)
    np.testing.assert_allclose(uniform, oracles.uniform(oracles.fold(STATE, 1), SHAPE), rtol=0, atol=0)
    gaussian.sum().backward()
    np.testing.assert_allclose(x.grad, oracles.gaussian_product(np.ones(SHAPE), STATE, 0.3, SHAPE), rtol=2e-5, atol=2e-6)


# Positions beyond 2**32, of which only a few rows are computed.

WIDE = (2**17, 2**16 + 1)  # 2**33 positions and some; row 65535 goes over 2**32
ROWS = slice(65534, 65538)


def wide_draws():
    return oracles.draws(STATE, np.arange(ROWS.start * WIDE[1], ROWS.stop * WIDE[1], dtype=np.uint64)).reshape(-1, WIDE[1])


@jax_only
def test_positions_do_not_wrap_on_jax():
    import jax

    def few(x):  # XLA moves the slice in front of everything else
        return noise.bernoulli_product(jax.numpy.broadcast_to(x, WIDE), tensor(STATE), 0.5, WIDE)[ROWS]

    np.testing.assert_array_equal(jax.jit(few)(1.0) != 0, wide_draws() >= 2**23)
    with pytest.raises(ValueError, match=r"at most 2\*\*32 entries; got shape \(4294967297,\)\.\nSplit the axis"):
        jax.eval_shape(lambda: noise.uniform(tensor(STATE), (2**32 + 1,)))
    assert jax.eval_shape(lambda: noise.uniform(tensor(STATE), (2**32,))).shape == (2**32,)


@tensorflow_only
def test_positions_do_not_wrap_on_tensorflow():
    import tensorflow as tf

    few = tf.function(lambda: noise.uniform(tensor(STATE), WIDE)[ROWS], jit_compile=True)
    np.testing.assert_array_equal(few(), wide_draws() / 2**24)

    @tf.function(jit_compile=True)
    def few_of_a_batch(rows):  # of a size that is not known beforehand
        return noise.uniform(tensor(STATE), (tf.shape(tf.zeros((rows, 1)))[0], WIDE[1]))[ROWS]

    np.testing.assert_array_equal(few_of_a_batch(WIDE[0]), wide_draws() / 2**24)


@torch_only
def test_positions_do_not_wrap_on_torch():
    block = backends.current()._BLOCK
    for middle in (2**31, 2**32, 3 * 2**32):
        start, stop = middle - block, middle + block + 5
        positions = oracles.draws(STATE, np.arange(start, stop, dtype=np.uint64))
        for draws in (backends.current()._draws_in_blocks, backends.current()._draws_at_once):
            np.testing.assert_array_equal(draws(tensor(STATE), start, stop), positions)


# Types of numbers.

PRECISION = {"float16": 2**-10, "bfloat16": 2**-7, "float32": 2**-22, "float64": 2**-22}  # the scale is made in float32 at least


@pytest.mark.parametrize("kind", [kind for kind in PRECISION if (kind, BACKEND) != ("float64", "jax")])
def test_products_keep_type_mask_and_precision(kind):
    x = ops.cast(ops.convert_to_tensor(X), kind)
    exact = ops.convert_to_numpy(ops.cast(x, "float64" if kind == "float64" else "float32"))
    for product, oracle in (
        (noise.bernoulli_product, oracles.bernoulli_product),
        (noise.gaussian_product, oracles.gaussian_product),
    ):
        y = product(x, tensor(STATE), 0.1, SHAPE)
        assert keras.backend.standardize_dtype(y.dtype) == kind
        y = ops.convert_to_numpy(ops.cast(y, "float64" if kind == "float64" else "float32"))
        np.testing.assert_allclose(y, oracle(exact, STATE, 0.1, SHAPE), rtol=PRECISION[kind], atol=2e-6)


@jax_only
def test_float64_on_jax():
    isolated(
        """
        import jax, numpy as np, oracles
        from keras_dropout import noise
        x = jax.numpy.asarray(np.random.default_rng(0).normal(size=(50, 40)))
        state = oracles.state(1)
        for name in ("bernoulli_product", "gaussian_product"):
            y = getattr(noise, name)(x, jax.numpy.asarray(state), 0.1, x.shape)
            assert y.dtype == "float64"
            np.testing.assert_allclose(y, getattr(oracles, name)(x, state, 0.1, x.shape), rtol=1e-4)  # the noise itself is float32
        """,
        JAX_ENABLE_X64="1",
    )


# What backward keeps. Each test also looks at a dropout that does keep its mask, to show that it would be seen.

BIG = (512, 256)
KEEPS_NOTHING = {
    "bernoulli": lambda: lambda x: noise.bernoulli_product(x, tensor(STATE), 0.2, BIG),
    "gaussian": lambda: lambda x: noise.gaussian_product(x, tensor(STATE), 0.2, BIG),
    "GaussianDropout": lambda: partial(GaussianDropout(0.2, seed=1), training=True),
    "AlphaDropout": lambda: partial(AlphaDropout(0.2, seed=1), training=True),
}
keeps_nothing = pytest.mark.parametrize("name", KEEPS_NOTHING)


@jax_only
@keeps_nothing
def test_backward_keeps_nothing_of_the_inputs_size_on_jax(name):
    import jax

    def kept(function):
        return max(leaf.size for leaf in jax.tree.leaves(jax.vjp(function, jax.numpy.ones(BIG))[1]) if hasattr(leaf, "size"))

    assert kept(KEEPS_NOTHING[name]()) < 10
    assert kept(lambda x: keras.random.dropout(x, 0.2, seed=1)) == BIG[0] * BIG[1]


@torch_only
@keeps_nothing
def test_backward_keeps_nothing_of_the_inputs_size_on_torch(name):
    import torch

    def kept(function):
        sizes = []
        with torch.autograd.graph.saved_tensors_hooks(lambda t: sizes.append(t.numel()) or t, lambda t: t):
            function(torch.ones(BIG, requires_grad=True))
        return max(sizes)

    assert kept(KEEPS_NOTHING[name]()) < 10
    assert kept(lambda x: torch.nn.functional.dropout(x, 0.2)) == BIG[0] * BIG[1]


@tensorflow_only
@keeps_nothing
def test_backward_keeps_nothing_of_the_inputs_size_on_tensorflow(name):
    """Of a graph's tensors, those that its backward takes from its forward."""
    import tensorflow as tf

    def kept(make):
        function = make()  # layers make their variables outside of a graph

        @tf.function
        def step(x, upstream):
            with tf.GradientTape() as tape:
                tape.watch(x)
                y = function(x)
            with tf.name_scope("backward"):
                return y, tape.gradient(y, x, upstream)

        graph = step.get_concrete_function(tf.TensorSpec(BIG), tf.TensorSpec(BIG)).graph
        _, upstream = graph.inputs[:2]
        backward = [op for op in graph.get_operations() if op.name.startswith(("backward", "gradient"))]
        given = {t.ref() for op in backward for t in op.inputs if t.op not in backward} - {upstream.ref()}
        return max((t.deref().shape.num_elements() or 0 for t in given), default=0)

    assert kept(KEEPS_NOTHING[name]) < 10
    assert kept(lambda: lambda x: tf.nn.dropout(x, 0.2)) == BIG[0] * BIG[1]
