"""Layers that drop paths: residual branches, whole layers, edges of a graph."""

from typing import Any

import keras
from keras import ops
from keras.src.backend.common.masking import get_keras_mask, set_keras_mask  # they have no public names

from keras_dropout import noise
from keras_dropout.errors import check_choice, check_flag, check_range, check_rate, check_whole, refuse
from keras_dropout.layers.base import MaskLayer, MaskWrapper, Stochastic, check_floating, check_tensor

__all__ = ["DropEdge", "DropPath", "LayerDrop", "ScheduledDropPath", "ShakeDrop", "ShakeShake", "StochasticDepth", "linear_decay"]

_MODES = ("row", "batch")


class _PathLayer(MaskLayer):
    """A layer with one draw per example ("row") or one for all of them ("batch")."""

    in_config: tuple[str, ...] = ("mode",)

    def __init__(self, rate: float, *, mode: str = "row", seed: int | None = None, **kwargs: Any):
        super().__init__(rate, seed=seed, **kwargs)
        self.mode = check_choice(f"mode for {type(self).__name__}", mode, _MODES)

    def mask_shape(self, shape: tuple) -> tuple:
        return (shape[0] if self.mode == "row" else 1,) + (1,) * (len(shape) - 1)


@keras.saving.register_keras_serializable("keras_dropout")
class StochasticDepth(_PathLayer):
    """Drop a residual branch at random in training; put it behind the branch, before the sum.

        y = f * m / (1 - rate),    m ~ Bernoulli(1 - rate), one draw per example or one per batch;    block: x + y

    Shapes:        any shape -> the same.
    Inference:     y = f.
    Arguments:     rate: fraction of branches dropped, in [0, 1]. mode: "row", a draw per example, or "batch". seed: whole number.
    Source:        Huang et al. 2016, arXiv:1603.09382. Usual rates rise with depth: see linear_decay.
    Differs from:  the paper by scaling in training instead of at inference, as timm and torchvision do, and by its default of
                   one draw per example (the paper draws per batch). Also named `DropPath`, and "drop connect" by EfficientNet.

    >>> y = StochasticDepth(0.5, seed=0)(np.ones((6, 3), "float32"), training=True)
    >>> {tuple(float(v) for v in row) for row in np.asarray(y)} == {(0.0, 0.0, 0.0), (2.0, 2.0, 2.0)}
    True
    """


DropPath = StochasticDepth


@keras.saving.register_keras_serializable("keras_dropout")
class ScheduledDropPath(_PathLayer):
    """Drop paths with a rate that grows linearly over training.

        y = f * m / (1 - r),    r = rate * min(1, step / steps),    m ~ Bernoulli(1 - r)

    Shapes:        any shape -> the same.
    Inference:     y = f.
    Arguments:     rate: the last fraction of paths dropped, in [0, 1]. steps: of training, until then. mode, seed: as in DropPath.
    Source:        Zoph et al. 2018, arXiv:1707.07012.
    Differs from:  NASNet's published code in that the rate depends on time only; multiply it by (cell + 1) / cells for the
                   code's default. The step is the layer's own count of training calls, saved with the model.

    >>> layer = ScheduledDropPath(1.0, steps=2, seed=0)
    >>> [float(np.asarray(layer(np.ones((1, 1), "float32"), training=True)).sum()) for _ in range(3)][0::2]
    [1.0, 0.0]
    """

    in_config = ("steps",)

    def __init__(self, rate: float, steps: int, *, mode: str = "row", seed: int | None = None, **kwargs: Any):
        super().__init__(rate, mode=mode, seed=seed, **kwargs)
        self.steps = check_whole("ScheduledDropPath: steps", steps, 1, "It is the number of training steps until the full rate.")

    def drop(self, inputs: Any, state: Any) -> Any:
        progress = ops.minimum(ops.cast(state[2], "float32") / self.steps, 1)
        rate = ops.convert_to_tensor(self.state.rate) * progress
        return noise.bernoulli_product(inputs, state, rate, self.mask_shape(tuple(ops.shape(inputs))))


