"""The probe: what a task answered where it was made, kept in its config and asked again."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gatehub.adapter import Adapter, AdapterConfig
from gatehub.adapter.probe import (
    PROBE_SEED,
    PROBE_TOLERANCE,
    Probe,
    check_probe,
    draw_images,
    draw_probe_images,
)
from gatehub.backbone import Backbone
from gatehub.errors import (
    AdapterFormatError,
    BackboneMismatchError,
    ConfigError,
    NonFiniteTensorError,
    SelfCheckError,
    TensorDtypeError,
)
from gatehub.gates.fold import fold
from gatehub.runtime.engine import Engine
from tests.adapter.breaking import assign
from tests.adapter.sample import GOLDEN, PROBE, SAMPLE_CONFIG, make_sample
from tests.tiny import make_backbone, make_trained

WITH_PROBE = replace(SAMPLE_CONFIG, probe=PROBE)

# As it has to be stored: at the end, in its shortest form.
GOLDEN_SECTION = """,
  "probe": {
    "seed": 0,
    "dtype": "float16",
    "logits": [[1.5, -2.25], [0.1, 1e-30], [3.0, -0.0]]
  }
}
"""


def test_the_section_is_stored_in_one_form() -> None:
    without = SAMPLE_CONFIG.to_json().decode()
    assert "probe" not in without
    assert WITH_PROBE.to_json().decode() == without.removesuffix("\n}\n") + GOLDEN_SECTION
    assert AdapterConfig.from_json(WITH_PROBE.to_json()) == WITH_PROBE


def test_an_adapter_without_a_probe_loads_and_passes() -> None:
    adapter = Adapter.load(GOLDEN)
    assert adapter.probe is None
    check_probe(adapter.probe, [], tolerance=0, task="fruit", where="here")


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"seed": -1}, "has the seed -1; expected 0 to 4294967295"),
        ({"seed": 2**32}, "has the seed 4294967296"),
        ({"seed": 0.0}, r"probe.seed is 0.0; expected an integer"),
        ({"seed": True}, "probe.seed is true; expected an integer"),
        ({"dtype": "float64"}, "has the dtype 'float64'; expected bfloat16, float16, float32"),
        ({"dtype": None}, "probe.dtype is null; expected a string"),
        ({"logits": []}, r"has 0 answers of \[\] logits; expected 3 of one length"),
        ({"logits": [[1.0, 2.0]] * 4}, r"has 4 answers of \[2\] logits"),
        ({"logits": [[1.0, 2.0], [1.0, 2.0], [1.0]]}, r"has 3 answers of \[1, 2\] logits"),
        ({"logits": [[1.0, 2.0, 3.0]] * 3}, "has 2 labels, but its probe has 3 logits"),
        ({"logits": [[]] * 3}, "has 2 labels, but its probe has 0 logits"),
        ({"logits": [[1.0, 2.0], [1.0, None], [1.0, 2.0]]}, r"probe.logits\[1\]\[1\] is null"),
        ({"logits": [[1.0, 2.0], 3.0, [1.0, 2.0]]}, r"probe.logits\[1\] is 3.0; expected a list"),
        ({"logits": [[1.0, True]] * 3}, r"probe.logits\[0\]\[1\] is true; expected a number"),
        ({"logits": [[1.0, 10**400]] * 3}, r"logits\[0\]\[1\] is Infinity; expected a number"),
        ({"logits": [[1.0, 1e308]] * 3}, r"has the logit 1e\+308; expected .* up to 3.4e\+38"),
        ({"logits": [[-3.5e38, 0]] * 3}, r"has the logit 3.5e\+38; expected what float32 can hold"),
        ({"more": 1}, 'probe has unknown fields: "more"'),
    ],
)
def test_a_broken_section_is_refused(change: dict[str, Any], match: str) -> None:
    value = json.loads(WITH_PROBE.to_json())
    value["probe"] |= change
    with pytest.raises(ConfigError, match=match):
        AdapterConfig.from_json(json.dumps(value).encode())


@pytest.mark.parametrize("field", ["seed", "dtype", "logits"])
def test_a_section_lacks_nothing(field: str) -> None:
    value = json.loads(WITH_PROBE.to_json())
    del value["probe"][field]
    with pytest.raises(ConfigError, match=f"probe lacks the field '{field}'"):
        AdapterConfig.from_json(json.dumps(value).encode())


@pytest.mark.parametrize("section", [None, [], "probe", 1])
def test_a_section_is_an_object(section: object) -> None:
    value = json.loads(WITH_PROBE.to_json()) | {"probe": section}
    with pytest.raises(ConfigError, match=r"probe is .*; expected an object"):
        AdapterConfig.from_json(json.dumps(value).encode())


@settings(deadline=None)
@given(
    st.integers(0, 2**32 - 1),
    st.sampled_from(["float16", "bfloat16", "float32"]),
    st.integers(1, 4).flatmap(
        lambda classes: st.tuples(
            *[st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False),
                       min_size=classes, max_size=classes).map(tuple)] * 3
        )
    ),
)  # fmt: skip
def test_a_probe_reads_as_it_was_written(seed: int, dtype: str, logits: Any) -> None:
    probe = Probe(seed=seed, dtype=dtype, logits=logits)
    labels = tuple(f"label {number}" for number in range(len(logits[0])))
    config = replace(SAMPLE_CONFIG, labels=labels, probe=probe)
    read = AdapterConfig.from_json(config.to_json())
    assert read == config
    assert read.to_json() == config.to_json()
    assert probe.drift(logits) == 0
    kept = Probe.of(logits, dtype=dtype)
    assert np.array_equal(np.float32(kept.logits), np.float32(logits))  # nine digits are enough


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=8,
)


@settings(deadline=None)
@given(st.sampled_from(["seed", "dtype", "logits", "probe"]), JSON)
def test_whatever_stands_in_the_section_it_reads_or_is_refused(field: str, value: object) -> None:
    config = json.loads(WITH_PROBE.to_json())
    (config if field == "probe" else config["probe"])[field] = value
    try:
        read = AdapterConfig.from_json(json.dumps(config).encode())
    except AdapterFormatError:
        return
    assert AdapterConfig.from_json(read.to_json()) == read


def test_the_images_are_the_same_everywhere_and_for_ever() -> None:
    """numpy froze this stream: https://numpy.org/neps/nep-0019-rng-policy.html"""
    images = draw_images(PROBE_SEED, SAMPLE_CONFIG.preprocessing)
    assert images.shape == (3, 3, 32, 48)
    assert images.dtype == np.float32
    assert images[0, 0, 0, :3].tolist() == pytest.approx([0.195254, 0.860757, 0.411054], abs=1e-6)
    assert images[2, 2, 31, 47] == np.float32(
        np.random.RandomState(0).uniform(-2, 2, images.size)[-1]
    )
    assert -2 <= images.min() < -1.99
    assert 1.99 < images.max() <= 2
    assert not np.array_equal(images, draw_images(1, SAMPLE_CONFIG.preprocessing))


