"""A backbone with its norms merged, on which each task's own weights are formed in one pass."""

from __future__ import annotations

import threading
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from gatehub.backbone import Backbone
from gatehub.backbone.classifier import replace_classifier
from gatehub.backbone.structure import copy_structure, find_storages, own_tensor
from gatehub.compiler.tracing import copy_to_meta, named_tensors, trace_forward
from gatehub.errors import GateError
from gatehub.gates.fold import (
    GateState,
    check_backbone,
    install_tensors,
    spread_gate,
)
from gatehub.gates.heads import find_head_places, name_head
from gatehub.gates.kernel_memory import cast_to, lay_out, multiply
from gatehub.gates.layout import GateLayout
from gatehub.gates.layout_plan import (
    HeadPlan,
    LayoutPlan,
    TaskPlan,
    check_tensors,
    plan_layout,
)
from gatehub.gates.norm_folding import NormMerge, apply_merges, find_merges, scale_and_shift
from gatehub.gates.norms import form_gainless
from gatehub.gates.sites import copy_plain


class MergedBackbone:
    """The plain form of a backbone, its norms merged wherever that is exact.

    Its kernels lie channels-last, which is how convolutions on a CPU read them fastest, in memory
    of its own: what happens to the backbone afterwards does not reach it. Nothing in it changes
    after it is made, but for what it keeps of layouts and numbers of labels seen.
    A network that does not run on the meta device, where merges are found, keeps its norms.

    Args:
        backbone: stays as it is.

    Raises:
        BackboneChangedError: the backbone has changed since it was loaded.
    """

    def __init__(self, backbone: Backbone) -> None:
        backbone.check_unchanged()
        self.backbone = backbone
        plain = copy_plain(backbone.model, exclude=backbone.heads)
        self._plain = copy_to_meta(plain)
        size = backbone.preprocessing.input_size
        merges = self._find_merges(size)
        self._structure = copy_to_meta(self._plain)
        apply_merges(self._structure, merges)
        if merges and not _runs(self._structure, size):  # it looks for the norms that have gone
            merges, self._structure = (), copy_to_meta(self._plain)
        self._merges = {merge.convolution: merge for merge in merges}
        lent = find_storages(tensor for _, tensor in named_tensors(backbone.model))
        self._tensors = {
            name: own_tensor(lay_out(tensor.detach()), lent)
            for name, tensor in named_tensors(plain)
        }
        self._shapes = {name: tuple(t.shape) for name, t in named_tensors(self._structure)}
        self._like = self._tensors[next(name for name, _ in plain.named_parameters())]
        self._gainless: dict[str, Tensor] = {}
        self._plans: dict[str, LayoutPlan] = {}
        self._heads: dict[int, HeadPlan] = {}
        self._planning = threading.Lock()

    @property
    def device(self) -> torch.device:
        """Where the backbone is."""
        return self._like.device

    @property
    def dtype(self) -> torch.dtype:
        """In which the backbone's kernels are kept, and gates are multiplied with them."""
        return self._like.dtype

    @property
    def kernels(self) -> Mapping[str, Tensor]:
        """`K(W)` as "SITE.weight", and every other tensor of the plain model, by name."""
        return self._tensors

    @property
    def merges(self) -> Mapping[str, NormMerge]:
        """The norms that are merged, by the convolution that takes them in."""
        return self._merges

    @property
    def names(self) -> frozenset[str]:
        """Names of the merged model's tensors, those of its own classifier included."""
        return frozenset(self._shapes)

    def merges_hold(self, size: tuple[int, int, int]) -> bool:
        """Whether the same norms can be merged on images (C, H, W) of another size."""
        return {*self._merges.values()} <= {*self._find_merges(size)}

    def shape(self, name: str) -> tuple[int, ...]:
        """Return the shape of a tensor of the merged model."""
        return self._shapes[name]

    def plan(self, layout: GateLayout) -> LayoutPlan:
        """Find what tasks of a layout have of their own.

        Raises:
            SiteError: a gate has no place in the backbone.
        """
        key = str(layout)
        if (known := self._plans.get(key)) is not None:
            return known
        with self._planning:
            if key not in self._plans:
                self._plans[key] = plan_layout(self.backbone, self._tensors, self._merges, layout)
            return self._plans[key]

    def plan_head(self, labels: int) -> HeadPlan:
        """Find what a classifier with so many labels has."""
        if (known := self._heads.get(labels)) is not None:
            return known
        with self._planning:
            if labels not in self._heads:
                present = self._resize(labels).state_dict()
                places = find_head_places(present, self.backbone.heads)
                self._heads[labels] = HeadPlan(
                    labels=labels, shapes={place: tuple(present[place].shape) for place in places}
                )
            return self._heads[labels]

    def plan_task(self, task: GateState) -> TaskPlan:
        """Find what a task has of its own, and prove that it fits.

        Args:
            task: gates, normalisation values and head.

        Raises:
            BackboneMismatchError: the backbone's digest is not the task's.
            SiteError: a tensor has no place in the backbone, has another shape, or is missing.
        """
        check_backbone(self.backbone, task)
        body, head = self.plan(task.layout), self.plan_head(len(task.labels))
        places = name_head(head.shapes, self.backbone.heads, taken=body.taken)
        plan = TaskPlan(body=body, head=head, places=places)
        check_tensors(self.backbone, self._tensors, plan, task=task.task, given=task.tensors)
        return plan

    def weight(self, name: str, *, dtype: torch.dtype) -> Tensor:
        """Return a tensor of the merged model as the bare backbone has it."""
        site, _, part = name.rpartition(".")
        merge = self._merges.get(site)
        if merge is None or part not in ("weight", "bias"):
            return cast_to(self._tensors[name], dtype)
        scale, shift = scale_and_shift(self._tensors, merge)
        if part == "bias":
            return cast_to(shift, dtype)
        return multiply(self._tensors[name], scale.reshape(-1, 1, 1, 1), dtype=dtype)

    def fold(self, task: GateState, plan: TaskPlan, *, dtype: torch.dtype) -> dict[str, Tensor]:
        """Return a task's own tensors of the merged model, head included, in their final form.

        Each kernel is read once and written once: the gate, the gain and the merged norm's scale
        are multiplied with one another before they meet it.

        Args:
            task: gates, normalisation values and head.
            plan: of the task.
            dtype: of the answer; the arithmetic is done in the backbone's.
        """
        body, given = plan.body, task.tensors
        plain = {**self._tensors, **{name: self.widen(given[name]) for name in body.norms}}
        norms = {
            site: scale_and_shift(plain, merge)
            for site, merge in self._merges.items()
            if f"{site}.weight" in body.own
        }
        folded: dict[str, Tensor] = {}
        for name in sorted(body.own):
            site, _, part = name.rpartition(".")
            scale, shift = norms.get(site, (None, None))
            if part == "bias" and shift is not None:
                folded[name] = cast_to(shift, dtype)
            elif part != "weight" or (site not in body.layout.sites and scale is None):
                folded[name] = cast_to(plain[name], dtype)
            else:
                kernel = self.kernel(site, body)
                factor = None if scale is None else scale.reshape(-1, *(1,) * (kernel.ndim - 1))
                if site in body.layout.sites:
                    spread = spread_gate(site, body.layout, given, kernel=kernel, gains=body.gains)
                    factor = spread if factor is None else spread * factor
                assert factor is not None
                folded[name] = multiply(kernel, factor, dtype=dtype)
        for name, place in plan.places.items():
            folded[place] = cast_to(self.widen(given[name]), dtype)
        return folded

    def model(
        self,
        labels: int,
        *,
        dtype: torch.dtype,
        memory_format: torch.memory_format = torch.channels_last,
    ) -> nn.Module:
        """Build the merged model with the backbone's own weights and a head drawn from a seed.

        Args:
            labels: number of classes.
            dtype: of its parameters and buffers.
            memory_format: of its kernels, channels-last or contiguous.

        Returns:
            A frozen model in evaluation mode: (B, C, H, W) → (B, labels).
        """
        heads = self.plan_head(labels).shapes
        with self._planning:
            model = copy_structure(self._resize(labels))
        generator = torch.Generator().manual_seed(0)
        device = self._like.device
        tensors = {}
        for name, _ in named_tensors(model):
            if name in heads:
                # Above 0, since some heads hold a variance; their rows still differ.
                drawn = torch.rand(heads[name], generator=generator) / 8 + 0.1
                tensors[name] = drawn.to(device=device, dtype=dtype)
            else:
                weight = lay_out(self.weight(name, dtype=dtype), memory_format)
                # A network may write into its weights, and these may be the backbone's.
                own = self._tensors.get(name)
                shared = own is not None and own.data_ptr() == weight.data_ptr()
                tensors[name] = weight.clone() if shared else weight
        install_tensors(model, tensors)
        return model.eval().requires_grad_(False)

    def _find_merges(self, size: tuple[int, int, int]) -> tuple[NormMerge, ...]:
        try:
            return find_merges(self._plain, input_size=size)
        except GateError:
            return ()

    def _resize(self, labels: int) -> nn.Module:
        """Give the structure a classifier for that many labels. Only while planning is locked."""
        with torch.random.fork_rng(devices=[]):
            replace_classifier(self._structure, labels)
        return self._structure

    def kernel(self, site: str, plan: LayoutPlan) -> Tensor:
        """Return `K(W)` of a layer, without the gain where the layout's tasks have their own."""
        if site not in plan.gains:
            return self._tensors[f"{site}.weight"]
        if site not in self._gainless:
            self.backbone.check_unchanged()
            theirs = self.backbone.model
            lent = find_storages(tensor for _, tensor in named_tensors(theirs))
            for name, kernel in form_gainless(theirs, plan.gains).items():
                self._gainless[name.removesuffix(".weight")] = own_tensor(lay_out(kernel), lent)
        return self._gainless[site]

    def widen(self, tensor: Tensor) -> Tensor:
        """Return a task's tensor on the backbone's device, in the wider of both dtypes."""
        dtype = torch.promote_types(tensor.dtype, self._like.dtype)
        return tensor.to(device=self._like.device, dtype=dtype)


def _runs(structure: nn.Module, size: tuple[int, int, int]) -> bool:
    try:
        trace_forward(structure, size)
    except GateError:
        return False
    return True
