"""Whether the tensors that a config declares are those of the task that it declares."""

from __future__ import annotations

from gatehub._text import quote
from gatehub.adapter.coding.packed import STORED_AS, TensorSpec
from gatehub.adapter.coding.stored import VALUES_AS, is_head, is_statistic, parse_stored
from gatehub.adapter.config import AdapterConfig
from gatehub.errors import (
    ConfigError,
    MissingTensorError,
    TensorDtypeError,
    TensorShapeError,
    UnknownTensorError,
)
from gatehub.gates.kinds import GATE_PARTS
from gatehub.gates.norms import STATISTICS
from gatehub.gates.sites import is_vector

# Far more than gates on the largest convolutional networks, and still to be held in memory.
MAX_TENSOR_BYTES = 2**31


def check_declared(config: AdapterConfig, where: str) -> None:
    """Check the declared tensors against the declared gates, norm mode and labels.

    Args:
        config: what an adapter says of itself.
        where: its place, for the errors.

    Raises:
        ConfigError: more bytes of tensors than are read.
        MissingTensorError: a gate without its tensor.
        UnknownTensorError: a tensor that is neither gate, normalisation value nor head.
        TensorDtypeError: a running statistic that is not float32; normalisation values and head
            tensors of several dtypes, or whole numbers; or another dtype than the probe was
            computed with.
        TensorShapeError: another shape than the gate, the layer or the labels need.
    """
    # Packed gates count as float16: in memory they take more than in the file.
    size = sum(max(spec.bytes, 2 * spec.count) for spec in config.tensors.values())
    if size > MAX_TENSOR_BYTES:
        raise ConfigError(
            f"{where} declares {size:,} bytes of tensors; at most {MAX_TENSOR_BYTES:,} are read."
        )
    left = dict(config.tensors)
    probed = None if config.probe is None else parse_stored(config.probe.dtype)
    for name, shape in config.layout.gate_shapes().items():
        spec = left.pop(name, None)
        if spec is None:
            raise MissingTensorError(f"{where} declares a gate but no tensor {quote(name)}.")
        if probed is not None and spec.dtype != STORED_AS[probed.gates]:
            raise _other_than_probed(where, name, spec, config)
        if spec.shape != shape:
            raise TensorShapeError(
                f"{where} declares {quote(name)} as {list(spec.shape)}; its gate needs "
                f"{list(shape)}."
            )
    for site, gate in config.layout.sites.items():
        bias = left.get(f"{site}.bias")
        if gate.shift and bias is None:
            raise MissingTensorError(f"{where} declares a shift but no tensor '{site}.bias'.")
        if gate.shift and bias is not None and bias.shape != gate.shape[:1]:
            raise TensorShapeError(
                f"{where} declares '{site}.bias' as {list(bias.shape)}; its shift needs "
                f"{list(gate.shape[:1])}."
            )
    # What is left of them: layers that are called head, too, may have gates and statistics.
    heads = {s.dtype for name, s in left.items() if is_head(name) and not is_statistic(name)}
    rows: dict[str, tuple[int, ...]] = {}
    for name, spec in left.items():
        layer, _, part = name.rpartition(".")
        in_head = name.startswith("head.")
        if not in_head and not _can_be_norm(config, name, spec, heads):
            raise UnknownTensorError(
                f"{where} declares {quote(name)}, which is neither a gate, a head tensor nor a "
                f"normalisation value of mode '{config.layout.norm}'."
            )
        allowed = ("F32",) if is_statistic(name) else VALUES_AS
        if spec.dtype not in allowed or spec.is_packed:
            found = f"packed {spec.dtype}" if spec.is_packed else spec.dtype
            raise TensorDtypeError(
                f"{where} declares {quote(name)} as {found}; expected {' or '.join(allowed)}."
            )
        if not is_statistic(name) and heads and heads != {spec.dtype}:
            raise TensorDtypeError(
                f"{where} declares {quote(name)} as {spec.dtype}, and its head as "
                f"{' and '.join(sorted(heads))}; expected one dtype for all."
            )
        if probed is not None and spec.dtype != probed.value_dtype(name):
            raise _other_than_probed(where, name, spec, config)
        if not in_head and not is_vector(spec.shape):
            raise TensorShapeError(
                f"{where} declares {quote(name)} as {list(spec.shape)}; a normalisation value has "
                "one dimension longer than 1 at most."
            )
        if (
            part in ("weight", "bias", *STATISTICS)
            and rows.setdefault(layer, spec.shape[:1]) != spec.shape[:1]
        ):
            raise TensorShapeError(
                f"{where} declares {quote(name)} as {list(spec.shape)}, but another tensor of "
                f"{quote(layer)} begins with {list(rows[layer])}."
            )
    head = [spec for name, spec in left.items() if name.startswith("head.")]
    if not any(spec.shape[:1] == (len(config.labels),) for spec in head):
        raise TensorShapeError(
            f"{where} declares no head tensor with one row for each of its "
            f"{len(config.labels)} labels."
        )


def _other_than_probed(
    where: str, name: str, spec: TensorSpec, config: AdapterConfig
) -> TensorDtypeError:
    probed = None if config.probe is None else config.probe.dtype
    return TensorDtypeError(
        f"{where} declares {quote(name)} as {spec.dtype}; its probe was computed with {probed}."
    )


def _can_be_norm(config: AdapterConfig, name: str, spec: TensorSpec, heads: set[str]) -> bool:
    """Whether a task of the declared mode may have such a normalisation value."""
    layer, _, part = name.rpartition(".")
    if part == "bias" and layer in config.layout.sites:
        return config.layout.sites[layer].shift
    if config.layout.norm == "frozen":
        return False
    if part in STATISTICS:
        return config.layout.norm == "stats"
    if layer not in config.layout.sites:
        # A vector may have any name there, that of a gate too.
        return part not in GATE_PARTS or (spec.dtype in heads and is_vector(spec.shape))
    # A site's weight is the backbone's; what else it has may be a gain.
    return part not in ("weight", *GATE_PARTS)
