"""One inference request: what it asks, the images in it, and what it gets.

A task takes one of two inputs, a batch of B images:

    images          FP32 (B, 3, H, W), preprocessed as the task's model configuration says
    encoded_images  BYTES (B,), image files, which the server decodes and preprocesses

and has two outputs, FP32 (B, classes): `logits`, and `scores`, which are probabilities. With
`classification: k` an output is BYTES (B, k) instead, `value:index:label` with the highest first.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from reprlib import repr as shorten
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from gatehub._text import quote
from gatehub.errors import InputError, RequestError
from gatehub.runtime.inputs import check_images
from gatehub.server.classification import check_finite, decode
from gatehub.server.inference_protocol.compression import choose_coding, compress
from gatehub.server.inference_protocol.tensors import (
    HEADER,
    check_shape,
    read_elements,
    read_floats,
    split_body,
    take_binary,
    write_elements,
    write_floats,
)

if TYPE_CHECKING:
    from gatehub.backbone.preprocessing import Preprocessing
    from gatehub.runtime.engine import Answer
    from gatehub.server.settings import ServerSettings

IMAGES, ENCODED = "images", "encoded_images"
LOGITS, SCORES = "logits", "scores"
VERSION = "1"

_DATATYPES = {IMAGES: "FP32", ENCODED: "BYTES"}
_FORMS = {IMAGES: ("B", "3", "H", "W"), ENCODED: ("B",)}
# Triton's clients can send the last two, which Triton by default makes no difference by, either.
_PARAMETERS = ("binary_data_output", "priority", "timeout")


@dataclass(frozen=True, slots=True, kw_only=True)
class Output:
    """An output that a client wants.

    Args:
        name: "logits" or "scores".
        binary: whether as bytes behind the JSON.
        classes: how many of the highest values, with their labels; 0 for all values, without.
    """

    name: str
    binary: bool
    classes: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """An answer as it is sent.

    Args:
        body: JSON, and binary tensors behind it.
        headers: that say what it is.
    """

    body: bytes
    headers: dict[str, str]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class InferenceRequest:
    """What a client asked.

    Args:
        id: of the client's own, or None.
        name: of the input.
        shape: of it.
        data: its values, as bytes or as JSON has them.
        outputs: that it wants.
        coding: "gzip" or "deflate" for an answer that is compressed, or "".
    """

    id: str | None
    name: str
    shape: tuple[int, ...]
    data: object
    outputs: tuple[Output, ...]
    coding: str = ""

    def images(self, preprocessing: Preprocessing, settings: ServerSettings) -> Iterator[Tensor]:
        """Make images as a task wants them: each (3, H, W) float32, normalised.

        Raises:
            RequestError: the tensor is not of the task's size, or its data do not fit its shape.
            InputError: an image cannot be used, or values are NaN or infinite.
        """
        if self.name == ENCODED:
            elements = read_elements(self.data, self.shape, self.name)
            for number, encoded in enumerate(elements):
                try:
                    yield decode(encoded, preprocessing, settings)
                except InputError as error:
                    if len(elements) == 1:
                        raise
                    raise type(error)(
                        f"Image {number} of {len(elements)}, counted from 0: {error.message}",
                        hint=error.hint,
                    ) from error
            return
        if self.shape[1:] != preprocessing.input_size:
            raise RequestError(
                f"Input {self.name} has shape {shorten(list(self.shape))}; this task takes "
                f"[B, {', '.join(map(str, preprocessing.input_size))}].",
                hint=f"Or send image files as {ENCODED}; the server makes them that size.",
            )
        images = read_floats(self.data, self.shape, self.name)
        check_images(images, channels=self.shape[1], subject=f"Input {self.name}")
        yield from images

    def present(self, answers: Sequence[Answer]) -> Reply:
        """Make the outputs.

        Raises:
            NonFiniteAnswerError: a logit is NaN or infinite.
        """
        for answer in answers:
            check_finite(answer)
        info = answers[0].task
        logits = torch.stack([answer.logits for answer in answers])
        told: list[dict[str, Any]] = []
        behind: list[bytes] = []
        for output in self.outputs:
            values = logits if output.name == LOGITS else info.problem.score(logits)
            if output.classes:
                made, data = _classify(values, info.labels, output)
            else:
                made = {"datatype": "FP32", "shape": list(values.shape)}
                data = write_floats(values) if output.binary else values.flatten().tolist()
            if isinstance(data, bytes):
                made["parameters"] = {"binary_data_size": len(data)}
                behind.append(data)
            else:
                made["data"] = data
            told.append({"name": output.name, **made})
        content: dict[str, Any] = {"model_name": info.task, "model_version": VERSION}
        if self.id is not None:
            content["id"] = self.id
        head = json.dumps(content | {"outputs": told}, separators=(",", ":")).encode()
        headers = {"Content-Type": "application/json"}
        if behind:  # of the body as it is before it is compressed
            headers = {"Content-Type": "application/octet-stream", HEADER: str(len(head))}
        body = b"".join([head, *behind])
        compressed = compress(body, self.coding)
        if compressed is None:
            return Reply(body=body, headers=headers)
        return Reply(body=compressed, headers={**headers, "Content-Encoding": self.coding})


def parse_inference(
    body: bytes, *, lengths: Sequence[str], settings: ServerSettings, accepted: str = ""
) -> InferenceRequest:
    """Read a request.

    Args:
        body: as sent, and inflated; its Content-Type says nothing, since clients send none.
        lengths: the values of the header `HEADER`.
        settings: limit the images.
        accepted: the header Accept-Encoding.

    Raises:
        RequestError: malformed, or something that no task has.
    """
    content, rest = split_body(body, lengths)
    request = _check_object(
        content, ("inputs",), ("id", "outputs", "parameters"), "The JSON of the request"
    )
    parameters = _check_object(
        request.get("parameters") or {}, (), _PARAMETERS, "'parameters' of the request"
    )
    inputs = request["inputs"]
    if not isinstance(inputs, list) or len(inputs) != 1:
        found = len(inputs) if isinstance(inputs, list) else shorten(inputs)
        raise RequestError(
            f"'inputs' of the request has {found}; expected a list of one, {IMAGES} or {ENCODED}."
        )
    tensor = _check_object(
        inputs[0], ("name", "shape", "datatype"), ("data", "parameters"), "The input"
    )
    name, datatype = tensor["name"], tensor["datatype"]
    if not isinstance(name, str) or name not in _DATATYPES:
        raise RequestError(
            f"The input is called {quote(name, 60)}; expected {IMAGES} or {ENCODED}."
        )
    if datatype != _DATATYPES[name]:
        raise RequestError(
            f"Input {name} has datatype {quote(datatype, 20)}; expected {_DATATYPES[name]}."
        )
    shape = check_shape(tensor["shape"], name, _FORMS[name], most=settings.most_images)
    data, rest = take_binary(tensor, name, rest)
    if len(rest):
        raise RequestError(f"The body has {len(rest)} bytes after its last tensor.")
    binary = parameters.get("binary_data_output", False)
    return InferenceRequest(
        id=_check_id(request.get("id")),
        name=name,
        shape=shape,
        data=tensor["data"] if data is None else data,
        outputs=_read_outputs(
            request.get("outputs"), _check_truth(binary, "binary_data_output of the request")
        ),
        coding=choose_coding(accepted),
    )


def _read_outputs(outputs: object, binary: bool) -> tuple[Output, ...]:
    """Return the outputs that are wanted; all, where none is named."""
    if not outputs and (outputs is None or isinstance(outputs, list)):
        return tuple(Output(name=name, binary=binary) for name in (LOGITS, SCORES))
    if not isinstance(outputs, list):
        raise RequestError(f"'outputs' of the request is {shorten(outputs)}; expected a list.")
    wanted: dict[str, Output] = {}
    for output in outputs:
        told = _check_object(output, ("name",), ("parameters",), "An output")
        name = told["name"]
        if name not in (LOGITS, SCORES) or name in wanted:
            raise RequestError(
                f"Output {quote(name, 60)} is {'wanted twice' if name in wanted else 'unknown'}; "
                f"expected {LOGITS} and {SCORES}, each at most once."
                if isinstance(name, str)
                else f"An output's name is {quote(name)}; expected {LOGITS} or {SCORES}."
            )
        options = _check_object(
            told.get("parameters") or {},
            (),
            ("binary_data", "classification"),
            f"'parameters' of output {name}",
        )
        classes = options.get("classification", 0)
        if type(classes) is not int or classes < 0:
            raise RequestError(
                f"classification of output {name} is {shorten(classes)}; expected a whole number "
                "of at least 0."
            )
        own = _check_truth(options.get("binary_data", binary), f"binary_data of output {name}")
        wanted[name] = Output(name=name, binary=own, classes=classes)
    return tuple(wanted.values())


def _classify(
    values: Tensor, labels: Sequence[str], output: Output
) -> tuple[dict[str, Any], list[str] | bytes]:
    """Return the highest values of each image as the classification extension writes them."""
    count = min(output.classes, values.shape[1])
    places = values.sort(dim=1, descending=True, stable=True).indices[:, :count]
    texts = [
        f"{row[place].item():.9g}:{place}:{labels[place]}"
        for row, chosen in zip(values, places.tolist(), strict=True)
        for place in chosen
    ]
    made = {"datatype": "BYTES", "shape": [len(values), count]}
    return made, write_elements(text.encode() for text in texts) if output.binary else texts


def _check_object(
    content: object, needed: Sequence[str], others: Sequence[str], subject: str
) -> dict[str, Any]:
    """Return a JSON object that has what it must have, and nothing unknown."""
    allowed = [*needed, *others]
    if not isinstance(content, dict):
        raise RequestError(f"{subject} is {shorten(content)}; expected a JSON object.")
    unknown = [name for name in content if name not in allowed]
    missing = [name for name in needed if name not in content]
    if unknown or missing:
        problem = f"has {quote(unknown[0], 60)}" if unknown else f"has no {quote(missing[0])}"
        raise RequestError(f"{subject} {problem}; expected {', '.join(allowed)}.")
    return content


def _check_id(given: object) -> str | None:
    if given is None or (isinstance(given, str) and len(given) <= 1000):
        return given
    raise RequestError(f"'id' of the request is {shorten(given)}; expected a string.")


def _check_truth(given: object, subject: str) -> bool:
    if not isinstance(given, bool):
        raise RequestError(f"{subject} is {shorten(given)}; expected true or false.")
    return given
