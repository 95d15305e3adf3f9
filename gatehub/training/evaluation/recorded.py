"""What an adapter remembers of the data that it was trained on, and which images are of it."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from gatehub.adapter.trained_on import read_sources
from gatehub.backbone.preprocessing import Preprocessing
from gatehub.errors import DataError
from gatehub.problem import Problem
from gatehub.training.examples import Examples, digest_images, make_examples
from gatehub.training.sources import Picture, collect_labels
from gatehub.training.sources.tables.columns import read_columns
from gatehub.training.split import SplitSettings, divide


class Remembering(Protocol):
    """What remembers its training: an `Adapter`, or a `TrainedNetwork`."""

    @property
    def problem(self) -> Problem: ...
    @property
    def training(self) -> Mapping[str, Any]: ...


class Judged(Remembering, Protocol):
    """What images are chosen for, to measure it on."""

    @property
    def task(self) -> str: ...
    @property
    def labels(self) -> tuple[str, ...]: ...
    @property
    def preprocessing(self) -> Preprocessing: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Recorded:
    """What is remembered; see `recorded_settings`.

    Args:
        data: the sources, or their last names where it was pushed to a hub; none if unknown.
        train_count: how many images it was trained on.
        val_count: how many it was validated on.
        digests: of the images to train on and to validate on, see `digest_images`; None in adapters
            that do not say.
        settings: how the source was divided; see `load_data`.
        columns: of a table, those that were named.
        multi_label: whether an image may have any number of labels.
    """

    data: tuple[str, ...]
    digests: tuple[str, str] | None
    train_count: int | None
    val_count: int | None
    settings: SplitSettings
    columns: Mapping[str, str]
    multi_label: bool

    @classmethod
    def read(cls, adapter: Remembering) -> Recorded:
        """Read what an adapter remembers; what it does not say has the usual values."""
        training = adapter.training
        seed, share = training.get("split_seed"), training.get("split_val_fraction")
        count = training.get("split_train_images")
        train, val = training.get("train_digest"), training.get("val_digest")
        train_count, val_count = training.get("train_count"), training.get("val_count")
        return cls(
            data=tuple(read_sources(training).values()),
            digests=(train, val) if isinstance(train, str) and isinstance(val, str) else None,
            train_count=train_count if isinstance(train_count, int) else None,
            val_count=val_count if isinstance(val_count, int) else None,
            settings=SplitSettings(
                seed=seed if isinstance(seed, int) else 0,
                val_fraction=share if isinstance(share, float) else 0.2,
                train_images=count if isinstance(count, int) else None,
            ),
            columns=read_columns(training.get("columns")),
            multi_label=adapter.problem.is_multi_label,
        )

    @property
    def counts(self) -> str:
        """The numbers of images, for a sentence."""
        if self.train_count is None or self.val_count is None:
            return "it does not say how many"
        return f"{self.train_count} images and {self.val_count} held out"

    def names(self, sources: Sequence[str]) -> bool:
        """Whether sources bear the names of the data; the folders above them may be others."""
        names, recorded = (sorted(map(_last_name, each)) for each in (sources, self.data))
        return names == recorded

    def replay(
        self, pictures: Sequence[Picture], labels: Sequence[str], default_train_images: int | None
    ) -> dict[str, list[Picture]] | None:
        """Divide pictures as the data was divided; None if they are others.

        By their digests, or by classes and numbers where the adapter has none.

        Returns:
            The images of "train" and of "val".
        """
        found = collect_labels(pictures)
        present = [label for label in labels if label in found]
        # An adapter that went on from another may have classes that its own data lacks.
        if self.digests is None and len(present) < len(labels):
            return None
        try:
            sides = divide(
                pictures,
                "",
                labels=present,
                default_train_images=default_train_images,
                **self.settings,
            )
        except DataError:  # what could not have been trained on
            return None
        if (len(sides.train), len(sides.val)) != (self.train_count, self.val_count):
            return None
        parts = {"train": sides.train, "val": sides.val}
        if self.digests is not None:
            digests = [
                digest_images(make_examples(part, labels, multi_label=self.multi_label), labels)
                for part in parts.values()
            ]
            if tuple(digests) != self.digests:
                return None
        return parts

    def count_trained(self, examples: Examples, labels: Sequence[str]) -> int | None:
        """Return how many images the adapter was trained on; None where that is not known.

        It is where they are all that it was trained on, or all that it was validated on.
        """
        if self.digests is None or len(examples) not in (self.train_count, self.val_count):
            return None
        digest = digest_images(examples, labels)
        return {self.digests[1]: 0, self.digests[0]: len(examples)}.get(digest)


def _last_name(source: str) -> str:
    """The name of a file or folder; all of what is none."""
    return source if ":" in source else os.path.basename(os.path.abspath(source))
