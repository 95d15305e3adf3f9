"""One task's gates, normalisation values and head, as an object."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType

import torch
from torch import Tensor

from gatehub._arguments import check_argument, checked
from gatehub._places import find_folder
from gatehub.adapter.coding.values import check_values
from gatehub.adapter.config import AdapterConfig
from gatehub.adapter.files import read_adapter, round_tensors, write_adapter
from gatehub.adapter.probe import PROBE_SEED, Probe, draw_images
from gatehub.backbone import Backbone, BackboneIdentity, digest_tensors
from gatehub.backbone.preprocessing import Preprocessing
from gatehub.backbone.seal import refuse_rounded
from gatehub.errors import AdapterError, TensorDtypeError
from gatehub.gates.attach import GatedModel
from gatehub.gates.fold import fold
from gatehub.gates.layout import GateLayout
from gatehub.problem import ONE_LABEL, Problem


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Adapter:
    """What a task has of its own: gates, normalisation values and head.

    Made by `from_model` or `load`; it never changes afterwards. It can be copied and pickled, so it
    can be sent to another process.

    Args:
        config: everything but the numbers.
        tensors: by name, "SITE.gate", "SITE.gate_a", "SITE.gate_b", "NORM.weight", "NORM.bias",
            "NORM.running_mean", "NORM.running_var" and "head.*".

    Raises:
        NonFiniteTensorError: a value is NaN or infinite.
        NegativeVarianceError: a running variance is below 0.
        TensorDtypeError: not a dense tensor of floating-point numbers.
        TensorShapeError: a tensor without values.
    """

    config: AdapterConfig
    tensors: Mapping[str, Tensor]

    def __post_init__(self) -> None:
        for name, kind in (("config", AdapterConfig), ("tensors", Mapping)):
            value = getattr(self, name)
            check_argument(value, kind, name, where="Adapter()", error=AdapterError)
        check_values(self.tensors, f"adapter '{self.task}'")
        own = {name: tensor.detach() for name, tensor in self.tensors.items()}
        object.__setattr__(self, "tensors", MappingProxyType(own))

    def __reduce__(self) -> tuple[Callable[..., Adapter], tuple[AdapterConfig, dict[str, Tensor]]]:
        # A view of a dict, which keeps it from being written to, can be neither copied nor pickled.
        return _restore, (self.config, dict(self.tensors))

    @classmethod
    @checked(AdapterError)
    def from_model(
        cls,
        model: GatedModel,
        *,
        task: str,
        metrics: Mapping[str, float] | None = None,
        training: Mapping[str, str | int | float | bool | None] | None = None,
        thresholds: Sequence[float] | None = None,
    ) -> Adapter:
        """Copy what a trained model has of its own.

        Args:
            model: from `attach_gates`; it may go on learning.
            task: name of the task: letters, digits, ".", "_" and "-", at most 96.
            metrics: figures measured on validation data, such as {"accuracy": 0.98}.
            training: how it was trained, one value for each setting.
            thresholds: where an image may have any number of labels, the sigmoid of its logit from
                which on it has a label, in [0, 1], one for each label; None where it has one label.

        Raises:
            UnsafeNameError: the name has other characters.
            ConfigError: a label, figure, setting or threshold that cannot be stored.
            NonFiniteTensorError: the training diverged.
            GateError: the model's frozen weights or its layers have changed since gates were
                attached, or a cast has rounded them.
        """
        model.check_frozen()
        config = AdapterConfig(
            task=task,
            labels=model.labels,
            backbone=model.backbone,
            layout=model.layout,
            preprocessing=model.preprocessing,
            metrics=dict(metrics or {}),
            training=dict(training or {}),
            tensors={},
            files={},
            problem=_make_problem(thresholds),
        )
        tensors = {name: tensor.clone() for name, tensor in model.task_tensors().items()}
        return cls(config=config, tensors=tensors)

    @classmethod
    @checked(AdapterError)
    def load(cls, folder: str | Path) -> Adapter:
        """Read an adapter from its folder, as float32, or refuse it.

        Args:
            folder: the folder; or as a string `org/name[@revision]` on a hub, which is pulled
                into the cache. An existing folder of that name takes precedence.

        Raises:
            AdapterFormatError: one subclass for each way in which a folder can be unsound.
            HubError: it is not a folder here, and the hub cannot give it.
        """
        config, tensors = read_adapter(find_folder(folder))
        return cls(config=config, tensors=tensors)

    @checked(AdapterError)
    def save(
        self,
        folder: str | Path,
        *,
        dtype: str = "float16",
        attachments: Mapping[str, bytes] | None = None,
    ) -> Path:
        """Write the adapter as a folder, whole or not at all.

        An adapter that is there already is replaced; anything else is left and refused.

        Args:
            folder: where to.
            dtype: for the gates "float16", "bfloat16" or "float32"; "sparse", which is float16 and
                leaves out what has not moved; "int8", "int4" or "sign", which round how far each
                has moved. With "+float16", such as "int8+float16", head and normalisation
                weights and biases are float16, too; else they stay float32.
            attachments: "training.jsonl", "training.png" and "gates.png", if there are any.

        Returns:
            The folder.

        Raises:
            AdapterExistsError: something else is there.
            NonFiniteTensorError: a value is NaN, infinite, or beyond the range of `dtype`.
            TensorDtypeError: another dtype, or another than its probe was computed with.
            AdapterFormatError: the adapter contradicts itself, so `load` would refuse it.
            OSError: the disk refuses; what was there is there still.
        """
        self._check_dtype(dtype)
        return write_adapter(
            Path(folder), self.config, self.tensors, dtype=dtype, attachments=attachments or {}
        )

    @checked(AdapterError)
    def as_stored(self, dtype: str) -> Adapter:
        """Return the adapter with the values that it will have after `save` and `load`.

        Raises:
            TensorDtypeError: no such dtype, or another than its probe was computed with.
            NonFiniteTensorError: a value is beyond the range of `dtype`.
        """
        self._check_dtype(dtype)
        return replace(self, tensors=round_tensors(self.config, self.tensors, dtype))

    @checked(AdapterError)
    def with_probe(self, backbone: Backbone, *, dtype: str = "float16") -> Adapter:
        """Return the adapter as it will be stored, with what it answers to a few known images.

        Whoever loads it can then tell whether it answers the same on their machine. Its gates are
        rounded to `dtype`, so that the object and its folder both answer what the probe says.

        Args:
            backbone: the one that it was trained on.
            dtype: the one that it will be saved with.

        Raises:
            TensorDtypeError: no such dtype.
            NonFiniteTensorError: a value is beyond the range of `dtype`.
            BackboneMismatchError: the backbone's digest is not the adapter's.
            SiteError: a tensor of the adapter has no place in the backbone.
            ConfigError: it answers with NaN or infinity.
            GateError: a cast has rounded the backbone's weights since they were loaded.
        """
        stored = replace(self, config=replace(self.config, probe=None)).as_stored(dtype)
        model = fold(backbone, stored)
        refuse_rounded(
            backbone.identity, backbone.rounded_to, hint="Make the probe before the cast."
        )
        like = next(model.parameters())
        images = torch.from_numpy(draw_images(PROBE_SEED, self.preprocessing))
        with torch.inference_mode():
            logits = model(images.to(like)).float().cpu()
        probe = Probe.of(logits.tolist(), dtype=dtype)
        return replace(stored, config=replace(self.config, probe=probe))

    @checked(AdapterError)
    def with_metrics(self, metrics: Mapping[str, float]) -> Adapter:
        """Return the same adapter with other figures."""
        return replace(self, config=replace(self.config, metrics=dict(metrics)))

    @checked(AdapterError)
    def with_thresholds(self, thresholds: Sequence[float]) -> Adapter:
        """Return the same adapter for images with any number of labels; see `from_model`.

        Raises:
            ConfigError: other than one for each label, or one that is not in [0, 1].
        """
        return replace(self, config=replace(self.config, problem=_make_problem(thresholds)))

    @property
    def task(self) -> str:
        """Name of the task."""
        return self.config.task

    @property
    def labels(self) -> tuple[str, ...]:
        """Class names, in the order of the logits."""
        return self.config.labels

    @property
    def problem(self) -> Problem:
        """Whether an image has one of the labels, or any number of them."""
        return self.config.problem

    @property
    def backbone(self) -> BackboneIdentity:
        """The weights it was trained on."""
        return self.config.backbone

    @property
    def layout(self) -> GateLayout:
        """Which gates and normalisation values it holds."""
        return self.config.layout

    @property
    def preprocessing(self) -> Preprocessing:
        """How an image becomes its input."""
        return self.config.preprocessing

    @property
    def training(self) -> Mapping[str, str | int | float | bool | None]:
        """How it was trained, one value for each setting."""
        return self.config.training

    @property
    def probe(self) -> Probe | None:
        """What it answered to a few known images, if that was kept."""
        return self.config.probe

    @property
    def digest(self) -> str:
        """SHA-256 of the tensors as they are here; see `digest_tensors`."""
        return digest_tensors(self.tensors)

    def _check_dtype(self, dtype: str) -> None:
        """Refuse to store the adapter with other values than those that its probe is of."""
        if self.probe is not None and self.probe.dtype != dtype:
            raise TensorDtypeError(
                f"Adapter '{self.task}' is to be saved with dtype '{dtype}', but its probe was "
                f"computed with '{self.probe.dtype}'.",
                hint=f"Call with_probe(backbone, dtype='{dtype}') first, on the adapter as it was "
                f"before its gates were rounded to {self.probe.dtype}.",
            )


def _make_problem(thresholds: Sequence[float] | None) -> Problem:
    return ONE_LABEL if thresholds is None else Problem(thresholds=tuple(thresholds))


def _restore(config: AdapterConfig, tensors: Mapping[str, Tensor]) -> Adapter:
    """Make an adapter of what its copy or pickle carries."""
    return Adapter(config=config, tensors=tensors)