@pytest.mark.parametrize(
    ("logits", "found", "drift"),
    [
        ([[0, 2]] * 3, [[0, 2]] * 3, 0),
        ([[0, 2]] * 3, [[0, 2], [0.5, 2], [0, 2]], 0.5),  # they lie 1 from their mean
        (
            [[0, 2], [10, 12], [50, 52]],
            [[0, 2], [10, 12], [50, 51]],
            1,
        ),  # what is alike decides nothing
        ([[4], [4], [4]], [[4], [5], [4]], 0.25),
        ([[0, 0]] * 3, [[0, 0], [0, 0.25], [0, 0]], 0.25),
        ([[4, 4]] * 3, [[4, 4], [4, 5], [4, 4]], 0.25),
        # What one float32 apart is on another machine decides nothing either.
        ([[4, 4.000001]] * 3, [[4, 4.000001], [5, 4.000001], [4, 4.000001]], 0.25),
        ([[3e38, -3e38]] * 3, [[1, -1]] * 3, 1),
        ([[3e38, 3e38]] * 3, [[1, -1]] * 3, 1),
        ([[0, 2]] * 3, [[0, 2], [float("nan"), 2], [0, 2]], float("inf")),
        ([[0, 2]] * 3, [[0, 2], [float("inf"), 2], [0, 2]], float("inf")),
        ([[0, 2]] * 3, [[0, 2]] * 2, float("inf")),
        ([[0, 2]] * 3, [[0, 2, 0]] * 3, float("inf")),
    ],
)
def test_drift_is_a_share_of_how_far_the_logits_lie_apart(
    logits: list[list[float]], found: list[list[float]], drift: float
) -> None:
    assert Probe.of(logits, dtype="float32").drift(found) == pytest.approx(drift)


