"""What a team runs today for many tasks: a model, a LoRA, or a session for each of them."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

import timm
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from gatehub.adapter import Adapter
from gatehub.backbone import Backbone
from gatehub.export import export_onnx
from gatehub.gates.fold import fold


def timm_eager(backbone: Backbone, adapter: Adapter) -> Callable[[Tensor], Tensor]:
    """A model of timm with the task's weights, as timm builds it."""
    model = fold(backbone, adapter)

    def run(images: Tensor) -> Tensor:
        with torch.inference_mode():
            return model(images)

    return run


def compiled(
    backbone: Backbone, adapter: Adapter, dtype: torch.dtype
) -> Callable[[Tensor], Tensor]:
    """The task folded, its norms merged, channels-last, and compiled by torch."""
    model = fold(backbone, adapter, merge_norm=True)
    model = model.to(dtype=dtype, memory_format=torch.channels_last)
    compiled_model = torch.compile(model, dynamic=False)

    def run(images: Tensor) -> Tensor:
        with torch.inference_mode():
            given = images.to(dtype).contiguous(memory_format=torch.channels_last)
            return compiled_model(given).float()

    return run


def onnx_sessions(
    backbone: Backbone, adapter: Adapter, count: int
) -> list[Callable[[Tensor], Tensor]]:
    """Sessions of ONNX Runtime over the task's export, each with weights of its own."""
    import onnxruntime

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "task.onnx"
        export_onnx(backbone, adapter, path)
        data = path.read_bytes()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    sessions = [
        onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
        for _ in range(count)
    ]

    def serve(session: onnxruntime.InferenceSession) -> Callable[[Tensor], Tensor]:
        return lambda images: torch.from_numpy(session.run(None, {"images": images.numpy()})[0])

    return [serve(session) for session in sessions]


class PeftTasks:
    """A timm model with PEFT's LoRA (rank 4) on each convolution of one group, for two tasks."""

    def __init__(self, backbone: Backbone) -> None:
        from peft import LoraConfig, get_peft_model

        torch.manual_seed(0)
        model = timm.create_model(backbone.identity.architecture, pretrained=False)
        # PEFT takes no depthwise convolution at this rank.
        targets = [
            name
            for name, layer in model.named_modules()
            if isinstance(layer, nn.Conv2d) and layer.groups == 1
        ]
        config = LoraConfig(r=4, target_modules=targets)
        self._model = get_peft_model(model, config, adapter_name="first").eval()
        self._model.add_adapter("second", config)

    def switch(self) -> None:
        """Make another task the active one, unmerged, and the first one active again."""
        self._model.set_adapter("second")
        self._model.set_adapter("first")

    def merge_and_unmerge(self) -> None:
        """Merge a task's weights, and take them out again to make room for the next one."""
        self._model.merge_adapter()
        self._model.unmerge_adapter()

    def run(self, images: Tensor) -> Tensor:
        """Answer for the active task, unmerged."""
        with torch.inference_mode():
            return self._model(images)

    def run_merged(self, images: Tensor) -> Tensor:
        """Answer for the active task, merged for this one batch and unmerged after it."""
        self._model.merge_adapter()
        try:
            return self.run(images)
        finally:
            self._model.unmerge_adapter()


class Checkpoint:
    """A task's full checkpoint as a safetensors file."""

    def __init__(self, backbone: Backbone, adapter: Adapter, folder: Path) -> None:
        self._name = backbone.identity.architecture
        self._classes = len(adapter.labels)
        self._path = folder / "checkpoint.safetensors"
        model = fold(backbone, adapter)
        save_file({name: t.contiguous() for name, t in model.state_dict().items()}, self._path)

    @property
    def bytes(self) -> int:
        """Bytes of the file."""
        return self._path.stat().st_size

    def load(self) -> nn.Module:
        """Build the model and load the file into it, as a server that changes tasks does."""
        model = timm.create_model(self._name, pretrained=False, num_classes=self._classes)
        model.load_state_dict(load_file(self._path))
        return model.eval()
