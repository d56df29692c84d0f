"""Masks on PyTorch: int32 words that wrap, because torch has no arithmetic on unsigned ones.

`torch.compile` fuses them. In eager mode on a CPU, they are computed in place and block by block, so that the 19 steps of the hash
stay in the cache. numpy does this, because its integers are unsigned and its calls cost a third of torch's. A product of x and its
mask goes over x by blocks, too. torch's own generator, which draws one number after the other, is slower.
"""

import contextlib
import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch

from keras_dropout import masks
from keras_dropout.masks import POSITIONS, Words, call_key

WORDS = Words(
    constant=lambda n: n - (n >> 31 << 32),
    shift_right=lambda x, n: (x >> n) & ((1 << (32 - n)) - 1),
)
_BLOCK = 2**17


def draws(state: torch.Tensor, shape: tuple[int, ...], like: torch.Tensor | None = None) -> torch.Tensor:
    state = state.to(torch.int32)
    size = math.prod(shape)
    start = getattr(like, "first_position", 0)
    return (_draws_in_blocks if _eager_on_cpu(state) else _draws_at_once)(state, start, start + size).reshape(shape)


def draws_at(state: torch.Tensor, low: torch.Tensor, high: torch.Tensor | None = None) -> torch.Tensor:
    high = None if high is None else high.to(torch.int32)
    return masks.draws(low.to(torch.int32), call_key(state.to(torch.int32), WORDS), WORDS, high)


def fold(state: torch.Tensor, number: torch.Tensor | int) -> torch.Tensor:
    state = state.to(torch.int32)
    key = call_key(state.tolist(), _PLAIN_WORDS) if _eager_on_cpu(state) else call_key(state, WORDS)
    words = [WORDS.constant(word % POSITIONS) if isinstance(word, int) else word for word in (*key, number)]
    return torch.stack([torch.as_tensor(word, dtype=torch.int32, device=state.device) for word in words])


def compiled(function: Callable, seldom: bool = False) -> Callable:
    return torch.no_grad()(function)


def recomputed(apply: Callable, x: torch.Tensor, tensors: tuple, *, pointwise: bool, **static: Any) -> torch.Tensor:
    how = _by_blocks if pointwise else _whole
    if _eager_on_cpu(x) and not (x.requires_grad and torch.is_grad_enabled()):
        return how(apply, static, x, tensors)
    return _Recomputed.apply(how, apply, static, x, *tensors)


class _Recomputed(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, how: Callable, apply: Callable, static: dict, x: torch.Tensor, *tensors: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(*tensors)
        ctx.function = how, apply, static
        return how(apply, static, x, tensors)

    @staticmethod
    def backward(ctx: Any, upstream: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        how, apply, static = ctx.function
        tensors = ctx.saved_tensors
        return None, None, None, how(apply, static, upstream, tensors), *[None] * len(tensors)


def _whole(apply: Callable, static: dict, x: torch.Tensor, tensors: tuple) -> torch.Tensor:
    return apply(x, *_numbers(tensors), **static)


def _numbers(tensors: tuple) -> list:
    """Return the tensors, with scalars as Python numbers in eager calls on a CPU: a scalar tensor in a call costs microseconds."""
    return [tensor.item() if tensor.dim() == 0 and _eager_on_cpu(tensor) else tensor for tensor in tensors]


def _by_blocks(apply: Callable, static: dict, x: torch.Tensor, tensors: tuple) -> torch.Tensor:
    numbers = _numbers(tensors)
    if x.numel() <= _BLOCK or static["shape"] != tuple(x.shape) or not _eager_on_cpu(x):
        return apply(x, *numbers, **static)
    x = x.contiguous()
    y = torch.empty_like(x)
    from_, to = x.view(-1), y.view(-1)
    for start in range(0, len(to), _BLOCK):
        block: Any = from_[start : start + _BLOCK]  # `Any`, because we set an attribute that a tensor's type does not have
        block.first_position = start
        to[start : start + _BLOCK] = apply(block, *numbers, **{**static, "shape": tuple(block.shape)})
    return y


def _eager_on_cpu(x: torch.Tensor) -> bool:
    return x.device.type == "cpu" and not torch.compiler.is_compiling()


def _draws_at_once(state: torch.Tensor, start: int, stop: int) -> torch.Tensor:
    """Return the draws of the positions from `start` to `stop`."""
    position = torch.arange(start, stop, dtype=torch.int32 if stop <= POSITIONS // 2 else torch.int64, device=state.device)
    high = (position >> 32).to(torch.int32) if stop > POSITIONS else None
    return masks.draws(position.to(torch.int32), call_key(state, WORDS), WORDS, high)


def _draws_in_blocks(state: torch.Tensor, start: int, stop: int) -> torch.Tensor:
    """Return the same draws block by block; `start` must be the start of a block."""
    key = call_key(state.tolist(), _PLAIN_WORDS)
    result = np.empty(stop - start, np.uint32)
    low = np.empty(min(len(result), _BLOCK), np.uint32)
    for position in range(start, stop, _BLOCK):
        block = result[position - start :][:_BLOCK]
        words = low[: len(block)]
        np.add(_POSITIONS_OF_BLOCK[: len(block)], np.uint32(position % POSITIONS), out=words)
        masks.draws(_InPlace(words, spare=block), key, _PLAIN_WORDS, position // POSITIONS or None)  # the result is in `block`
    return torch.from_numpy(result.view(np.int32))


_POSITIONS_OF_BLOCK = np.arange(_BLOCK, dtype=np.uint32)


class _InPlace:
    """A block of 32-bit words whose operators change it in place; those of an array would make another one."""

    def __init__(self, words: np.ndarray, spare: np.ndarray):
        self.words, self.spare = words, spare

    def __add__(self, other: int) -> "_InPlace":
        np.add(self.words, np.uint32(other % POSITIONS), out=self.words)
        return self

    def __xor__(self, other: np.ndarray | int) -> "_InPlace":
        np.bitwise_xor(self.words, np.uint32(other % POSITIONS) if isinstance(other, int) else other, out=self.words)
        return self

    def __mul__(self, other: int) -> "_InPlace":
        np.multiply(self.words, np.uint32(other), out=self.words)
        return self

    def __rshift__(self, n: int) -> np.ndarray:
        return np.right_shift(self.words, np.uint32(n), out=self.spare)


# A key consists of Python integers. They do not wrap, so they are cut to 32 bits where the upper bits would matter.
_PLAIN_WORDS = Words(constant=int, shift_right=lambda x, n: (x % POSITIONS if isinstance(x, int) else x) >> n)


@contextlib.contextmanager
def seeded() -> Iterator[None]:
    """See `keras_dropout.backends`."""
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(0)
        yield
