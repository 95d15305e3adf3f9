"""Each feed-forward layer as the convolutional one that computes the same."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from timm.layers import LayerNorm2d
from timm.models.mlp_mixer import Affine
from torch import Tensor, nn

POINTWISE_MODULES = (
    *(nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.ELU, nn.CELU, nn.SELU, nn.GELU, nn.SiLU, nn.Mish),
    *(nn.Sigmoid, nn.LogSigmoid, nn.Tanh, nn.Hardtanh, nn.Hardsigmoid, nn.Hardswish),
    *(nn.Softplus, nn.Softsign, nn.Softshrink, nn.Hardshrink, nn.Tanhshrink),
)
POINTWISE_FUNCTIONS = frozenset(
    {
        *(torch.relu, torch.sigmoid, torch.tanh, torch.sin, torch.cos, torch.exp, torch.abs),
        *(F.relu, F.relu6, F.leaky_relu, F.elu, F.gelu, F.silu, F.mish, F.softplus, F.hardswish),
    }
)
POINTWISE_METHODS = frozenset({"relu", "sigmoid", "tanh", "sin", "cos", "exp", "abs"})


def embed_linear(linear: nn.Linear, *, flat: tuple[int, ...] | None) -> nn.Conv2d:
    """Return a 1x1 convolution, or behind a flattening one with a kernel as large as the map.

    Args:
        linear: (…, I) → (…, O).
        flat: what was flattened: (C, H, W) of an image, (N, C) of tokens, or None.
    """
    weight = linear.weight.detach()
    rows = weight.shape[0]
    match flat:
        case None:
            kernel = weight[:, :, None, None]
        case (_, _):
            kernel = weight.reshape(rows, *flat).transpose(1, 2)[..., None]
        case _:
            kernel = weight.reshape(rows, *flat)
    return _convolve(kernel, linear.bias)


def embed_affine(affine: Affine) -> nn.Conv2d:
    """Return a depthwise 1x1 convolution with bias, as in ResMLP (arXiv 2105.03404)."""
    kernel = affine.alpha.detach().reshape(-1, 1, 1, 1)
    return _convolve(kernel, affine.beta.detach().reshape(-1), groups=len(kernel))


def embed_layer_norm(norm: nn.LayerNorm) -> nn.Module:
    """Return the same normalisation over the channels of each pixel."""
    made = LayerNorm2d(norm.normalized_shape[0], eps=norm.eps, affine=norm.elementwise_affine).to(
        next(norm.parameters(), torch.zeros(()))
    )
    made.load_state_dict(norm.state_dict(), strict=norm.bias is not None)
    return made


def embed_batch_norm(norm: nn.BatchNorm1d) -> nn.BatchNorm2d:
    """Return the same normalisation of maps of one pixel."""
    made = nn.BatchNorm2d(
        norm.num_features,
        eps=norm.eps,
        momentum=norm.momentum,
        affine=norm.affine,
        track_running_stats=norm.track_running_stats,
    ).to(next(norm.parameters(), torch.zeros(())))
    made.load_state_dict(norm.state_dict())
    return made


def _convolve(kernel: Tensor, bias: Tensor | None, *, groups: int = 1) -> nn.Conv2d:
    conv = nn.Conv2d(
        kernel.shape[1] * groups,
        kernel.shape[0],
        (kernel.shape[2], kernel.shape[3]),
        groups=groups,
        bias=bias is not None,
        dtype=kernel.dtype,
        device=kernel.device,
    )
    with torch.no_grad():
        conv.weight.copy_(kernel)
        if conv.bias is not None and bias is not None:
            conv.bias.copy_(bias)
    return conv