def test_a_task_that_drifts_further_is_refused() -> None:
    probe = Probe.of([[0, 2]] * 3, dtype="float32")
    check_probe(probe, [[0, 2.009]] * 3, tolerance=0.01, task="birds", where="here")
    match = r"'birds' .* differently on here: it drifts by 0.02 .*; expected at most 0.01\. Use"
    with pytest.raises(SelfCheckError, match=match):
        check_probe(probe, [[0, 2.02]] * 3, tolerance=0.01, task="birds", where="here")


@pytest.mark.parametrize("probe", [None, Probe.of([[0, 2]] * 3, dtype="float32")])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_task_that_cannot_answer_is_refused_with_a_probe_or_without(
    probe: Probe | None, value: float
) -> None:
    with pytest.raises(
        SelfCheckError, match=r"'birds' answers .* with NaN or infinity on here\. U"
    ):
        check_probe(probe, [[0, 2], [0, value], [0, 2]], tolerance=9, task="birds", where="here")


def test_a_task_without_a_probe_is_asked_by_the_usual_images() -> None:
    preprocessing = SAMPLE_CONFIG.preprocessing
    for probe, seed in ((None, PROBE_SEED), (replace(PROBE, seed=7), 7)):
        images = draw_probe_images(probe, preprocessing)
        assert np.array_equal(images, draw_images(seed, preprocessing))


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_a_probe_is_what_the_stored_values_answer(
    dtype: str, tiny_adapter: Adapter, tiny_backbone: Backbone, tmp_path: Path
) -> None:
    probed = tiny_adapter.with_probe(tiny_backbone, dtype=dtype)
    assert tiny_adapter.probe is None
    loaded = Adapter.load(probed.save(tmp_path / "birds", dtype=dtype))
    assert loaded.probe == probed.probe
    # What is asked, saved and loaded is one and the same, so nobody refuses the object falsely.
    assert probed.digest == loaded.digest == tiny_adapter.as_stored(dtype).digest
    assert Adapter.load(tiny_adapter.save(tmp_path / "bare", dtype=dtype)).digest == loaded.digest
    assert loaded.probe is not None
    images = torch.from_numpy(draw_images(loaded.probe.seed, loaded.preprocessing))
    with torch.inference_mode():
        logits = fold(tiny_backbone, loaded)(images)
    assert torch.equal(torch.tensor(loaded.probe.logits), logits)
    assert loaded.probe.drift(logits.numpy()) < 1e-6


def test_a_fresh_object_is_served_as_its_folder_is(
    tiny_adapter: Adapter, tiny_backbone: Backbone, tmp_path: Path
) -> None:
    """bfloat16 takes 0.18 % of every gate, and the unrounded ones answer something else."""
    wide = {
        name: tensor.bfloat16().float() * 1.0018
        if name in tiny_adapter.layout.gate_shapes()
        else tensor
        for name, tensor in tiny_adapter.tensors.items()
    }
    probed = replace(tiny_adapter, tensors=wide).with_probe(tiny_backbone, dtype="bfloat16")
    assert probed.probe is not None
    with torch.inference_mode():
        images = torch.from_numpy(draw_images(probed.probe.seed, probed.preprocessing))
        unrounded = fold(tiny_backbone, replace(tiny_adapter, tensors=wide))(images)
    assert probed.probe.drift(unrounded.numpy()) > PROBE_TOLERANCE
    engine = Engine(tiny_backbone, dtype="float32")
    engine.load("object", probed)
    engine.load("folder", probed.save(tmp_path / "birds", dtype="bfloat16"))
    assert torch.equal(engine.predict("object", images), engine.predict("folder", images))


