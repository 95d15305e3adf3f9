"""What shows whether a file is still what was exported, as text under "gatehub.*" in its metadata.

| key | value |
|---|---|
| digests | JSON object: record, wiring, nodes, weights |
| digests_digest | SHA-256 of that text |
| file_digest | SHA-256 of the whole file with 64 zeros in the place of this value |

Within `digests`, each digest is the beginning of a SHA-256:

    record    entry of the metadata, or "entry.field" of one that is a JSON object → digest
    wiring    of every node's operator, inputs and outputs, and of the operators' versions
    nodes     of the attributes of each node, constants included, in the order of the nodes
    weights   initialiser → "type:shape:digest", the type as ONNX numbers it

An optimiser rewires the graph, renames and drops weights, and leaves the metadata alone. So an
edit is

    an entry of the metadata that is not what it was;
    a weight with other values, under its name and with its type and shape;
    a weight with other values under any name, where the file has as many nodes as the export, and
    as many weights of each type and shape;
    another attribute, where the wiring is the same.

What else differs cannot be told from an optimiser's work, and is named as not compared: weights
that were not in the export, and nodes that are joined or named otherwise. Only the answers to the
probe speak for these. What does not show in them passes: weights of one shape that were renamed and
exchanged, a node that acts only on values beyond the probe's. These are checksums, not a signature:
they find what happens to a file by accident or by hand, not who edits it and computes new digests.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from gatehub._text import quote, shorten
from gatehub.export._record import PREFIX, read_entry

if TYPE_CHECKING:
    import onnx

_DIGESTS, _DIGESTS_DIGEST, _FILE_DIGEST = "digests", "digests_digest", "file_digest"
_KEYS = frozenset({_DIGESTS, _DIGESTS_DIGEST, _FILE_DIGEST})
_ZEROS = "0" * 64
_UNCOMPARED = ", so they could not be compared: only its answers speak for them."


class Comparison(NamedTuple):
    """What of a file is not what was exported.

    Attributes:
        edits: names what no optimiser changes.
        uncompared: a sentence for each kind of parts for which only the answers speak.
    """

    edits: list[str]
    uncompared: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Digests:
    """Of the parts of a file; see the module.

    Args:
        record: of each entry of the metadata, and of each field of an entry.
        wiring: of how the nodes hang together.
        nodes: of each node's attributes.
        weights: type, shape and digest of each initialiser.
    """

    record: Mapping[str, str]
    wiring: str
    nodes: tuple[str, ...]
    weights: Mapping[str, str]

    @classmethod
    def of(cls, proto: onnx.ModelProto) -> Digests:
        """Compute them from a file."""
        return cls(
            record=_digest_record(read_metadata(proto)),
            wiring=_digest_wiring(proto),
            nodes=tuple(_digest_attributes(node) for node in proto.graph.node),
            weights={
                **{value.name: _digest_weight(value) for value in proto.graph.initializer},
                **{v.values.name: _digest_sparse(v) for v in proto.graph.sparse_initializer},
            },
        )

    @classmethod
    def from_metadata(cls, metadata: Mapping[str, str], *, subject: str) -> Digests:
        """Read those that a file was exported with.

        Raises:
            ExportFormatError: it has none, or they were changed themselves.
        """
        text = read_entry(metadata, _DIGESTS, str, subject=subject)
        expected = _digest(text.encode("utf-8", "replace"), 64)

        def check(digest: str) -> None:
            if digest != expected:
                raise ValueError(f"not that of '{PREFIX}{_DIGESTS}', so one of the two was changed")

        read_entry(metadata, _DIGESTS_DIGEST, check, subject=subject)
        return read_entry(metadata, _DIGESTS, _parse, subject=subject)

    def compare(self, proto: onnx.ModelProto) -> Comparison:
        """Hold a file against what was exported; see the module."""
        found = Digests.of(proto)
        edits = [quote(name, 80) for name in _find_entries(self.record, found.record)]
        new = _find_new(self.weights, found.weights)
        same_size = len(found.nodes) == len(self.nodes)
        same_shapes = _count_shapes(found.weights) == _count_shapes(self.weights)
        edited = set(new) if same_size and same_shapes else set()
        for name, weight in found.weights.items():
            before = self.weights.get(name, weight)
            if before != weight and _shape(before) == _shape(weight):
                edited.add(name)
        edits += [f"weight {quote(name, 80)}" for name in found.weights if name in edited]
        uncompared = []
        if remade := set(new) - edited:
            count = f"{len(remade)} of its {len(found.weights)} weights were"
            uncompared.append(f"{count} not in the export{_UNCOMPARED}")
        if same_size and found.wiring == self.wiring:
            for node, before, now in zip(proto.graph.node, self.nodes, found.nodes, strict=True):
                if before != now:
                    names = quote(", ".join(node.output), 80)
                    edits.append(f"the {shorten(node.op_type, 80)} node of {names}")
        else:
            named = "Its nodes are joined or named otherwise than"
            uncompared.append(f"{named} in the export{_UNCOMPARED}")
        return Comparison(edits, tuple(uncompared))


def seal(proto: onnx.ModelProto) -> bytes:
    """Serialise a model whose metadata is complete, with its digests added."""
    text = json.dumps(asdict(Digests.of(proto)), ensure_ascii=False, separators=(",", ":"))
    entries = {
        _DIGESTS: text,
        _DIGESTS_DIGEST: _digest(text.encode(), 64),
        _FILE_DIGEST: _ZEROS,
    }
    for key, value in entries.items():
        proto.metadata_props.add(key=f"{PREFIX}{key}", value=value)
    data: bytes = proto.SerializeToString(deterministic=True)
    before, _, after = data.rpartition(_ZEROS.encode())
    return before + _digest_file(data, _ZEROS).encode() + after


def has_digests(metadata: Mapping[str, str]) -> bool:
    """Whether a file has any of these entries."""
    return any(f"{PREFIX}{key}" in metadata for key in _KEYS)


def is_sealed(data: bytes, metadata: Mapping[str, str], *, subject: str) -> bool:
    """Whether a file is, byte for byte, what was exported.

    Raises:
        ExportFormatError: it has no digest of itself.
    """
    digest = read_entry(metadata, _FILE_DIGEST, str, subject=subject)
    return len(digest) == len(_ZEROS) and _digest_file(data, digest) == digest


def read_metadata(proto: onnx.ModelProto) -> dict[str, str]:
    """Return a file's metadata by key.

    Raises:
        ValueError: a key of gatehub's stands twice, so that readers would differ.
    """
    metadata: dict[str, str] = {}
    for entry in proto.metadata_props:
        if entry.key in metadata and entry.key.startswith(PREFIX):
            raise ValueError(f"'{entry.key}' stands twice in its metadata")
        metadata[entry.key] = entry.value
    return metadata


def read_opsets(proto: onnx.ModelProto) -> dict[str, int]:
    """Return the version of each domain's operators; ONNX's own domain is ""."""
    return {v.domain if v.domain != "ai.onnx" else "": v.version for v in proto.opset_import}


def _parse(text: str) -> Digests:
    fields = json.loads(text)
    digests = Digests(**{**fields, "nodes": tuple(fields["nodes"])})
    values = [digests.wiring, *digests.nodes, *digests.record.values(), *digests.weights.values()]
    if not all(isinstance(value, str) for value in values):
        raise ValueError("a digest that is no text")
    return digests


def _find_entries(expected: Mapping[str, str], found: Mapping[str, str]) -> list[str]:
    """Return the entries that differ; of one with fields, the fields."""
    names = [n for n in {**expected, **found} if expected.get(n) != found.get(n)]
    return [n for n in names if not any(other.startswith(f"{n}.") for other in names)]


def _find_new(expected: Mapping[str, str], found: Mapping[str, str]) -> list[str]:
    """Return the names of weights that were not exported, under whichever name."""
    left = Counter(expected.values())
    new = []
    # First those that kept their names, which leave the others what is left.
    for name in sorted(found, key=lambda name: expected.get(name) != found[name]):
        if left[found[name]] > 0:
            left[found[name]] -= 1
        else:
            new.append(name)
    return new


def _count_shapes(weights: Mapping[str, str]) -> Counter[str]:
    return Counter(map(_shape, weights.values()))


def _shape(weight: str) -> str:
    """Return the type and shape of a weight's digest."""
    return weight.rpartition(":")[0]


