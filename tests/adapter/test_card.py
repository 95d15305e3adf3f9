"""README.md: front matter that the Hub's own parser reads, and a body that says what is true."""

from __future__ import annotations

from dataclasses import replace

import pytest
import yaml
from huggingface_hub import EvalResult, ModelCard
from hypothesis import given, settings
from hypothesis import strategies as st

from gatehub.adapter._fields import is_text
from gatehub.adapter.card import render_card
from gatehub.adapter.front_matter import read_front_matter
from gatehub.problem import Problem
from tests.adapter.sample import CARD, GOLDEN, SAMPLE_CONFIG, TENSORS, make_sample


def render(**changes: object) -> str:
    return render_card(make_sample(**changes).config, adapter_bytes=1_024)


def front_matter(text: str) -> dict[str, object]:
    return dict(ModelCard(text, ignore_metadata_errors=False).data.to_dict())


def test_golden_adapter_has_the_golden_card() -> None:
    assert (GOLDEN / TENSORS).stat().st_size == 1_024
    assert render() == (GOLDEN / CARD).read_text("utf-8")


def test_a_multi_label_card_says_so() -> None:
    text = render(
        problem=Problem(thresholds=(0.25, 0.5)), training={"data": "/x/fruit.csv", "epochs": 3}
    )
    found = front_matter(text)
    assert "multi-label" in found["tags"]  # type: ignore[operator]
    assert found["gatehub"]["problem"] == "multi-label"  # type: ignore[index]
    body = " ".join(text.split("---\n", 2)[2].split())
    assert "a multi-label classifier: an image may have any of 2 labels, or none: `apple`" in body
    assert "| apple | 0.25 | | 梨 | 0.5 |" in body
    assert "--multi-label --epochs 3" in body.replace("--out fruit", "")
    assert "multi-label" not in render(training={"data": "/x/fruit.csv"})
    many = tuple(f"l{i}" for i in range(60))
    long = render(labels=many, problem=Problem(thresholds=(0.5,) * 60))
    assert "These, and 10 more, stand in full in `config.json`." in long


def test_the_hub_finds_base_model_task_and_metrics() -> None:
    found = front_matter(render())
    assert found.pop("model-index") == [
        {
            "name": "fruit",
            "results": [
                {
                    "task": {"type": "image-classification", "name": "Image classification"},
                    "dataset": {"name": "fruit", "type": "fruit", "split": "validation"},
                    "metrics": [{"type": "accuracy", "value": 0.75}],
                }
            ],
        }
    ]
    assert found == {
        "library_name": "gatehub",
        "pipeline_tag": "image-classification",
        "base_model": "timm/resnet18.a1_in1k",
        "base_model_relation": "adapter",
        "metrics": ["accuracy"],
        "tags": ["gatehub", "model-projection", "fruit"],
        "gatehub": {
            "task": "fruit",
            "classes": 2,
            "backbone": "resnet18.a1_in1k",
            "digest": SAMPLE_CONFIG.backbone.digest,
            "gates": "auto",
            "bytes": 1_024,
        },
    }


def test_the_client_reads_the_evaluation_results() -> None:
    (result,) = ModelCard(render(), ignore_metadata_errors=False).data.eval_results
    assert isinstance(result, EvalResult)
    assert (result.task_type, result.dataset_name) == ("image-classification", "fruit")
    assert (result.metric_type, result.metric_value) == ("accuracy", 0.75)
    assert result.dataset_split == "validation"


def test_license_and_data_are_named_where_they_are_known() -> None:
    text = render_card(
        make_sample().config, adapter_bytes=1, license="apache-2.0", datasets=["acme/fruit"]
    )
    found = front_matter(text)
    assert found["license"] == "apache-2.0"
    assert found["datasets"] == ["acme/fruit"]
    assert '      type: "acme/fruit"\n' in text


def test_the_training_command_and_the_curve_are_shown() -> None:
    training = {
        "data": "/home/ada/clinic/eyes",
        "epochs": 3,
        "seed": 0,
        "hflip": 0.5,
        "gates": "auto",
    }
    text = render(training=training, files={"training.png": "0" * 64})
    assert (
        "gatehub train --backbone resnet18.a1_in1k --data eyes --task fruit --out fruit "
        "--gates auto --epochs 3 --hflip 0.5 --seed 0\n"
    ) in text
    assert "![Loss and accuracy](training.png)" in text
    assert "/home/ada" not in text
    assert "clinic" not in text


@pytest.mark.parametrize(
    ("place", "shown"), [("/home/ada/clinic/eyes-1/", "eyes-1"), ("acme/eyes@v1", "acme/eyes@v1")]
)
def test_the_adapter_that_it_went_on_from_is_named(place: str, shown: str) -> None:
    text = render(training={"data": "eyes", "epochs": 3, "init_from": place})
    assert f"--out fruit --epochs 3 --init-from {shown}\n" in text
    assert f"| init_from | {shown} |" in text
    assert "/home/ada" not in text