@keras.saving.register_keras_serializable("keras_dropout")
class ShakeDrop(_PathLayer):
    """Scale a residual branch by a random factor in training, and its gradient by another one.

        y = (b + a - b a) f,    dy/df = b + c - b c,    b ~ Bernoulli(1 - rate), a ~ U(alpha), c ~ U(beta)

    Shapes:        any shape -> the same.
    Inference:     y = (q + (1 - q) E[a]) f with q = 1 - rate, the mean of the training outputs.
    Arguments:     rate: probability in [0, 1] that a branch is shaken; 0.5 in the last block of the paper, linear in depth. alpha,
                   beta: ranges of the forward and backward factors. mode, seed: as in StochasticDepth.
    Source:        Yamada et al. 2018, arXiv:1802.02375. Put it behind the last batch normalisation of the branch.
    Differs from:  the usual code, which draws b once per batch and multiplies by 1 - rate at inference: right only if E[a] = 0.

    >>> float(np.asarray(ShakeDrop(0.5)(np.ones((1, 1), "float32"))).sum())
    0.5
    """

    in_config = ("alpha", "beta")

    def __init__(
        self,
        rate: float,
        *,
        alpha: tuple[float, float] = (-1.0, 1.0),
        beta: tuple[float, float] = (0.0, 1.0),
        mode: str = "row",
        seed: int | None = None,
        **kwargs: Any,
    ):
        super().__init__(rate, mode=mode, seed=seed, **kwargs)
        what, fix = "finite numbers, low and high", "The paper's are (-1, 1) and (0, 1)."
        self.alpha = check_range("ShakeDrop: alpha", alpha, what, fix)
        self.beta = check_range("ShakeDrop: beta", beta, what, fix)

    def call(self, inputs: Any, training: bool = False) -> Any:
        self.check_inputs(inputs)
        if training:
            return self.drop(inputs, self.stream.next())
        shaken = ops.convert_to_tensor(self.state.rate)
        return inputs * ops.cast(1 - shaken + shaken * sum(self.alpha) / 2, inputs.dtype)

    def drop(self, inputs: Any, state: Any) -> Any:
        shape = self.mask_shape(tuple(ops.shape(inputs)))
        whole = noise.kept(noise.fold(state, 0), self.state.rate, shape, inputs)
        forward, backward = (
            ops.cast(ops.where(whole, 1.0, low + (high - low) * noise.uniform(noise.fold(state, k), shape, inputs)), inputs.dtype)
            for k, (low, high) in enumerate((self.alpha, self.beta), start=1)
        )
        return ops.stop_gradient(inputs * (forward - backward)) + inputs * backward


