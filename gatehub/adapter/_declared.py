"""Whether the tensors that a config declares are those of the task that it declares."""

from __future__ import annotations

from gatehub.adapter._tensors import count_bytes
from gatehub.adapter.config import AdapterConfig
from gatehub.errors import (
    ConfigError,
    MissingTensorError,
    TensorDtypeError,
    TensorShapeError,
    UnknownTensorError,
)

# Far more than gates on the largest convolutional networks, and still to be held in memory.
MAX_TENSOR_BYTES = 2**31

_NORM_PARTS = {
    "frozen": (),
    "affine": ("weight", "bias"),
    "stats": ("weight", "bias", "running_mean", "running_var"),
}


def check_declared(config: AdapterConfig, where: str) -> None:
    """Hold the declared tensors against the declared gates, norm mode and labels.

    Args:
        config: what an adapter says of itself.
        where: its place, for the errors.

    Raises:
        ConfigError: more bytes of tensors than are read.
        MissingTensorError: a gate without its tensor.
        UnknownTensorError: a tensor that is neither gate, normalisation value nor head.
        TensorDtypeError: a normalisation value or head tensor that is not float32.
        TensorShapeError: another shape than the gate, the layer or the labels need.
    """
    if count_bytes(config.tensors) > MAX_TENSOR_BYTES:
        raise ConfigError(
            f"{where} declares {count_bytes(config.tensors):,} bytes of tensors; at most "
            f"{MAX_TENSOR_BYTES:,} are read."
        )
    left = dict(config.tensors)
    for name, shape in config.layout.gate_shapes().items():
        spec = left.pop(name, None)
        if spec is None:
            raise MissingTensorError(f"{where} declares a gate but no tensor '{name}'.")
        if spec.shape != shape:
            raise TensorShapeError(
                f"{where} declares '{name}' as {list(spec.shape)}; its gate needs {list(shape)}."
            )
    rows: dict[str, tuple[int, ...]] = {}
    for name, spec in left.items():
        layer, _, part = name.rpartition(".")
        is_head = name.startswith("head.")
        is_norm = part in _NORM_PARTS[config.layout.norm] and layer not in config.layout.sites
        if not is_head and not is_norm:
            raise UnknownTensorError(
                f"{where} declares '{name}', which is neither a gate, a head tensor nor a "
                f"normalisation value of mode '{config.layout.norm}'."
            )
        if spec.dtype != "F32":
            raise TensorDtypeError(f"{where} declares '{name}' as {spec.dtype}; expected F32.")
        if (
            part in _NORM_PARTS["stats"]
            and rows.setdefault(layer, spec.shape[:1]) != spec.shape[:1]
        ):
            raise TensorShapeError(
                f"{where} declares '{name}' as {list(spec.shape)}, but another tensor of "
                f"'{layer}' begins with {list(rows[layer])}."
            )
    head = [spec for name, spec in left.items() if name.startswith("head.")]
    if not any(spec.shape[:1] == (len(config.labels),) for spec in head):
        raise TensorShapeError(
            f"{where} declares no head tensor with one row for each of its "
            f"{len(config.labels)} labels."
        )
