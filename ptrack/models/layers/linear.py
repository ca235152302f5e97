"""Linear layers and convolutions with their activation fused in, where the processor's library offers it.

On a CPU without gradients they call oneDNN directly: bias and activation cost no extra pass over memory, and its
matrix product is the faster one on AMD processors. Measured on 2 cores of an AMD EPYC for the feed-forward of 2336
tokens (256 -> 1024 -> 256): 13.2 ms against 17.4 ms. A weight that is :func:`pack`ed is laid out for that product once,
not in every call: 8.0 against 8.8 ms there on 2 cores of a Xeon. So is that of a convolution that is not trained: the
35 of EfficientNet-Lite0 at 576x432 on one core take 29.3 instead of 31.0 ms, with the same bits. Everywhere else the
ordinary operators run; results agree to rounding.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.weak import WeakIdKeyDictionary

Activation = Literal["none", "relu", "gelu"]
Clamp = Literal["none", "relu", "relu6"]


def _library(name: str) -> Any:
    """An operator of PyTorch's oneDNN binding, None where this build has none."""
    return getattr(torch.ops.mkldnn, name, None) if torch.backends.mkldnn.is_available() else None


_LINEAR = _library("_linear_pointwise")
_LAY_OUT = _library("_reorder_linear_weight")
CONVOLVE = _library("_convolution_pointwise")
_LAY_OUT_KERNEL = _library("_reorder_convolution_weight")
ROWS = 2048  # that a packed weight's layout is chosen for; any other number costs 5 % at most


class _Packed(NamedTuple):
    """A weight in the library's layout."""

    state: tuple[int, int]  # of the weight then: it may have changed since
    size: tuple[int, ...]  # of what is convolved, (B, C, H, W)
    weight: Tensor


_packed = WeakIdKeyDictionary()  # weight -> _Packed, as long as the weight lives


def is_inference(x: Tensor) -> bool:
    """Return whether ``x`` is on a CPU in float32 and neither gradients, nor a graph, nor other types are wanted."""
    wanted = torch.is_grad_enabled() or torch.compiler.is_compiling() or torch.compiler.is_exporting()
    return x.device.type == "cpu" and x.dtype == torch.float32 and not wanted and not torch.is_autocast_enabled("cpu")


def _fast(x: Tensor, weight: Tensor) -> bool:
    """Whether the direct path computes what the ordinary one would."""
    return is_inference(x) and weight.device == x.device and weight.dtype == x.dtype and x.numel() > 0


@torch.no_grad()
def pack(*weights: Tensor) -> None:
    """Lay (C_out, C_in) weights out for :func:`linear` on a CPU, as copies that serve until a weight changes.

    Changes are noticed as autograd notices them: not those through ``.data``, nor of weights made in inference mode.
    """
    for weight in weights:
        if _LAY_OUT is not None and weight.device.type == "cpu" and weight.dtype == torch.float32:
            _packed[weight] = _Packed(_state(weight), (), _LAY_OUT(weight.detach().contiguous(), ROWS))


def pack_layers(module: nn.Module) -> None:
    """Pack every linear layer of a module."""
    for layer in module.modules():
        if isinstance(layer, nn.Linear):
            pack(layer.weight)


def _state(weight: Tensor) -> tuple[int, int]:
    """Return what changes with every change of a weight: where it lies, and how often it was written there."""
    return weight.data_ptr(), -1 if weight.is_inference() else weight._version


def _laid_out(weight: Tensor, size: tuple[int, ...] = ()) -> Tensor | None:
    """Return the copy of a weight that is packed (for inputs of ``size``), None if there is none of what it is now."""
    packed = _packed.get(weight)
    return packed.weight if packed and packed.state == _state(weight) and packed.size == size else None


def _activate(x: Tensor, activation: Activation) -> Tensor:
    if activation == "relu":
        return F.relu(x, inplace=not torch.is_grad_enabled())
    return F.gelu(x) if activation == "gelu" else x


def _product_weight(weight: Tensor) -> Tensor:
    laid_out = _laid_out(weight)
    # A strided weight would fall to the library's reference code, 100 times as slow.
    return weight.contiguous() if laid_out is None else laid_out


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None, activation: Activation = "none") -> Tensor:
    """``activation(x @ weight.T + bias)`` for (..., C_in) tokens, weight (C_out, C_in), bias (C_out,)."""
    if _LINEAR is not None and _fast(x, weight):
        algorithm = "none" if activation == "gelu" else ""
        return _LINEAR(x.contiguous(), _product_weight(weight), bias, activation, [], algorithm)
    return _activate(F.linear(x, weight, bias), activation)


def linear_add(x: Tensor, weight: Tensor, bias: Tensor | None, other: Tensor) -> Tensor:
    """``x @ weight.T + bias + other`` for (..., C_in) tokens and (..., C_out) ``other``, without a pass for the sum."""
    same = x.shape[:-1] == other.shape[:-1] and other.dtype == torch.float32
    if _LINEAR is not None and same and _fast(x, weight):
        return _LINEAR.binary(x.contiguous(), other.contiguous(), _product_weight(weight), bias, "add")
    return other + F.linear(x, weight, bias)


class Linear(nn.Linear):
    """``nn.Linear`` through :func:`linear`."""

    def forward(self, x: Tensor, activation: Activation = "none") -> Tensor:
        """(..., C_in) -> (..., C_out)."""
        return linear(x, self.weight, self.bias, activation)


def convolve(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
    activation: Clamp,
) -> Tensor:
    """Convolve (B, C_in, H, W) by oneDNN, the activation applied while a result is in a register.

    Only where ``CONVOLVE`` is not None and :func:`is_inference`. Weights that take no gradients are laid out at the
    first call with a size; their changes are noticed as :func:`pack` does.
    """
    name, limits = ("hardtanh", [0.0, 6.0]) if activation == "relu6" else (activation, [])
    if not (weight.requires_grad or weight.is_inference()) and _LAY_OUT_KERNEL is not None:
        size = tuple(x.shape)
        laid_out = _laid_out(weight, size)
        if laid_out is None:
            laid_out = _LAY_OUT_KERNEL(weight.detach(), padding, stride, dilation, groups, size)
            _packed[weight] = _Packed(_state(weight), size, laid_out)
        weight = laid_out
    return CONVOLVE(x, weight, bias, padding, stride, dilation, groups, name, limits, "")


class ConvReLU(nn.Module):
    """A convolution, its folded batch norm and ReLU in one."""

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        self.conv = conv

    def forward(self, x: Tensor) -> Tensor:
        """(B, C_in, H, W) -> (B, C_out, H', W')."""
        c = self.conv
        if CONVOLVE is None or not _fast(x, c.weight):
            return _activate(c(x), "relu")
        assert not isinstance(c.padding, str)
        return convolve(x, c.weight, c.bias, c.stride, c.padding, c.dilation, c.groups, "relu")
