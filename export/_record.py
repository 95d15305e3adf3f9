"""What an exported ONNX file says of itself, as text under "gatehub.*" in its metadata.

| key | value |
|---|---|
| format_version | 2; files of version 1 have no digests |
| version | of the gatehub that wrote it |
| task | name |
| labels | JSON list of class names, in the order of the logits |
| problem | JSON object, only where an image may have any number of labels: see below |
| preprocessing | JSON object, the fields of `Preprocessing`; `image_rules` may be missing |
| backbone | JSON object: name, digest |
| adapter_digest | 64 hexadecimal digits |
| probe | JSON object: seed, shape [3, C, H, W], logits (3, classes) |

`problem` is {"type": "multi-label", "thresholds": [a number in [0, 1] for each label]}: an image
has a label if the sigmoid of its logit is not below its threshold. Without it, an image has one
label, the one with the highest logit, and scores are a softmax.

The probe's images are `numpy.random.RandomState(seed).uniform(-2, 2, shape)` as float32: a stream
that numpy froze, so that a file can be checked in years and without gatehub. Three more entries
show whether it was changed; see `gatehub.export._digests`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from gatehub import __version__
from gatehub._text import quote
from gatehub.adapter import Adapter
from gatehub.adapter.names import check_task_name
from gatehub.adapter.probe import PROBE_IMAGES, PROBE_SEED, draw_images
from gatehub.backbone.images import ImageRules
from gatehub.backbone.preprocessing import Preprocessing
from gatehub.errors import ExportFormatError
from gatehub.export.parity import first_line
from gatehub.problem import MULTI_LABEL, ONE_LABEL, Problem

FORMAT_VERSION = 2
PREFIX = "gatehub."

T = TypeVar("T")

_READ_VERSIONS = {"1": 1, "2": 2}
_DIGEST_PATTERN = re.compile(r"[0-9a-f]{64}", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Record:
    """What a file says of itself.

    Args:
        task: name of the task.
        labels: class names, in the order of the logits.
        preprocessing: how an image becomes the input.
        backbone_name: architecture and tag of the backbone.
        backbone_digest: of its weights, before the gates.
        adapter_digest: of the adapter's tensors.
        probe_seed: of the images by which the file can be checked on its own.
        probe_logits: (3, len(labels)) float32, its answers to them.
        format_version: of the metadata.
        problem: whether an image has one of the labels, or any number of them.
    """

    task: str
    labels: tuple[str, ...]
    preprocessing: Preprocessing
    backbone_name: str
    backbone_digest: str
    adapter_digest: str
    probe_seed: int
    probe_logits: npt.NDArray[np.float32]
    format_version: int = FORMAT_VERSION
    problem: Problem = ONE_LABEL

    @classmethod
    def of(cls, adapter: Adapter, logits: npt.NDArray[np.float32]) -> Record:
        """Describe the export of an adapter that answers the probe with these logits."""
        return cls(
            task=adapter.task,
            labels=adapter.labels,
            preprocessing=adapter.preprocessing,
            backbone_name=adapter.backbone.name,
            backbone_digest=adapter.backbone.digest,
            adapter_digest=adapter.digest,
            probe_seed=PROBE_SEED,
            probe_logits=logits,
            problem=adapter.problem,
        )

    def probe_images(self) -> npt.NDArray[np.float32]:
        """Return the images that belong to the answers: (3, C, H, W), normalised."""
        return draw_images(self.probe_seed, self.preprocessing)

    def to_metadata(self) -> dict[str, str]:
        """Return the text for each key; nothing in it tells when or where it was made."""
        # Nine digits carry a float32 exactly.
        logits = [[float(f"{value:.9g}") for value in row] for row in self.probe_logits]
        values: dict[str, Any] = {
            "format_version": self.format_version,
            "version": __version__,
            "task": self.task,
            "labels": self.labels,
            **self.problem.to_json(),
            "preprocessing": self.preprocessing.to_json(),
            "backbone": {"name": self.backbone_name, "digest": self.backbone_digest},
            "adapter_digest": self.adapter_digest,
            "probe": {
                "seed": self.probe_seed,
                "shape": [PROBE_IMAGES, *self.preprocessing.input_size],
                "logits": logits,
            },
        }
        return {
            f"{PREFIX}{key}": v if isinstance(v, str) else json.dumps(v, ensure_ascii=False)
            for key, v in values.items()
        }

    @classmethod
    def from_metadata(cls, metadata: Mapping[str, str], *, subject: str) -> Record:
        """Read what a file says of itself.

        Args:
            metadata: the file's, by key; what is not gatehub's is left alone.
            subject: the file, for the errors.

        Raises:
            ExportFormatError: gatehub did not write it, or not like this.
        """
        version = metadata.get(f"{PREFIX}format_version")
        if version is None:
            raise ExportFormatError(
                f"{subject} is an ONNX model, but not one that gatehub exported: it has no "
                f"'{PREFIX}format_version' in its metadata.",
                hint="Export it with gatehub.",
            )
        if version not in _READ_VERSIONS:
            raise ExportFormatError(
                f"{subject} is of format version {quote(version, 20)}; this gatehub reads versions "
                f"{', '.join(_READ_VERSIONS)}.",
                hint="Upgrade gatehub (pip install -U gatehub).",
            )
        take = partial(read_entry, metadata, subject=subject)
        take("version", str)
        preprocessing = take("preprocessing", _read_preprocessing)
        backbone_name, backbone_digest = take("backbone", _read_backbone)
        labels = take("labels", _read_labels)
        several = f"{PREFIX}problem" in metadata
        problem = take("problem", partial(_read_problem, labels)) if several else ONE_LABEL
        seed, logits = take("probe", lambda text: _read_probe(text, preprocessing))
        if logits.shape != (PROBE_IMAGES, len(labels)):
            raise ExportFormatError(
                f"{subject} promises answers of shape {logits.shape}; expected "
                f"{(PROBE_IMAGES, len(labels))} for {len(labels)} labels.",
                hint="Export it again.",
            )
        return cls(
            task=take("task", _read_task),
            labels=labels,
            preprocessing=preprocessing,
            backbone_name=backbone_name,
            backbone_digest=backbone_digest,
            adapter_digest=take("adapter_digest", _read_digest),
            probe_seed=seed,
            probe_logits=logits,
            format_version=_READ_VERSIONS[version],
            problem=problem,
        )


def read_entry(
    metadata: Mapping[str, str], key: str, read: Callable[[str], T], *, subject: str
) -> T:
    """Read an entry of gatehub's from a file's metadata.

    Args:
        metadata: the file's.
        key: without "gatehub.".
        read: from its text; raises a KeyError, TypeError or ValueError.
        subject: the file, for the error.

    Raises:
        ExportFormatError: it is not there, or cannot be read.
    """
    try:
        return read(metadata[f"{PREFIX}{key}"])
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise ExportFormatError(
            f"{subject} has no '{PREFIX}{key}' in its metadata as gatehub writes it "
            f"({first_line(error)}).",
            hint="Export it again.",
        ) from error


def _read_task(text: str) -> str:
    check_task_name(text)
    return text


def _read_digest(text: str) -> str:
    if _DIGEST_PATTERN.fullmatch(text) is None:
        raise ValueError(f"{text[:80]!r} is not 64 hexadecimal digits")
    return text


def _read_labels(text: str) -> tuple[str, ...]:
    labels = json.loads(text)
    if not isinstance(labels, list) or not all(isinstance(v, str) and v for v in labels):
        raise ValueError("not a list of names")
    if not labels or len(set(labels)) != len(labels):
        raise ValueError(f"{len(labels)} names, {len(set(labels))} of them distinct")
    return tuple(labels)


def _read_problem(labels: Sequence[str], text: str) -> Problem:
    fields = _read_object(text)
    if fields.keys() != {"type", "thresholds"} or fields["type"] != MULTI_LABEL:
        raise ValueError("not of type multi-label with thresholds")
    if not isinstance(fields["thresholds"], list) or len(fields["thresholds"]) != len(labels):
        raise ValueError(f"not a threshold for each of {len(labels)} labels")
    return Problem(thresholds=tuple(fields["thresholds"]))


def _read_object(text: str) -> dict[str, Any]:
    fields = json.loads(text)
    if not isinstance(fields, dict):
        raise ValueError("not an object")
    return fields


def _read_preprocessing(text: str) -> Preprocessing:
    fields = _read_object(text)
    rules = fields.pop("image_rules", None)  # files that were exported before have none
    preprocessing = Preprocessing(
        **_as_tuples(fields),
        image_rules=None if rules is None else ImageRules(**_as_tuples(rules)),
    )
    if not all(type(size) is int for size in preprocessing.input_size):
        raise ValueError(f"input_size is {preprocessing.input_size}")
    return preprocessing


def _as_tuples(fields: Any) -> dict[str, Any]:
    if not isinstance(fields, dict):
        raise ValueError("not an object")
    return {k: tuple(v) if isinstance(v, list) else v for k, v in fields.items()}


def _read_backbone(text: str) -> tuple[str, str]:
    fields = _read_object(text)
    if not isinstance(fields["name"], str):
        raise ValueError("a name that is not text")
    return fields["name"], _read_digest(fields["digest"])


def _read_probe(text: str, preprocessing: Preprocessing) -> tuple[int, npt.NDArray[np.float32]]:
    fields = _read_object(text)
    seed = fields["seed"]
    if type(seed) is not int or not 0 <= seed < 2**32:
        raise ValueError(f"seed {str(seed)[:80]}")
    with np.errstate(over="ignore"):  # what is too large becomes infinite, and is refused
        logits = np.asarray(fields["logits"], np.float32)
    if not np.isfinite(logits).all():
        raise ValueError("logits that are not finite")
    if fields["shape"] != [PROBE_IMAGES, *preprocessing.input_size]:
        raise ValueError(f"shape {str(fields['shape'])[:80]}")
    return seed, logits