@keras.saving.register_keras_serializable("keras_dropout")
class ShakeShake(Stochastic, keras.Layer):
    """Mix two residual branches by a random weight in training, and their gradients by another one.

        y = a f1 + (1 - a) f2,    dy/df1 = b,  dy/df2 = 1 - b,    a, b ~ U(0, 1), independent

    Shapes:        [f1, f2] of one shape -> that shape; or both of a grouped convolution, (batch, 2, ...) -> (batch, ...).
    Inference:     y = (f1 + f2) / 2.
    Arguments:     mode: "row", draws per example, the paper's best, or "batch". seed: whole number.
    Source:        Gastaldi 2017, arXiv:1705.07485.
    Differs from:  nothing in the paper. There is no rate: the range of the weights is the method.

    >>> f = np.ones((4, 3), "float32")
    >>> y = np.asarray(ShakeShake(seed=0)([f, 0 * f], training=True))
    >>> bool((y == y[:, :1]).all() and (0 <= y).all() and (y < 1).all()), len(set(y[:, 0].tolist()))
    (True, 4)
    """

    in_config = ("mode",)

    def __init__(self, *, mode: str = "row", seed: int | None = None, **kwargs: Any):
        super().__init__(**kwargs)
        self.start(seed)
        self.mode = check_choice("mode for ShakeShake", mode, _MODES)
        self._build_at_init()

    def call(self, inputs: Any, training: bool = False) -> Any:
        branches = list(inputs) if isinstance(inputs, (list, tuple)) else [inputs]
        check_floating("ShakeShake", *branches)
        shapes = [tuple(branch.shape) for branch in branches]
        self.compute_output_shape(shapes if isinstance(inputs, (list, tuple)) else shapes[0])
        first, second = branches if len(branches) == 2 else (inputs[:, 0], inputs[:, 1])
        if not training:
            return (first + second) / 2
        state = self.stream.next()
        shape = (ops.shape(first)[0] if self.mode == "row" else 1,) + (1,) * (len(first.shape) - 1)
        forward, backward = (ops.cast(noise.uniform(noise.fold(state, k), shape), first.dtype) for k in range(2))
        gap = first - second
        return ops.stop_gradient((forward - backward) * gap) + second + backward * gap

    def compute_output_shape(self, input_shape: Any) -> tuple:
        if input_shape and isinstance(input_shape[0], (list, tuple)):
            if len(input_shape) == 2 and len({tuple(shape) for shape in input_shape}) == 1:
                return tuple(input_shape[0])
        elif len(input_shape) > 1 and input_shape[1] == 2:
            return (input_shape[0], *input_shape[2:])
        shown = [tuple(shape) if isinstance(shape, (list, tuple)) else shape for shape in input_shape]
        refuse(
            f"ShakeShake: inputs must be two branches of one shape; got shape {shown}.",
            "Call it on [f1, f2], or on one tensor (batch, 2, ...).",
        )

    def compute_mask(self, inputs: Any, mask: Any = None) -> Any:
        return next((m for m in mask if m is not None), None) if isinstance(mask, (list, tuple)) else None


@keras.saving.register_keras_serializable("keras_dropout")
class DropEdge(MaskLayer):
    """Remove random edges from a graph's adjacency matrix in training, and normalise the rest.

        y = D^(-1/2) (A * m) D^(-1/2),    D = degrees of A * m,    m_ij = m_ji ~ Bernoulli(1 - rate), m_ii = 1

    Shapes:        (batch, nodes, nodes) or (nodes, nodes), dense, with or without weights -> the same.
    Inference:     y = D^(-1/2) A D^(-1/2): all edges, normalised in the same way.
    Arguments:     rate: fraction of edges dropped, in [0, 1]; 1 leaves the self-loops. normalize: "symmetric" as above,
                   "row" for D^(-1) (A * m), or "none", where another layer does it. seed: whole number.
    Source:        Rong et al. 2020, arXiv:1907.10903. Add the identity to A first, as graph convolutions do. To drop nodes
                   (DropNode, Do et al. 2020, arXiv:2008.12578) use Dropout with noise_shape (None, None, 1) on the features,
                   (batch, nodes, features); to drop messages (DropMessage, Fang et al. 2022, arXiv:2204.10037), of which edges
                   and nodes are cases, Dropout on (batch, nodes, nodes, features), with 1 in noise_shape for what is shared.
    Differs from:  PyTorch Geometric's dropout_edge: the shape stays (a shorter edge list would change every compiled program),
                   both directions of an undirected edge are dropped together, and self-loops are neither dropped nor doubled. A
                   node without edges gets zeros, not nan. In a directed graph i -> j and j -> i are dropped together.

    >>> y = np.asarray(DropEdge(0.5, normalize="none", seed=0)(np.ones((6, 6), "float32"), training=True))
    >>> bool((y == y.T).all()), float(np.diag(y).sum())
    (True, 6.0)
    """

    in_config = ("normalize",)

    def __init__(self, rate: float, *, normalize: str = "symmetric", seed: int | None = None, **kwargs: Any):
        super().__init__(rate, seed=seed, **kwargs)
        self.normalize = check_choice("normalize for DropEdge", normalize, ("symmetric", "row", "none"))

    def check_inputs(self, inputs: Any) -> None:
        super().check_inputs(inputs)
        if len(inputs.shape) not in (2, 3) or inputs.shape[-1] != inputs.shape[-2]:
            refuse(
                f"DropEdge: inputs must be adjacency matrices, (batch, nodes, nodes); got shape {tuple(inputs.shape)}.",
                "Entry (i, j) is the weight of the edge between the nodes i and j, 0 where there is none.",
            )

    def call(self, inputs: Any, training: bool = False) -> Any:
        self.check_inputs(inputs)
        return self._normalized(self.drop(inputs, self.stream.next()) if training else inputs)

    def drop(self, inputs: Any, state: Any) -> Any:
        shape = tuple(ops.shape(inputs))
        drawn = noise.kept(state, self.state.rate, shape)
        row, column = (ops.expand_dims(ops.arange(shape[-1]), axis) for axis in (1, 0))
        kept = ops.where(row < column, drawn, ops.swapaxes(drawn, -1, -2))
        return ops.where(ops.logical_or(kept, row == column), inputs, ops.zeros((), inputs.dtype))

    def _normalized(self, edges: Any) -> Any:
        if self.normalize == "none":
            return edges
        weights = ops.cast(edges, keras.backend.result_type(edges.dtype, "float32"))
        degrees = ops.sum(weights, axis=-1, keepdims=True)
        linked = degrees > 0
        degrees = ops.where(linked, degrees, ops.ones((), weights.dtype))
        if self.normalize == "row":
            return ops.cast(weights / degrees, edges.dtype)
        scale = ops.where(linked, ops.rsqrt(degrees), ops.zeros((), weights.dtype))
        return ops.cast(weights * scale * ops.swapaxes(scale, -1, -2), edges.dtype)


