"""Tasks come back from their folders by one look at each byte, and only if they are the same."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from gatehub.adapter import Adapter
from gatehub.adapter.files import stored_dtypes
from gatehub.backbone import Backbone
from gatehub.errors import BackboneMismatchError, TaskUnavailableError
from gatehub.runtime.engine import Engine
from gatehub.runtime.tasks.packed import PackedTask
from gatehub.runtime.tasks.reading import Reader
from gatehub.runtime.tasks.served import Served
from gatehub.runtime.tasks.sources import open_source
from tests.tiny import make_backbone, make_trained, random_images

STORED = ["float16", "bfloat16", "float32"]


def serve(backbone: Backbone, folder: Path) -> Served:
    engine = Engine(backbone, dtype="float32")
    engine.load("birds", folder)
    return engine._catalogue.served["birds"]


def assert_same(found: PackedTask, adapter: Adapter) -> None:
    assert found.digest == adapter.digest
    assert found.tensors.keys() == adapter.tensors.keys()
    for name, tensor in found.tensors.items():
        assert torch.equal(tensor.float(), adapter.tensors[name])


class CountedHash:
    """SHA-256 that counts the bytes that anybody lets it see."""

    seen = 0
    _make = staticmethod(hashlib.sha256)

    def __init__(self, data: bytes = b"") -> None:
        self._hash = self._make()
        self.update(data)

    def update(self, data: bytes) -> None:
        type(self).seen += len(data)
        self._hash.update(data)

    def hexdigest(self) -> str:
        return self._hash.hexdigest()


@pytest.mark.parametrize("dtype", STORED)
def test_a_task_comes_back_with_its_file_hashed_once_and_nothing_else(
    dtype: str, tiny_backbone: Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folders = {}
    for seed in (1, 2):
        adapter = Adapter.from_model(make_trained(tiny_backbone, seed=seed), task="birds")
        folders[f"t{seed}"] = adapter.save(tmp_path / f"t{seed}", dtype=dtype)
    room = serve(tiny_backbone, folders["t1"]).packed_bytes
    # Of the gates of one task; and of folded weights none is kept from one request to the next.
    engine = Engine(tiny_backbone, dtype="float32", gates_bytes=room)
    images = random_images()
    known = {}
    for task, folder in folders.items():
        engine.load(task, folder)
        known[task] = engine.predict(task, images)
    monkeypatch.setattr(CountedHash, "seen", 0)
    monkeypatch.setattr(hashlib, "sha256", CountedHash)
    for task in ("t1", "t2", "t1"):
        engine.evict(task)
        CountedHash.seen = 0
        assert torch.equal(engine.predict(task, images), known[task])
        assert CountedHash.seen == (folders[task] / "gates.safetensors").stat().st_size


@pytest.mark.parametrize("dtype", STORED)
def test_gates_wait_in_the_dtypes_of_their_file(
    dtype: str, tiny_backbone: Backbone, tiny_adapter: Adapter, tmp_path: Path
) -> None:
    # Ones, which every dtype holds: it is the file that says which.
    tensors = {name: torch.ones_like(tensor) for name, tensor in tiny_adapter.tensors.items()}
    folder = replace(tiny_adapter, tensors=tensors).save(tmp_path / "birds", dtype=dtype)
    packed = Reader(tiny_backbone).read(open_source(folder))
    adapter = Adapter.load(folder)
    expected = stored_dtypes(adapter.config)
    assert {str(found) for found in expected.values()} == {f"torch.{dtype}", "torch.float32"}
    assert {name: tensor.dtype for name, tensor in packed.tensors.items()} == expected
    assert_same(packed, adapter)
    again = Reader(tiny_backbone).read_again(serve(tiny_backbone, folder))
    assert again.bytes == packed.bytes
    assert_same(again, adapter)


@pytest.mark.parametrize("after", STORED)
@pytest.mark.parametrize("before", STORED)
def test_the_same_numbers_in_another_file_take_no_more_than_before(
    before: str, after: str, tiny_backbone: Backbone, tiny_adapter: Adapter, tmp_path: Path
) -> None:
    # Halves, which every dtype holds.
    tensors = {name: (2 * tensor).round() / 2 for name, tensor in tiny_adapter.tensors.items()}
    for name, tensor in tensors.items():
        if name.endswith("running_var"):
            tensors[name] = tensor.clamp(min=0.5)
    adapter = replace(tiny_adapter, tensors=tensors)
    folder = tmp_path / "birds"
    served = serve(tiny_backbone, adapter.save(folder, dtype=before))
    adapter.with_metrics({"accuracy": 1.0}).save(folder, dtype=after)
    found = Reader(tiny_backbone).read_again(served)
    assert found.bytes <= served.packed_bytes
    assert_same(found, adapter)


@pytest.mark.parametrize("dtype", STORED)
def test_other_numbers_are_refused_whatever_their_dtype(
    dtype: str, tiny_backbone: Backbone, tiny_adapter: Adapter, tmp_path: Path
) -> None:
    folder = tiny_adapter.save(tmp_path / "birds", dtype="float32")
    served = serve(tiny_backbone, folder)
    Adapter.from_model(make_trained(tiny_backbone, seed=9), task="birds").save(folder, dtype=dtype)
    with pytest.raises(TaskUnavailableError, match="now lies another adapter: digest"):
        Reader(tiny_backbone).read_again(served)


def test_the_same_numbers_for_another_backbone_are_refused(
    tiny_backbone: Backbone, tiny_adapter: Adapter, tmp_path: Path
) -> None:
    folder = tiny_adapter.save(tmp_path / "birds", dtype="float32")
    served = serve(tiny_backbone, folder)
    other = replace(tiny_adapter.config, backbone=make_backbone(seed=9).identity)
    replace(tiny_adapter, config=other).save(folder, dtype="float32")
    with pytest.raises(BackboneMismatchError, match="'birds' was trained on"):
        Reader(tiny_backbone).read_again(served)
