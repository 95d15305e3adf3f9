"""What is recorded of a backbone for each image size that callers send."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import torch
from torch import Tensor, nn

from gatehub.backbone.torch_settings import pin_settings
from gatehub.compiler.forward import draw_noise
from gatehub.compiler.kernel_forms import KernelForms, find_forms
from gatehub.compiler.lowering import Run, compile_graph
from gatehub.compiler.program import Program
from gatehub.compiler.recording import record
from gatehub.errors import ExecutionError, InputError
from gatehub.gates.merged_backbone import MergedBackbone
from gatehub.runtime.execution.memo import Memo
from gatehub.runtime.heap import return_free_memory

Size = tuple[int, int, int]

# Programs are kept for the backbone's own image size and for so many others, since callers choose
# what sizes they send. One holds no weights and takes a few megabytes; recording takes 0.2 to 1 s.
OTHER_SIZES = 32


def size_of(images: Tensor) -> Size:
    """Return (channels, height, width) of images (B, C, H, W)."""
    _, channels, height, width = images.shape
    return channels, height, width


def leave(answer: Tensor) -> Tensor:
    """Bring logits to where callers expect them: float32, on the CPU, and theirs to change."""
    # What is made in inference mode can be neither changed outside it nor learned from.
    with torch.inference_mode(False), torch.no_grad():
        return answer.float().cpu().clone()


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Recorded:
    """What is known of images of one size.

    Args:
        size: (channels, height, width) of an image.
        program: what the network runs on them.
        kernels: names of the weights that programs of every size take in any form.
        whole: the program as a function (images, weights, labels) → logits.
        device: of images and weights.
        dtype: of images and weights.
        memory_format: of images and kernels, channels-last or contiguous.
        memo: what else is made of the program.
        found: the forms of weights that were asked for, each once.
    """

    size: Size
    program: Program
    kernels: frozenset[str]
    whole: Run
    device: torch.device
    dtype: torch.dtype
    memory_format: torch.memory_format
    memo: Memo = field(default_factory=Memo)
    found: dict[KernelForms, KernelForms] = field(default_factory=dict)

    def enter(self, images: Tensor) -> Tensor:
        """Bring images to where and how the network computes, for it to use up.

        Args:
            images: (B, C, H, W), of any dtype and on any device; they stay as they are.
        """
        given = images.to(device=self.device, dtype=self.dtype)
        given = given.contiguous(memory_format=self.memory_format)
        if self.program.changes_images and given is images:
            return given.clone(memory_format=torch.preserve_format)
        return given

    def exact(self) -> Run:
        """Return the program as a function that treats NaN as the module does."""
        return self.memo.get("exact", partial(compile_graph, self.program.graph, exact=True))

    def forms(self, batch: int) -> KernelForms:
        """Return the forms of weights for batches of so many images, with the present threads."""

        def find() -> KernelForms:
            found = KernelForms()
            if self.memory_format is torch.channels_last:
                found = find_forms(
                    self.program, batch, kernels=self.kernels, device=self.device, dtype=self.dtype
                )
            return self.found.setdefault(found, found)

        return self.memo.get(("forms", batch, torch.get_num_threads()), find)

    def draw(self, chosen: Sequence[int]) -> Tensor:
        """Return some of three images of noise, by their indices, as the network takes them."""
        images = draw_noise(
            3,
            self.size,
            seed=0,
            device=self.device,
            dtype=self.dtype,
            memory_format=self.memory_format,
        )
        return images[[*chosen]].contiguous(memory_format=self.memory_format)


class Sizes:
    """Records a backbone on images of each size, once.

    Args:
        merged: the backbone.
        dtype: of weights and activations.
        gone: called whenever a size had to go for another.
    """

    def __init__(
        self, merged: MergedBackbone, dtype: torch.dtype, *, gone: Callable[[], None]
    ) -> None:
        self._merged, self._dtype = merged, dtype
        self._home_size = merged.backbone.preprocessing.input_size
        self._home = Memo()
        self._others = Memo(limit=OTHER_SIZES, gone=gone)

    def home(self) -> Recorded:
        """Return what is known of the backbone's own image size.

        Raises:
            ExecutionError: the backbone cannot be recorded; see `record`.
        """
        return self._home.get(self._home_size, self._record_home)

    def at(self, size: Size) -> Recorded:
        """Return what is known of images of a size.

        Raises:
            InputError: the backbone takes no images of that size.
            ExecutionError: the backbone cannot be recorded; see `record`.
        """
        if size == self._home_size:
            return self.home()
        return self._others.get(size, partial(self._record_other, size))

    def forms_in_use(self) -> frozenset[KernelForms]:
        """Return the forms that were asked for of the sizes that are kept."""
        kept: list[Recorded] = [*self._home.values(), *self._others.values()]
        return frozenset(forms for at in kept for forms in list(at.found))

    def _record_home(self) -> Recorded:
        try:
            return self._record(self._home_size, torch.channels_last)
        except ExecutionError as error:
            # Some networks view their values in ways that only the usual order allows.
            try:
                return self._record(self._home_size, torch.contiguous_format)
            except ExecutionError:
                raise error from None

    def _record_other(self, size: Size) -> Recorded:
        home = self.home()
        shown = " x ".join(map(str, size))
        hint = f"Send images of {' x '.join(map(str, self._home_size))}."
        try:
            found = self._record(size, home.memory_format)
        except ExecutionError as error:
            raise InputError(
                f"Images of {shown} do not fit this backbone: {error.message}", hint=hint
            ) from error
        # A task that is folded for images of one size can be asked for answers to those of another.
        packed = home.program.kernels & found.program.weights
        if not packed <= found.program.kernels or not self._merged.merges_hold(size):
            raise InputError(
                f"This backbone uses its weights differently on images of {shown}.", hint=hint
            )
        return replace(found, kernels=found.kernels & home.kernels)

    def _record(self, size: Size, memory_format: torch.memory_format) -> Recorded:
        def build(labels: int) -> nn.Module:
            return self._merged.model(labels, dtype=self._dtype, memory_format=memory_format)

        with pin_settings():  # a classifier is built, in the default dtype
            recording = record(
                build,
                input_size=size,
                device=self._merged.device,
                dtype=self._dtype,
                memory_format=memory_format,
            )
        return_free_memory()
        return Recorded(
            size=size,
            program=recording.program,
            kernels=recording.program.kernels,
            whole=recording.whole,
            device=self._merged.device,
            dtype=self._dtype,
            memory_format=memory_format,
        )
