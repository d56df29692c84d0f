"""Masks on PyTorch: int32 words that wrap, since torch has no arithmetic on unsigned ones.

`torch.compile` fuses them; in eager mode on a CPU they are computed block by block, in place, so that the 25 steps of the hash stay
in the cache: that is faster than torch's own generator, which draws one number after the other.
"""

import math
from collections.abc import Callable
from typing import Any

import torch

from keras_dropout import masks
from keras_dropout.masks import POSITIONS, Words, call_key

WORDS = Words(
    constant=lambda n: n - (n >> 31 << 32),
    shift_right=lambda x, n: (x >> n) & ((1 << (32 - n)) - 1),
)
_BLOCK = 2**17


def draws(state: torch.Tensor, shape: tuple[int, ...], like: torch.Tensor | None = None) -> torch.Tensor:
    """See `keras_dropout.backends`."""
    state = state.to(torch.int32)
    size = math.prod(shape)
    blocks = state.device.type == "cpu" and not torch.compiler.is_compiling()
    return (_draws_in_blocks if blocks else _draws_at_once)(state, 0, size).reshape(shape)


def draws_at(state: torch.Tensor, low: torch.Tensor, high: torch.Tensor | None = None) -> torch.Tensor:
    """See `keras_dropout.backends`."""
    high = None if high is None else high.to(torch.int32)
    return masks.draws(low.to(torch.int32), call_key(state.to(torch.int32), WORDS), WORDS, high)


def fold(state: torch.Tensor, number: torch.Tensor | int) -> torch.Tensor:
    """See `keras_dropout.backends`."""
    state = state.to(torch.int32)
    return torch.stack([*call_key(state, WORDS), torch.as_tensor(number, dtype=torch.int32, device=state.device)])


def recomputed(apply: Callable, x: torch.Tensor, tensors: tuple, **static: Any) -> torch.Tensor:
    """See `keras_dropout.backends`."""
    return _Recomputed.apply(apply, static, x, *tensors)


class _Recomputed(torch.autograd.Function):
    @staticmethod
    def forward(ctx, apply, static, x, *tensors):
        ctx.save_for_backward(*tensors)
        ctx.function, ctx.static = apply, static
        return apply(x, *tensors, **static)

    @staticmethod
    def backward(ctx, upstream):
        tensors = ctx.saved_tensors
        return None, None, ctx.function(upstream, *tensors, **ctx.static), *[None] * len(tensors)


def _draws_at_once(state: torch.Tensor, start: int, stop: int) -> torch.Tensor:
    """The draws of the positions from `start` to `stop`."""
    position = torch.arange(start, stop, dtype=torch.int32 if stop <= POSITIONS // 2 else torch.int64, device=state.device)
    high = (position >> 32).to(torch.int32) if stop > POSITIONS else None
    return masks.draws(position.to(torch.int32), call_key(state, WORDS), WORDS, high)


def _draws_in_blocks(state: torch.Tensor, start: int, stop: int) -> torch.Tensor:
    """The same, where `start` is that of a block."""
    key = call_key(state.tolist(), _BLOCK_WORDS)
    result = torch.empty(stop - start, dtype=torch.int32)
    first = torch.arange(min(len(result), _BLOCK), dtype=torch.int32)
    low, spare = torch.empty_like(first), torch.empty_like(first)
    for position, block in zip(range(start, stop, _BLOCK), result.split(_BLOCK)):
        torch.add(first, WORDS.constant(position % POSITIONS), out=low)
        high = position // POSITIONS
        block.copy_(masks.draws(_InPlace(low, spare), key, _BLOCK_WORDS, high or None)[: len(block)])
    return result


class _InPlace:
    """A block of 32-bit words whose operators change it, where those of a tensor would make another one."""

    def __init__(self, words: torch.Tensor, spare: torch.Tensor):
        self.words, self.spare = words, spare

    def __add__(self, other: int) -> "_InPlace":
        self.words.add_(WORDS.constant(other % POSITIONS))
        return self

    def __xor__(self, other: "torch.Tensor | int") -> "_InPlace":
        self.words.bitwise_xor_(WORDS.constant(other % POSITIONS) if isinstance(other, int) else other)
        return self

    def __mul__(self, other: int) -> "_InPlace":
        self.words.mul_(WORDS.constant(other % POSITIONS))
        return self

    def __rshift__(self, n: int) -> torch.Tensor:
        torch.bitwise_right_shift(self.words, n, out=self.spare)
        return self.spare.bitwise_and_((1 << (32 - n)) - 1)


# A block's key is in Python's whole numbers: they do not wrap, so that they are cut to 32 bits where the upper ones would matter.
_BLOCK_WORDS = Words(constant=int, shift_right=lambda x, n: (x % POSITIONS if isinstance(x, int) else x) >> n)
