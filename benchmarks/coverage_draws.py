"""What a sweep draws at random: a network's values, a trained task's, and images."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd

from gatehub.backbone.preprocessing import Preprocessing
from gatehub.gates.attach import GatedModel

_SIDES = (64, 128)


def draw_vectors(model: nn.Module) -> None:
    """Draw the per-channel values anew: fresh ones are 0 and 1, which would hide mistakes."""
    for module in model.modules():
        for name, tensor in (*module._parameters.items(), *module._buffers.items()):
            if tensor is None or not tensor.is_floating_point() or tensor.squeeze().ndim > 1:
                continue
            if name == "running_var" or (name == "weight" and not isinstance(module, _ConvNd)):
                nn.init.uniform_(tensor, 0.5, 1.5)
            elif name == "running_mean" or isinstance(tensor, nn.Parameter):
                nn.init.normal_(tensor, mean=tensor.mean().item(), std=0.2)


def draw_task(gated: GatedModel, images: Tensor) -> None:
    """Move everything that the trained model has of its own, to values that a file holds exactly.

    Told by what learns and what a training pass moves, not by the names in an adapter: a value
    that has no name of its own there would be missed.
    """
    learned = [parameter for parameter in gated.parameters() if parameter.requires_grad]
    for parameter in learned:
        parameter.add_(0.2 * torch.randn_like(parameter))
    # Batch norms see what reaches them, as in training: else signals die out or explode.
    norms = [module for module in gated.modules() if isinstance(module, _BatchNorm)]
    for norm in norms:
        norm.momentum = 1.0
        norm.train()
    gated(images)
    gated.eval()
    gates = {id(parameter) for parameter in gated.gate_parameters().values()}
    statistics = [buffer for norm in norms for buffer in norm.buffers(recurse=False)]
    for tensor in (*learned, *statistics):
        tensor.copy_(tensor.half() if id(tensor) in gates else tensor.float())


def find_images(model: nn.Module, dtype: torch.dtype) -> Tensor:
    """Return random images, as small as the network takes them."""
    channels, *sides = Preprocessing.from_model(model).input_size
    refusals = []
    for height, width in [*((side, side) for side in _SIDES if side < min(sides)), tuple(sides)]:
        images = torch.randn(4, channels, height, width, dtype=dtype)
        try:
            with torch.inference_mode():
                model(images)
        except (AssertionError, RuntimeError, ValueError) as refusal:
            refusals.append(refusal)
        else:
            return images
    raise refusals[-1]
