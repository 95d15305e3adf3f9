"""From a PyTorch model to ONNX, without what the exporter leaves behind and runtimes trip over."""

from __future__ import annotations

import logging
import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, cast

import numpy as np
import torch
from torch import nn

from gatehub.errors import ExportError
from gatehub.export.parity import INPUT_NAME, OUTPUT_NAME, first_line

if TYPE_CHECKING:
    import onnx

MIN_OPSET = 18  # the exporter writes this one when it is asked for less
MAX_OPSET = 24


def translate(
    model: nn.Module, input_size: tuple[int, int, int], *, opset: int, name: str
) -> onnx.ModelProto:
    """Translate a model to ONNX: "images" (batch, C, H, W) → "logits" (batch, classes).

    Args:
        model: in evaluation mode, float32, on the CPU.
        input_size: (C, H, W) in pixels.
        opset: version of ONNX's operators, 18 to 24.
        name: of the model, for the errors.

    Raises:
        ExportError: it cannot be translated, or not to this opset.
    """
    from gatehub.export._batch_norm import TRANSLATIONS

    # Two images: a batch of one would be taken for a constant.
    example = torch.zeros(2, *input_size)
    try:
        with _quiet():
            program = torch.onnx.export(
                model,
                (example,),
                dynamo=True,
                opset_version=opset,
                input_names=[INPUT_NAME],
                output_names=[OUTPUT_NAME],
                dynamic_shapes=({0: torch.export.Dim("batch")},),
                custom_translation_table=dict(TRANSLATIONS),
                optimize=True,  # not the default before torch 2.7
                verbose=False,
            )
            proto = cast("torch.onnx.ONNXProgram", program).model_proto
    except Exception as error:  # the exporter raises whatever its passes trip over
        cause: BaseException = error
        while cause.__cause__ is not None:  # the outermost text is advice to torch's developers
            cause = cause.__cause__
        raise _untranslated(name, first_line(cause)) from error
    # torch 2.6 traces what it cannot export: what was decided for the example would hold for all.
    if proto.graph.input[0].type.tensor_type.shape.dim[0].HasField("dim_value"):
        raise _untranslated(name, f"only for a batch of {len(example)}")
    found = {entry.domain: entry.version for entry in proto.opset_import}.get("")
    if found != opset:
        raise ExportError(
            f"torch {torch.__version__} wrote ONNX opset {found} where {opset} was asked for.",
            hint=f"Ask for opset {found}, or upgrade torch.",
        )
    _remove_traces(proto.graph)
    _guard_zero_pads(proto.graph)
    _lower_ir_version(proto, opset)
    return proto


@contextmanager
def _quiet() -> Iterator[None]:
    """Hold back what the exporter warns of, which is about its own parts."""
    logger = logging.getLogger("torch")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def _untranslated(name: str, reason: str) -> ExportError:
    return ExportError(
        f"{name} cannot be translated to ONNX by torch {torch.__version__} ({reason}).",
        hint="Its forward pass must not depend on the values in the images.",
    )


def _remove_traces(graph: onnx.GraphProto) -> None:
    """Take out the exporter's notes: they hold paths of the machine, and outweigh small tasks."""
    for part in (graph, *graph.node, *graph.input, *graph.output, *graph.value_info):
        del part.metadata_props[:]
        part.ClearField("doc_string")


def _lower_ir_version(proto: onnx.ModelProto, opset: int) -> None:
    """Write the oldest file format that has the opset: a runtime refuses what is newer than itself.

    The exporter writes version 10 always. Runtimes of opset 18's time read up to 8, and nothing in
    the file needs more.
    """
    from onnx.helper import OP_SET_ID_VERSION_MAP

    # An older onnx does not know the latest opsets.
    proto.ir_version = OP_SET_ID_VERSION_MAP.get(("ai.onnx", opset), proto.ir_version)


def _guard_zero_pads(graph: onnx.GraphProto) -> None:
    """Keep ONNX Runtime and onnxsim from merging zero padding into the max pooling behind it.

    They would pad with minus infinity instead, and a border whose values are all negative would
    come out negative, not 0. Any other padding value stops them: the smallest normal float32.
    """
    from onnx import numpy_helper

    scalars = [value for value in graph.initializer if math.prod(value.dims) == 1]
    zeros = {value.name: value for value in scalars if not numpy_helper.to_array(value).any()}
    pooled = {node.input[0] for node in graph.node if node.op_type == "MaxPool"}
    for node in graph.node:
        if node.op_type != "Pad" or node.output[0] not in pooled:
            continue
        padding = node.input[2] if len(node.input) > 2 else ""
        if padding and padding not in zeros:
            continue
        guard = f"{node.output[0]}.almost_zero"
        node.input[:] = [*node.input[:2], guard, *node.input[3:]]
        value = np.array(np.finfo(np.float32).tiny, np.float32)
        graph.initializer.append(numpy_helper.from_array(value, guard))
        if padding and not any(padding in other.input for other in graph.node):
            graph.initializer.remove(zeros[padding])
