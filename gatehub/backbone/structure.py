"""A network's structure apart from its tensors: copies that share them, and copies that do not."""

from __future__ import annotations

import copy
import functools
import inspect
import types
from collections.abc import Iterable
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.nn.utils.prune import BasePruningMethod
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

from gatehub.errors import BackboneError

# What computes a weight in a hook before every pass, and what makes it a plain weight again.
_REMEDIES = {
    BasePruningMethod: ("pruned", "torch.nn.utils.prune.remove(layer, '{}')"),
    WeightNorm: ("under weight_norm", "torch.nn.utils.remove_weight_norm(layer, '{}')"),
    SpectralNorm: ("under spectral_norm", "torch.nn.utils.remove_spectral_norm(layer, '{}')"),
}


def copy_structure(model: nn.Module) -> nn.Module:
    """Copy a model's modules and share its tensors: new structure, no new weights.

    Raises:
        BackboneError: a module holds what cannot be copied.
    """
    shared = {id(t): t for t in (*model.parameters(), *model.buffers())}
    try:
        copied = copy.deepcopy(model, cast(dict[int, Any], shared))
    except (RuntimeError, TypeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise BackboneError(
            f"{type(model).__name__} cannot be copied: {reason}",
            hint="Its modules may hold parameters, buffers and plain values; locks, open files and "
            "tensors that autograd computed belong outside of them.",
        ) from error
    originals, seen = {id(module) for module in model.modules()}, set[int]()
    for name, module in copied.named_modules():
        if any(_reaches(v, originals, seen) for k, v in vars(module).items() if k != "_modules"):
            raise BackboneError(
                f"Layer '{name}' holds a function that calls the original's layers, in a copy too: "
                "a function is not copied with the layer.",
                hint="Wrap a layer after it was copied; or by functools.partial around its own "
                "method, as in layer.forward = partial(checkpoint, layer.forward); or use timm's "
                "set_grad_checkpointing.",
            )
    return copied


def _reaches(value: object, originals: set[int], seen: set[int]) -> bool:
    """Whether functions that a value holds know a module of a network."""
    if id(value) in seen:
        return False
    seen.add(id(value))
    held: Iterable[object]
    match value:
        case nn.Module():
            return id(value) in originals
        case list() | tuple():
            held = value
        case dict():
            held = value.values()
        case functools.partial():
            held = (value.func, value.args, value.keywords)
        case types.MethodType():
            held = (value.__self__, value.__func__)
        case types.FunctionType():
            known = inspect.getclosurevars(value)
            # Functions of a library lead to all of it, and to no one's network.
            near = [v for v in known.globals.values() if not isinstance(v, types.FunctionType)]
            held = (known.nonlocals, near, value.__defaults__, value.__kwdefaults__)
        case _:
            return False
    return any(_reaches(part, originals, seen) for part in held)


def own_memory(model: nn.Module, *, lenders: Iterable[Tensor]) -> None:
    """Give a model memory of its own in the place of what it shares, in place.

    Every parameter becomes an object of its own, too, since `Module.to` changes such an object in
    place for all models that hold it. What is tied stays tied.

    Args:
        model: from `copy_structure`.
        lenders: whose memory is not to be shared.
    """
    lent = find_storages(lenders)
    own: dict[int, Tensor] = {}
    for module in model.modules():
        for held in (module._parameters, module._buffers):
            for name, tensor in held.items():
                if tensor is None:
                    continue
                if id(tensor) not in own:
                    values = own_tensor(tensor.detach(), lent)
                    is_parameter = isinstance(tensor, nn.Parameter)
                    learns = tensor.requires_grad
                    own[id(tensor)] = nn.Parameter(values, learns) if is_parameter else values
                held[name] = own[id(tensor)]  # type: ignore[assignment]


def find_storages(tensors: Iterable[Tensor]) -> set[int]:
    """Return the addresses of the memory that some tensors lie in."""
    return {tensor.untyped_storage().data_ptr() for tensor in tensors}


def own_tensor(tensor: Tensor, lent: set[int]) -> Tensor:
    """Return a tensor, or a copy where it lies in memory that is another's.

    Args:
        tensor: of any shape; a copy has its strides.
        lent: from `find_storages`.
    """
    return tensor.clone() if tensor.untyped_storage().data_ptr() in lent else tensor


def refuse_unusable(model: nn.Module) -> None:
    """Refuse a model without weights that can be read, copied, and stand still.

    Raises:
        BackboneError: it was compiled or scripted; a tensor has no values, or NaN or infinity
            among them; a layer is pruned, or under the older weight norm or spectral norm.
    """
    _refuse_compiled(model)
    _refuse_empty(model)
    _refuse_not_finite(model)
    for name, module in model.named_modules():
        for hook in module._forward_pre_hooks.values():
            for kind, (state, remedy) in _REMEDIES.items():
                if isinstance(hook, kind):
                    weight = getattr(hook, "_tensor_name", None) or getattr(hook, "name", "weight")
                    raise BackboneError(
                        f"Layer '{name}' is {state}, so its {weight} is recomputed before every "
                        "pass; expected weights that stand still.",
                        hint=f"Make it permanent first: {remedy.format(weight)}.",
                    )


def _refuse_compiled(model: nn.Module) -> None:
    for name, module in model.named_modules():
        what = f"Layer '{name}'" if name else "The model"
        if isinstance(module, torch.jit.ScriptModule):
            raise BackboneError(
                f"{what} is a ScriptModule of torch.jit, whose layers cannot be replaced; expected "
                "a timm model.",
                hint="Give the model that was scripted or traced.",
            )
        if hasattr(module, "_orig_mod"):
            raise BackboneError(
                f"{what} was compiled by torch.compile, so its layers cannot be replaced; expected "
                "a timm model.",
                hint="Give the model as it was before: compiled._orig_mod. Compile what `fold` "
                "returns instead.",
            )


def _refuse_empty(model: nn.Module) -> None:
    """Refuse tensors that are only promised, or that no layer of a backbone computes with."""
    tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    if not any(isinstance(tensor, nn.Parameter) for tensor in tensors.values()):
        raise BackboneError(
            f"{type(model).__name__} has no parameters; expected a timm model with its weights.",
            hint="load_backbone(NAME) loads one by its name.",
        )
    for name, tensor in tensors.items():
        forms = {
            "is not initialised": is_lazy(tensor),
            "is on the meta device, without values": tensor.is_meta,
            "is quantized": tensor.is_quantized,
            f"is laid out as {tensor.layout}": tensor.layout is not torch.strided,
        }
        for form, found in forms.items():
            if found:
                raise BackboneError(
                    f"'{name}' of {type(model).__name__} {form}; expected dense weights.",
                    hint="Load the model's weights before you make a Backbone of it.",
                )


def _refuse_not_finite(model: nn.Module) -> None:
    """Refuse weights of a broken run or file; buffers may hold infinity, as attention masks do."""
    for name, parameter in model.named_parameters():
        if not bool(parameter.isfinite().all()):
            raise BackboneError(
                f"'{name}' of {type(model).__name__} holds NaN or infinity; expected finite "
                "weights.",
                hint="Get the weights anew, or from a checkpoint before the loss became NaN.",
            )
