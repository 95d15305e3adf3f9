"""The same task in fewer bytes: what becomes of M, and of the answers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from gatehub.adapter import Adapter
from gatehub.adapter.arithmetic import Compression, prune_gates, reduce_rank
from gatehub.adapter.arithmetic.matrices import read_moved
from gatehub.adapter.coding.packed import STORED_AS
from gatehub.backbone import Backbone
from gatehub.errors import AdapterError, TensorDtypeError
from gatehub.gates.fold import fold
from gatehub.runtime.engine import Engine
from tests.tiny import make_trained, random_images


def read_matrices(adapter: Adapter) -> Iterator[tuple[str, Tensor]]:
    """M - 1 of each site, float64."""
    for site, gate in adapter.layout.sites.items():
        yield site, read_moved(gate, {p: adapter.tensors[f"{site}.{p}"] for p in gate.parts})


def test_a_lower_rank_is_the_nearest_one_and_saves_values(tiny_adapter: Adapter) -> None:
    small = reduce_rank(tiny_adapter, 2)
    before = dict(read_matrices(tiny_adapter))
    for site, moved in read_matrices(small):
        old, new = tiny_adapter.layout.sites[site], small.layout.sites[site]
        expected = before[site]
        if new.kind != old.kind:
            assert str(new.kind) == "lowrank:2"
            left, singular, right = torch.linalg.svd(before[site], full_matrices=False)
            expected = (left[:, :2] * singular[:2]) @ right[:2]  # Eckart and Young
            assert new.kind.count(*new.shape) < old.kind.count(*old.shape)
        assert torch.allclose(moved, expected, atol=1e-6)
    assert str(small.layout.sites["layer1.0.downsample.0"].kind) == "lowrank:2"  # it was 4
    assert {"head.weight", "bn1.weight"} <= small.tensors.keys()


def test_gates_that_would_not_become_smaller_stay(tiny_backbone: Backbone) -> None:
    scale = Adapter.from_model(make_trained(tiny_backbone, gates="scale"), task="birds")
    assert reduce_rank(scale, 1) is scale
    low = Adapter.from_model(make_trained(tiny_backbone, gates="lowrank:1"), task="birds")
    assert reduce_rank(low, 1) is low
    full = Adapter.from_model(make_trained(tiny_backbone, gates="full"), task="birds")
    assert str(reduce_rank(full, 3).layout.sites["conv1"].kind) == "full"  # 64 x 3
    assert reduce_rank(full, 3).layout.policy == "auto"  # two kinds now
    assert reduce_rank(full, 1).layout.policy == "lowrank:1"


def test_a_rank_beyond_what_a_matrix_has_is_exact(tiny_backbone: Backbone) -> None:
    wide = Adapter.from_model(make_trained(tiny_backbone, gates="lowrank:40"), task="birds")
    small = reduce_rank(wide, 39)
    assert str(small.layout.sites["layer4.0.conv2"].kind) == "lowrank:39"  # of 32 x 32
    assert torch.allclose(
        dict(read_matrices(small))["layer4.0.conv2"],
        dict(read_matrices(wide))["layer4.0.conv2"],
        atol=1e-4,
    )


def test_those_that_moved_least_go_back_to_1(tiny_adapter: Adapter) -> None:
    pruned = prune_gates(tiny_adapter, 0.75)
    full = [name for name in pruned.tensors if name.endswith(".gate")]
    before = torch.cat([tiny_adapter.tensors[name].reshape(-1) for name in full])
    after = torch.cat([pruned.tensors[name].reshape(-1) for name in full])
    kept = after != 1
    assert abs(float(kept.float().mean()) - 0.25) < 1e-3
    assert torch.equal(after[kept], before[kept])
    assert (before[kept] - 1).abs().min() >= (before[~kept] - 1).abs().max()
    factors = torch.cat([t.reshape(-1) for n, t in pruned.tensors.items() if ".gate_" in n])
    assert abs(float((factors != 0).float().mean()) - 0.25) < 1e-2
    others = [name for name in pruned.tensors if ".gate" not in name]
    assert all(torch.equal(pruned.tensors[n], tiny_adapter.tensors[n]) for n in others)


def test_factors_are_compared_by_what_they_do_and_not_by_their_lengths(
    tiny_adapter: Adapter,
) -> None:
    """A and B stand for the same gate as 100 A and B / 100, so the same of it is pruned."""
    scaled = {
        name: t * (100 if name.endswith("_a") else 0.01) if ".gate_" in name else t
        for name, t in tiny_adapter.tensors.items()
    }
    one, other = (
        dict(read_matrices(prune_gates(adapter, 0.5)))
        for adapter in (tiny_adapter, replace(tiny_adapter, tensors=scaled))
    )
    assert all(torch.allclose(one[site], other[site], atol=1e-5) for site in one)


@pytest.mark.parametrize("dtype", [name for name in STORED_AS if name != "float16"])
def test_every_form_is_saved_loaded_served_and_folded_alike(
    dtype: str, tiny_adapter: Adapter, tiny_backbone: Backbone, tmp_path: Path
) -> None:
    form = Compression(rank=2, sparsity=0.5, dtype=dtype)
    made = form.apply(tiny_adapter).with_probe(tiny_backbone, dtype=dtype)
    loaded = Adapter.load(made.save(tmp_path / "small", dtype=dtype))
    assert loaded.digest == made.digest
    assert (tmp_path / "small" / "gates.safetensors").stat().st_size == form.count_bytes(made)
    engine = Engine(tiny_backbone, dtype="float32")
    engine.load("birds", tmp_path / "small")  # which asks it for its probe
    images = random_images(2)
    expected = fold(tiny_backbone, made)(images)
    assert torch.allclose(engine.predict("birds", images), expected, atol=1e-4)
    engine.evict("birds")  # and it comes back from its file
    assert torch.allclose(engine.predict("birds", images), expected, atol=1e-4)


def test_what_was_done_is_kept_and_the_figures_are_not(tiny_adapter: Adapter) -> None:
    made = Compression(sparsity=0.5).apply(tiny_adapter)
    assert made.config.training == {
        **tiny_adapter.config.training,
        "compressed_from": tiny_adapter.digest,
        "compressed_sparsity": 0.5,
        "compressed_dtype": "sparse",
    }
    assert made.config.metrics == {}
    assert made.probe is None
    assert str(Compression(rank=3, sparsity=0.25, dtype="int4")) == "rank 3, 0.25 sparse, int4"


@pytest.mark.parametrize(
    ("settings", "error", "match"),
    [
        ({}, AdapterError, "changes nothing; expected a rank, a sparsity or a dtype"),
        ({"rank": 0}, AdapterError, "A rank is 0; expected 1 to 4096"),
        ({"rank": "2"}, AdapterError, "rank"),
        ({"sparsity": 0.0}, AdapterError, r"A sparsity is 0\.0; expected a share between 0 and 1"),
        ({"sparsity": 90.0}, AdapterError, "A sparsity is 90"),
        ({"sparsity": float("nan")}, AdapterError, "A sparsity is nan"),
        ({"dtype": "int2"}, TensorDtypeError, "stored as .*, not as 'int2'"),
    ],
)
def test_a_compression_that_is_none_is_refused(
    settings: dict[str, object], error: type[Exception], match: str
) -> None:
    with pytest.raises(error, match=match):
        Compression(**settings)  # type: ignore[arg-type]
