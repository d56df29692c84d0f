"""The mask product on PyTorch: int32 words that wrap, since torch has no arithmetic on unsigned ones."""

import math

import torch

from keras_dropout.errors import refuse
from keras_dropout.masks import LEVELS, POSITIONS, Words, call_key, draws

WORDS = Words(
    constant=lambda n: n - (n >> 31 << 32),
    shift_right=lambda x, n: (x >> n) & ((1 << (32 - n)) - 1),
)


def mask_product(x: torch.Tensor, state: torch.Tensor, rate: torch.Tensor, mask_shape: tuple[int, ...]) -> torch.Tensor:
    """See `keras_dropout.backends`."""
    return _MaskProduct.apply(x, state, rate, tuple(mask_shape))


class _MaskProduct(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, state, rate, mask_shape):
        ctx.save_for_backward(state, rate)
        ctx.mask_shape = mask_shape
        return _product(x, state, rate, mask_shape)

    @staticmethod
    def backward(ctx, upstream):
        return _product(upstream, *ctx.saved_tensors, ctx.mask_shape), None, None, None


def _product(x, state, rate, mask_shape):
    size = math.prod(mask_shape)
    if size > POSITIONS:
        refuse(f"a mask has at most 2**32 positions; got shape {mask_shape}.", "Share the mask along an axis (noise_shape).")
    count = torch.arange(size, dtype=torch.int32 if size <= POSITIONS // 2 else torch.int64, device=x.device)
    position = count.to(torch.int32).reshape(mask_shape)
    level = torch.round(rate * LEVELS)
    kept = draws(position, call_key(state.to(torch.int32), WORDS), WORDS) >= level.to(torch.int32)
    real = torch.promote_types(x.dtype, torch.float32)
    scale = LEVELS / torch.clamp(LEVELS - level.to(real), min=1)
    return torch.where(kept, x * scale.to(x.dtype), torch.zeros((), dtype=x.dtype, device=x.device))
