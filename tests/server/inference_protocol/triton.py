"""What tritonclient sends, made of arrays."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from tritonclient.http import InferenceServerClient, InferInput, InferRequestedOutput

from gatehub.server.inference_protocol.inference import parse_inference
from gatehub.server.settings import ServerSettings

__all__ = ["InferRequestedOutput", "ask", "encoded", "images", "normal", "parse"]


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).numpy()


def images(values: np.ndarray, *, binary: bool = True) -> InferInput:
    tensor = InferInput("images", list(values.shape), "FP32")
    return tensor.set_data_from_numpy(values, binary_data=binary)


def encoded(files: list[Any], *, binary: bool = True) -> InferInput:
    values = np.empty(len(files), dtype=object)
    values[:] = files
    tensor = InferInput("encoded_images", [len(files)], "BYTES")
    return tensor.set_data_from_numpy(values, binary_data=binary)


def ask(inputs: list[InferInput], **options: Any) -> tuple[bytes, list[str]]:
    """Return the body that the client sends, and its headers' lengths of JSON."""
    body, length = InferenceServerClient.generate_request_body(inputs, **options)
    return body, [] if length is None else [str(length)]


def parse(body: bytes, lengths: list[str], **settings: int) -> Any:
    return parse_inference(body, lengths=lengths, settings=ServerSettings(**settings))