def _digest_record(metadata: Mapping[str, str]) -> dict[str, str]:
    digests = {}
    for key, text in sorted(metadata.items()):
        name = key.removeprefix(PREFIX)
        if name == key or name in _KEYS:
            continue
        digests[name] = _digest(text.encode("utf-8", "replace"), 16)
        try:
            fields = json.loads(text)
        except (ValueError, RecursionError):  # a plain text
            continue
        for field, value in fields.items() if isinstance(fields, dict) else ():
            digests[f"{name}.{field}"] = _digest(json.dumps(value, sort_keys=True).encode(), 16)
    return digests


def _digest_wiring(proto: onnx.ModelProto) -> str:
    nodes = [
        [node.op_type, node.domain, node.overload, *_names(node.input), *node.output]
        for node in proto.graph.node
    ]
    # A runtime that writes a model lists all operators that it knows.
    used = {domain for _, domain, *_ in nodes}
    versions = read_opsets(proto)
    functions = [f.SerializeToString(deterministic=True).hex() for f in proto.functions]
    opsets = {domain: versions.get(domain) for domain in sorted(used)}
    return _digest(json.dumps([nodes, opsets, functions]).encode(), 16)


def _names(inputs: Any) -> list[str]:
    """Return a node's inputs, counted, without optional ones at the end that are left out."""
    names = list(inputs)
    while names and not names[-1]:
        names.pop()
    return [str(len(names)), *names]


def _digest_attributes(node: onnx.NodeProto) -> str:
    parts = []
    for attribute in sorted(node.attribute, key=lambda a: a.name):
        plain = type(attribute)()
        plain.CopyFrom(attribute)
        plain.ClearField("doc_string")
        parts.append(plain.SerializeToString(deterministic=True).hex())
    return _digest("\n".join(parts).encode(), 8)


def _digest_weight(value: onnx.TensorProto) -> str:
    from onnx import numpy_helper

    raw = value.raw_data if value.HasField("raw_data") else numpy_helper.to_array(value).tobytes()
    shape = "x".join(map(str, value.dims))
    return f"{value.data_type}:{shape}:{_digest(raw, 16)}"


def _digest_sparse(value: onnx.SparseTensorProto) -> str:
    shape = "x".join(map(str, value.dims))
    return f"sparse {shape}:{_digest_weight(value.values)}:{_digest_weight(value.indices)}"


def _digest_file(data: bytes, digest: str) -> str:
    """Digest a file with zeros in the place of its own digest, which stands near its end."""
    start = data.rfind(digest.encode())
    if start < 0:
        return ""
    view, end = memoryview(data), start + len(digest)
    found = hashlib.sha256(view[:start])
    found.update(_ZEROS.encode())
    found.update(view[end:])
    return found.hexdigest()


def _digest(data: bytes, characters: int) -> str:
    return hashlib.sha256(data).hexdigest()[:characters]