def test_a_probe_of_other_values_than_are_saved_is_refused(
    tiny_adapter: Adapter, tiny_backbone: Backbone, tmp_path: Path
) -> None:
    probed = tiny_adapter.with_probe(tiny_backbone)
    match = r"'float32', but its probe was computed with 'float16'\. Call with_probe\(backbone, dt"
    with pytest.raises(TensorDtypeError, match=match):
        probed.save(tmp_path / "birds", dtype="float32")
    with pytest.raises(TensorDtypeError, match=match):
        probed.as_stored("float32")
    assert not (tmp_path / "birds").exists()
    assert probed.with_probe(tiny_backbone, dtype="float32").save(
        tmp_path / "birds", dtype="float32"
    )


def test_a_probe_needs_the_backbone_and_a_dtype(
    tiny_adapter: Adapter, tiny_backbone: Backbone
) -> None:
    with pytest.raises(BackboneMismatchError):
        tiny_adapter.with_probe(make_backbone(seed=1))
    with pytest.raises(TensorDtypeError, match="int2"):
        tiny_adapter.with_probe(tiny_backbone, dtype="int2")


def test_a_probe_of_another_dtype_than_its_gates_is_refused(tmp_path: Path) -> None:
    folder = make_sample(probe=PROBE).save(tmp_path / "fruit")
    assert Adapter.load(folder).probe == PROBE
    assign("probe", "dtype", value="float32")(folder)
    with pytest.raises(TensorDtypeError, match=r"'conv1\.gate' as F16; its probe was .* float32"):
        Adapter.load(folder)


def test_gates_beyond_the_stored_range_are_no_probe(
    tiny_adapter: Adapter, tiny_backbone: Backbone
) -> None:
    name = next(iter(tiny_adapter.layout.gate_shapes()))
    wide = {**tiny_adapter.tensors, name: tiny_adapter.tensors[name] + 1e5}
    with pytest.raises(NonFiniteTensorError, match=r"beyond the range of F16.* dtype='float32'"):
        replace(tiny_adapter, tensors=wide).with_probe(tiny_backbone)


def test_one_label_has_a_probe(tiny_backbone: Backbone, tmp_path: Path) -> None:
    model = make_trained(tiny_backbone, labels=("bird",))
    probed = Adapter.from_model(model, task="birds").with_probe(tiny_backbone)
    loaded = Adapter.load(probed.save(tmp_path / "birds"))
    assert loaded.probe is not None
    assert loaded.probe.drift(np.asarray(loaded.probe.logits)) == 0
    assert loaded.probe.drift(np.asarray(loaded.probe.logits) * 1.5) == pytest.approx(0.5)


def test_answers_that_are_not_finite_are_no_probe(
    tiny_adapter: Adapter, tiny_backbone: Backbone
) -> None:
    tensors = {**tiny_adapter.tensors, "head.bias": torch.tensor([1e38, 2e38, 3e38])}
    tensors["head.weight"] = torch.full_like(tensors["head.weight"], 3e38)
    with pytest.raises(ConfigError, match=r"logits that are not finite.* at a lower rate"):
        replace(tiny_adapter, tensors=tensors).with_probe(tiny_backbone)


def test_a_probe_stays_with_its_adapter() -> None:
    probed = make_sample(probe=PROBE)
    assert probed.probe == PROBE
    assert probed.with_metrics({"accuracy": 1.0}).probe == PROBE
    assert probed.as_stored("float16").probe == PROBE
