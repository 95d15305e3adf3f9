"""What the protocol says of the server and of a task: metadata, configuration, index."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from gatehub import __version__
from gatehub.server.inference_protocol.inference import ENCODED, IMAGES, LOGITS, SCORES, VERSION

if TYPE_CHECKING:
    from gatehub.runtime.engine import TaskInfo

PLATFORM = "gatehub"
# A registered task is ready, too: it answers, though its first request takes longer.
_READY = ("ready", "registered")
_EXTENSIONS = (
    *("binary_tensor_data", "classification", "model_configuration"),
    *("model_repository", "statistics"),
)


def describe_server() -> dict[str, Any]:
    """Return the server's metadata."""
    return {"name": "gatehub", "version": __version__, "extensions": list(_EXTENSIONS)}


def describe_model(info: TaskInfo) -> dict[str, Any]:
    """Return a task's metadata; a request has one of the two inputs."""
    size, classes = list(info.preprocessing.input_size), len(info.labels)
    return {
        "name": info.task,
        "versions": [VERSION],
        "platform": PLATFORM,
        "inputs": [
            {"name": IMAGES, "datatype": "FP32", "shape": [-1, *size]},
            {"name": ENCODED, "datatype": "BYTES", "shape": [-1]},
        ],
        "outputs": [
            {"name": name, "datatype": "FP32", "shape": [-1, classes]} for name in (LOGITS, SCORES)
        ],
    }


def configure_model(info: TaskInfo, *, most: int) -> dict[str, Any]:
    """Return a task's configuration in the form of Triton's ModelConfig.

    Args:
        info: the task.
        most: images in a request.
    """
    told = {
        "labels": info.labels,
        "preprocessing": asdict(info.preprocessing),
        "backbone": info.backbone,
        "digest": info.digest,
        **info.problem.to_json(),
    }
    return {
        "name": info.task,
        "platform": PLATFORM,
        "backend": PLATFORM,
        "max_batch_size": most,
        "input": [
            {
                "name": IMAGES,
                "data_type": "TYPE_FP32",
                "dims": list(info.preprocessing.input_size),
                "optional": True,
            },
            {"name": ENCODED, "data_type": "TYPE_STRING", "dims": [], "optional": True},
        ],
        "output": [
            {"name": name, "data_type": "TYPE_FP32", "dims": [len(info.labels)]}
            for name in (LOGITS, SCORES)
        ],
        "parameters": {
            name: {"string_value": value if isinstance(value, str) else json.dumps(value)}
            for name, value in told.items()
        },
    }


def is_ready(state: str) -> bool:
    """Whether a task in one of the server's states answers requests."""
    return state in _READY


def index_models(states: Mapping[str, str], *, ready: bool) -> list[dict[str, str]]:
    """List the tasks and their states.

    Args:
        states: by name, see `Loads.states`.
        ready: whether only those that answer are asked for.
    """
    index = []
    for task, state in states.items():
        known = "READY" if is_ready(state) else "LOADING" if state == "loading" else "UNAVAILABLE"
        if known == "READY" or not ready:
            # What the state says beyond that: that a first request loads it, or what is wrong.
            reason = state.partition(": ")[2] if known == "UNAVAILABLE" else ""
            reason = "registered: its first request loads it" if state == "registered" else reason
            index.append({"name": task, "version": VERSION, "state": known, "reason": reason})
    return index