@pytest.mark.parametrize(
    ("data", "shown"),
    [("hf:acme/eyes:train", "hf:acme/eyes:train"), ("hf:/home/ada/clinic/eyes", "hf:eyes")],
)
def test_a_data_set_is_named_as_it_is_loaded(data: str, shown: str) -> None:
    text = render(training={"data": data, "epochs": 3})
    assert f"--data {shown} --task fruit" in text
    assert f"| data | {shown} |" in text


def test_the_gates_are_shown_where_they_were_drawn() -> None:
    text = render(files={"gates.png": "0" * 64})
    assert "![Distance of the gates from 1](gates.png)" in text
    assert "each of the 3 sites moved from 1" in text
    assert "gates.png" not in render()


def test_a_hostile_setting_does_not_leave_the_command() -> None:
    text = render(training={"data": "a`b ``` # x", "epochs": 1})
    assert "```sh\ngatehub train" not in text


@pytest.mark.parametrize(
    ("source", "base"),
    [
        ("hf-hub:acme/backbone", "acme/backbone"),
        ("demo", None),
        ("seed:0", None),
        ("memory", None),
        ("file:/home/me/weights.safetensors", None),
        ("local-dir:/home/me/backbone", None),
    ],
)
def test_only_backbones_on_the_hub_are_its_base_models(source: str, base: str | None) -> None:
    found = front_matter(render(backbone=replace(SAMPLE_CONFIG.backbone, source=source)))
    assert found.get("base_model") == base
    assert found.get("base_model_relation") == (base and "adapter")


@pytest.mark.parametrize("task", ["123", "1e3", "true", "null", "2024-01-01", "a-b_c.d"])
def test_every_task_name_stays_a_string(task: str) -> None:
    tags = front_matter(render(task=task))["tags"]
    assert tags == ["gatehub", "model-projection", task]


def test_hostile_names_stay_in_their_place() -> None:
    backbone = replace(SAMPLE_CONFIG.backbone, architecture='x" # yes: [', source="timm", tag="")
    text = render(
        backbone=backbone,
        labels=("a`b", "``", "<img src=x>", "*c*"),
        metrics={"a|b": 0.5, '": [x': 1.0},
        training={"note|": "1 | 2 <script>"},
    )
    found = front_matter(text)
    assert found["base_model"] == 'timm/x" # yes: ['
    assert found["metrics"] == ["a|b", '": [x']
    assert "\n`` a`b ``, ``` `` ```, `<img src=x>`, `*c*`.\n" in text
    assert "| a\\|b | 0.5 |\n" in text
    assert "| note\\| | 1 \\| 2 &lt;script> |\n" in text


def test_long_lists_of_labels_are_cut() -> None:
    text = render(labels=tuple(f"label {i}" for i in range(60)))
    assert "a classifier of 60 classes:" in text
    assert "`label 49` and 10 more." in text
    assert "label 50" not in text


def test_sections_without_content_are_left_out() -> None:
    text = render(metrics={}, training={})
    assert "## Figures" not in text
    assert "## Training" not in text
    assert "metrics" not in front_matter(text)
    assert text.endswith(f"`{SAMPLE_CONFIG.backbone.digest}`.\n")


WORDS = st.sampled_from(
    [
        *("no", "null", "~", "1e3", "0x1F", "2024-01-01", "12:30:00", "=", "<<", "#", "&a", "*a"),
        *("!t", "%x", "@", "`", "'", '"', "\\", "{a", "[a"),
        *("- a", "a: b", "\n", " a ", "a" * 300, "\U0001f426", "\u0085", "\ufeff"),
    ]
) | st.text(min_size=1, max_size=9)


@settings(max_examples=150, deadline=None)
@given(
    license=WORDS,
    datasets=st.lists(WORDS, max_size=3),
    metrics=st.dictionaries(
        WORDS.filter(is_text).map(lambda word: word[:200]),
        st.floats(allow_nan=False, allow_infinity=False),
        max_size=3,
    ),
    architecture=WORDS.filter(is_text),
)
def test_whatever_is_written_reads_back_as_it_was(
    license: str, datasets: list[str], metrics: dict[str, float], architecture: str
) -> None:
    backbone = replace(SAMPLE_CONFIG.backbone, architecture=architecture, tag="")
    config = replace(SAMPLE_CONFIG, metrics=metrics, backbone=backbone)
    text = render_card(config, adapter_bytes=7, license=license, datasets=datasets)
    found, advice = read_front_matter(text)
    assert found == yaml.safe_load(text.split("---\n")[1])
    assert advice == []
    assert found["license"] == license
    assert found["base_model"] == f"timm/{architecture}"
    assert found.get("datasets", []) == datasets
    assert found.get("metrics", []) == list(metrics)
    if metrics:
        (result,) = found["model-index"][0]["results"]
        assert {row["type"]: row["value"] for row in result["metrics"]} == metrics