@keras.saving.register_keras_serializable("keras_dropout")
class LayerDrop(MaskWrapper):
    """Skip a whole layer at random in training.

        y = layer(x) with probability 1 - rate, else x;    one draw per call, for the whole batch

    Shapes:        those of the layer, whose outputs have the shape of its inputs.
    Inference:     y = layer(x).
    Arguments:     rate: probability in [0, 1] of a skip; 0.2 in the paper. layer: the layer, or a model. skip: whether a skipped
                   layer is not computed, which saves its time. scaled: whether y = x + (layer(x) - x) / (1 - rate) where the layer
                   runs, which is StochasticDepth per batch if `layer` is a residual block. seed: whole number.
    Source:        Fan, Grave and Joulin 2019, arXiv:1909.11556; scaled, Huang et al. 2016, arXiv:1603.09382.
    Differs from:  stochastic depth: a kept layer is not scaled unless asked for, and the shortcut is inside `layer`. Without `skip`
                   the layer is always computed, its statistics included, and its output then kept or discarded.

    >>> layer = LayerDrop(0.5, keras.layers.Rescaling(3.0), seed=0)
    >>> {float(np.asarray(layer(np.ones((1, 1), "float32"), training=True)).sum()) for _ in range(20)} == {1.0, 3.0}
    True
    """

    def __init__(
        self, rate: float, layer: keras.Layer, *, skip: bool = False, scaled: bool = False, seed: int | None = None, **kwargs: Any
    ):
        super().__init__(rate, layer, seed=seed, **kwargs)
        if skip is True and keras.backend.backend() == "torch":
            refuse("LayerDrop: skip is for JAX and TensorFlow; on torch the gradients of the layer are lost.", "Leave skip out.")
        self.skip, self.scaled = check_flag("LayerDrop: skip", skip), check_flag("LayerDrop: scaled", scaled)

    def get_config(self) -> dict:
        # Only what is used: the keys of runs with this layer were made without these.
        return super().get_config() | {name: True for name in ("skip", "scaled") if getattr(self, name)}

    def compute_output_spec(self, inputs: Any, *args: Any, **options: Any) -> Any:
        check_tensor("LayerDrop", inputs)  # already when a model is made, not only when it runs
        return super().compute_output_spec(inputs, *args, **options)

    def call(self, inputs: Any, training: bool = False) -> Any:
        check_tensor("LayerDrop", inputs)
        if not training:
            return self._same_shape(self.call_layer(inputs, training), inputs)
        runs = noise.kept(self.stream.next(), self.state.rate, (1,) * len(inputs.shape))
        if self.skip:
            return self._only_if(ops.reshape(runs, ()), inputs)
        outputs = self._same_shape(self.call_layer(inputs, training), inputs)
        chosen = ops.where(runs, self._grown(outputs, inputs), ops.cast(inputs, outputs.dtype))
        set_keras_mask(chosen, get_keras_mask(outputs))  # only this tells a model which padding mask to pass on
        return chosen

    def _grown(self, outputs: Any, inputs: Any) -> Any:
        """Return the outputs of a layer that runs, scaled if asked for."""
        if not self.scaled:
            return outputs
        inputs = ops.cast(inputs, outputs.dtype)
        return inputs + (outputs - inputs) * ops.cast(noise.scale(ops.convert_to_tensor(self.state.rate)), outputs.dtype)

    def _only_if(self, runs: Any, inputs: Any) -> Any:
        """Return the layer's outputs if it runs, else its inputs, and compute it only then.

        What a run of the layer changes, statistics and seeds, comes out of the condition as values: compiled programs need that.
        """
        changing = [each for each in self.inner_variables() if not each.trainable]
        before = [ops.convert_to_tensor(each) for each in changing]
        dtype, penalties = self.layer.compute_dtype, []

        def run() -> tuple:
            with keras.StatelessScope([(each, each.value) for each in self.inner_variables()], collect_losses=True) as scope:
                options = {"training": True} if self.layer._call_has_training_arg else {}
                outputs = self._same_shape(self.layer(inputs, **options), inputs)
            penalties.extend(scope.losses)
            losses = sum((ops.cast(each, "float32") for each in scope.losses), ops.zeros((), "float32"))
            now = [ops.convert_to_tensor(scope.get_current_value(each)) for each in changing]
            return ops.cast(self._grown(outputs, inputs), dtype), losses, now

        def pass_on() -> tuple:
            # The sum of no entry of each weight: its gradient is 0 and not missing, so that optimizers do the same on each backend.
            nothing = sum(ops.sum(ops.reshape(ops.cast(each, dtype), (-1,))[:0]) for each in self.layer.trainable_variables)
            return ops.cast(inputs, dtype) + nothing, ops.zeros((), "float32"), before

        outputs, loss, now = ops.cond(runs, run, pass_on)
        for variable, value in zip(changing, now):
            variable.assign(value)
        if penalties:
            self.add_loss(loss)
        passes = all(each.supports_masking for each in self.layer._flatten_layers())
        set_keras_mask(outputs, get_keras_mask(inputs) if passes else None)
        return outputs

    def _same_shape(self, outputs: Any, inputs: Any) -> Any:
        if tuple(outputs.shape) != tuple(inputs.shape):
            refuse(
                f"LayerDrop: the layer must keep the shape; it makes {tuple(outputs.shape)} of {tuple(inputs.shape)}.",
                "Wrap a residual block or a layer of the same width.",
            )
        return outputs


def linear_decay(rate: float, depth: int, *, first: float | None = None) -> list[float]:
    """Return rates of stochastic depth that grow linearly over the blocks of a network.

        rate_l = l / depth * rate,    l = 1 .. depth

    Arguments:     rate: that of the last block. depth: number of blocks. first: that of the first; 0 as in timm, Swin and ConvNeXt.
    Source:        Huang et al. 2016, arXiv:1603.09382: rate 0.5.
    Differs from:  EfficientNet's code, which starts at 0 and never reaches the rate: (l - 1) / depth * rate.

    >>> linear_decay(0.5, 5)
    [0.1, 0.2, 0.3, 0.4, 0.5]
    >>> linear_decay(0.5, 6, first=0)
    [0.0, 0.1, 0.2, 0.3, 0.4, 0.5]
    """
    rate = check_rate("linear_decay", rate)
    depth = check_whole("linear_decay: depth", depth, 1, "It is the number of blocks.")
    if first is None:
        return [round(rate * block / depth, 12) for block in range(1, depth + 1)]
    first = check_rate("linear_decay", first, "first")
    return [round(first + (rate - first) * block / max(depth - 1, 1), 12) for block in range(depth)]
