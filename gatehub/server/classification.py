"""One request for one image's classes: how it is read, answered and ranked.

The two forms that huggingface_hub's `InferenceClient.image_classification` sends are both
read: the image as the raw body, or JSON `{"inputs": base64, "parameters": {…}}`.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from reprlib import repr as shorten
from typing import TYPE_CHECKING, TypedDict

import torch
from torch import Tensor

from gatehub._text import quote
from gatehub.errors import NonFiniteAnswerError, RequestError

if TYPE_CHECKING:
    from gatehub.backbone.preprocessing import Preprocessing
    from gatehub.runtime.engine import Answer
    from gatehub.server.settings import ServerSettings

# As in Hugging Face's image-classification pipeline.
DEFAULT_TOP_K = 5

_FUNCTIONS: Mapping[str, Callable[[Tensor], Tensor]] = {
    "softmax": lambda logits: logits.softmax(dim=-1),
    "sigmoid": torch.sigmoid,
    "none": lambda logits: logits,
}
_OPTIONS = ("top_k", "function_to_apply")


class Score(TypedDict):
    """One class of an answer."""

    label: str
    score: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassificationRequest:
    """What a client asked.

    Args:
        image: the bytes of one image file.
        top_k: how many classes to answer with; all, if there are fewer. None for the usual number,
            or for those that reach their thresholds in a task of several labels an image.
        function_to_apply: what makes scores of logits: "softmax", "sigmoid" or "none"; None for
            the task's own.

    Raises:
        RequestError: an option is out of its range.
    """

    image: bytes
    top_k: int | None = None
    function_to_apply: str | None = None

    def __post_init__(self) -> None:
        if self.top_k is not None and (type(self.top_k) is not int or self.top_k < 1):
            raise RequestError(
                f"top_k is {shorten(self.top_k)}; it must be a whole number of at least 1."
            )
        # A list, since JSON may bring values that cannot be looked up in a mapping.
        if self.function_to_apply not in [None, *_FUNCTIONS]:
            raise RequestError(
                f"function_to_apply is {shorten(self.function_to_apply)}; "
                f"expected one of {', '.join(_FUNCTIONS)}."
            )

    def images(self, preprocessing: Preprocessing, settings: ServerSettings) -> Iterator[Tensor]:
        """Decode the image as a task wants it: (3, H, W) float32, normalised.

        Raises:
            InputError: the image cannot be used.
        """
        yield decode(self.image, preprocessing, settings)

    def present(self, answers: Sequence[Answer]) -> list[Score]:
        """Put the classes of the image in order, as the request asks for them.

        Raises:
            NonFiniteAnswerError: a logit is NaN or infinite.
        """
        (answer,) = answers
        check_finite(answer)
        logits, problem = answer.logits, answer.task.problem
        scores = _FUNCTIONS[self.function_to_apply or problem.function](logits)
        chosen = problem.choose(logits, scores, top_k=self.top_k, usual=DEFAULT_TOP_K)
        return [Score(label=answer.task.labels[i], score=scores[i].item()) for i in chosen]


def parse_request(
    body: bytes, *, content_type: str, query: Mapping[str, str]
) -> ClassificationRequest:
    """Read a request in either form.

    Args:
        body: as sent, not empty.
        content_type: the header's value, or "". Only JSON and multipart forms are told apart;
            anything else is taken for an image, since clients often send a wrong type or none.
        query: options from the URL. Those in a JSON body win over them.

    Raises:
        RequestError: malformed, or an option that is unknown or out of its range.
    """
    media_type = content_type.partition(";")[0].strip().lower()
    options: dict[str, object] = dict(query)
    count = query.get("top_k", "")
    if count.isdecimal() and len(count) < 10:
        options["top_k"] = int(count)
    if media_type.startswith("multipart/"):
        raise RequestError(
            "The request body is a multipart form.",
            hint="Send the image itself as the body, as in: curl --data-binary @photo.jpg URL",
        )
    if media_type == "application/json":
        body, parameters = _parse_json(body)
        options |= {name: value for name, value in parameters.items() if value is not None}
    unknown = sorted(set(options) - set(_OPTIONS))
    if unknown:
        raise RequestError(
            f"Unknown option {shorten(unknown[0])}; expected {' or '.join(_OPTIONS)}."
        )
    return ClassificationRequest(image=body, **options)  # type: ignore[arg-type]


def decode(encoded: bytes, preprocessing: Preprocessing, settings: ServerSettings) -> Tensor:
    """Decode an image file as a task wants it: (3, H, W) float32, normalised.

    Raises:
        InputError: the image cannot be used.
    """
    transform = preprocessing.transform(
        max_pixels=settings.max_pixels, max_resized_pixels=settings.max_resized_pixels
    )
    return transform(encoded)


def decode_base64(text: str) -> bytes:
    """Return the bytes that base64 stands for, as clients write it.

    It may be a `data:` URI, be broken into lines, and end without padding.

    Raises:
        ValueError: it is none.
    """
    if text[:5].lower() == "data:":
        head, _, text = text.partition(",")
        if not head.lower().endswith(";base64"):
            raise ValueError("a data: URI that is not base64")
    packed = text.encode("ascii").translate(None, b" \t\r\n")
    return base64.b64decode(packed + b"=" * (-len(packed) % 4), validate=True)


def check_finite(answer: Answer) -> None:
    """Refuse to answer with values that say nothing.

    Raises:
        NonFiniteAnswerError: a logit is NaN or infinite.
    """
    if not bool(torch.isfinite(answer.logits).all()):
        raise NonFiniteAnswerError(
            f"Task {quote(answer.task.task)} (generation {answer.task.generation}) answered this "
            "image with values that are not finite.",
            hint="Another image may do; the adapter's owner should know.",
        )


def _parse_json(body: bytes) -> tuple[bytes, Mapping[str, object]]:
    form = 'Send {"inputs": "<base64 of an image>", "parameters": {"top_k": 3}}.'
    try:
        content = json.loads(body)
    except (ValueError, RecursionError):
        raise RequestError("The request body is not valid JSON.", hint=form) from None
    if (
        not isinstance(content, dict)
        or not {"inputs"} <= set(content) <= {"inputs", "parameters"}
        or not isinstance(content["inputs"], str)
    ):
        raise RequestError(
            "The JSON body is not an object of 'inputs', a string, and 'parameters'.", hint=form
        )
    parameters = content.get("parameters") or {}
    if not isinstance(parameters, dict):
        raise RequestError("'parameters' in the JSON body is not an object.", hint=form)
    try:
        return decode_base64(content["inputs"]), parameters
    except ValueError:
        raise RequestError("'inputs' in the JSON body is not base64.", hint=form) from None
