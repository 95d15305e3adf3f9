"""README.md of an adapter: a model card that the Hub understands and a person can use."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Any

import yaml

from gatehub.adapter.card.command import write_command
from gatehub.adapter.card.names import name_backbone, name_base_model, name_data, name_origin
from gatehub.adapter.card.tried import GIVEN, SEARCH, TRIED, read_tried
from gatehub.adapter.config import AdapterConfig

CURVE_FILE = "training.png"
GATES_FILE = "gates.png"
_MOST_LABELS = 50


class _Text(str):
    """A string that is written in quotation marks, whatever YAML would take it for without."""


class _Dumper(yaml.SafeDumper):  # type: ignore[misc]
    """Writes front matter: our own words plain, everybody else's in quotation marks."""


def _represent(dumper: Any, text: _Text) -> Any:
    return dumper.represent_scalar("tag:yaml.org,2002:str", str(text), style='"')


_Dumper.add_representer(_Text, _represent)


def render_card(
    config: AdapterConfig,
    *,
    adapter_bytes: int,
    license: str | None = None,
    datasets: Sequence[str] = (),
) -> str:
    """Return the model card of an adapter.

    Args:
        config: what to say.
        adapter_bytes: size of gates.safetensors.
        license: under which terms it is given away, in the Hub's spelling ("apache-2.0").
        datasets: the data's repositories on the Hub.
    """
    front = _front_matter(config, adapter_bytes, license, datasets)
    return f"{front}{_body(config, adapter_bytes)}"


def describe_adapter(config: AdapterConfig, adapter_bytes: int) -> dict[str, str | int]:
    """What the card's block "gatehub" tells programs, such as `gatehub search`."""
    return {
        "task": config.task,
        "classes": len(config.labels),
        **({"problem": config.problem.type} if config.problem.is_multi_label else {}),
        "backbone": name_backbone(config),
        "digest": config.backbone.digest,
        "gates": config.layout.policy,
        "bytes": adapter_bytes,
    }


def _front_matter(
    config: AdapterConfig, adapter_bytes: int, license: str | None, datasets: Sequence[str]
) -> str:
    head: dict[str, Any] = {
        "library_name": "gatehub",
        "pipeline_tag": "image-classification",
    }
    if license:
        head["license"] = _Text(license)
    if base := name_base_model(config):
        head |= {"base_model": _Text(base), "base_model_relation": "adapter"}
    if datasets:
        head["datasets"] = list(map(_Text, datasets))
    if config.metrics:
        head["metrics"] = list(map(_Text, config.metrics))
        head["model-index"] = [_results(config, datasets)]
    several = [config.problem.type] if config.problem.is_multi_label else []
    head["tags"] = ["gatehub", "model-projection", *several, _Text(config.task)]
    head["gatehub"] = {
        key: _Text(value) if isinstance(value, str) else value
        for key, value in describe_adapter(config, adapter_bytes).items()
    }
    text = yaml.dump(head, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=math.inf)
    return f"---\n{text}---\n"


def _results(config: AdapterConfig, datasets: Sequence[str]) -> dict[str, Any]:
    """The figures as the Hub's evaluation results."""
    name = ", ".join(name_data(config).values()) or config.task
    result = {
        "task": {"type": "image-classification", "name": "Image classification"},
        "dataset": {
            "name": _Text(name),
            "type": _Text(datasets[0] if len(datasets) == 1 else name),
            "split": "validation",
        },
        "metrics": [
            {"type": _Text(metric), "value": float(value)}
            for metric, value in config.metrics.items()
        ],
    }
    return {"name": _Text(config.task), "results": [result]}


def _body(config: AdapterConfig, adapter_bytes: int) -> str:
    labels = ", ".join(_code(label) for label in config.labels[:_MOST_LABELS])
    more = _count_more(config)
    count = len(config.labels)
    what = f"classifier of {count} classes"
    if config.problem.is_multi_label:
        what = f"multi-label classifier: an image\nmay have any of {count} labels, or none"
    figures = "".join(f"| {write_cell(k)} | {v:.4g} |\n" for k, v in config.metrics.items())
    measured = f"\n## Figures\n\n| | |\n|---|---|\n{figures}" if figures else ""
    return f"""
# {config.task}

A gatehub adapter: {adapter_bytes:,} bytes of gates, normalisation values and head that turn the
frozen backbone `{name_backbone(config)}` into a {what}:
{labels}{more}.

## Use

`ADAPTER` stands for this repository's name on its hub (`org/name`, `org/name@revision`), or for a
folder with these files.

```python
import gatehub

adapter = gatehub.Adapter.load("ADAPTER")
engine = gatehub.Engine(gatehub.load_backbone(adapter.backbone))
engine.load("{config.task}", adapter)
```

```sh
gatehub predict ADAPTER image.png
gatehub serve ADAPTER
gatehub export ADAPTER --out {config.task}.onnx
```

It fits only the backbone whose weights have the digest `{config.backbone.digest}`.
{measured}{_search(config)}{_thresholds(config)}{_gates(config)}{_training(config)}"""


def _count_more(config: AdapterConfig) -> str:
    rest = len(config.labels) - _MOST_LABELS
    return f" and {rest} more" if rest > 0 else ""


def _thresholds(config: AdapterConfig) -> str:
    thresholds = config.problem.thresholds
    if thresholds is None:
        return ""
    pairs = list(zip(config.labels, thresholds, strict=True))[:_MOST_LABELS]
    rows = "".join(f"| {write_cell(label)} | {threshold:.4g} |\n" for label, threshold in pairs)
    more = f"\nThese,{_count_more(config)}, stand in full in `config.json`.\n"
    return f"""
## Thresholds

An image has a label if the sigmoid of the label's logit is not below its threshold.

| label | threshold |
|---|---|
{rows}{more if _count_more(config) else ""}"""


def _search(config: AdapterConfig) -> str:
    tried = read_tried(config.training)
    if not tried:
        return ""
    rows = "".join(
        f"| {write_cell(row.gates)} | {write_cell(row.norm)} | "
        f"{write_cell(row.start or 'first')} | {row.rate:.2g} | "
        f"{row.score:.4g} | {row.calibrated_loss:.4g} | "
        f"{row.trained_parameters:,} | {row.adapter_bytes:,} |\n"
        for row in tried
    )
    return f"""
## Chosen from {len(tried)} runs

By the validation images ({write_cell(config.training.get(SEARCH))}), so the figures on these images
are higher than those to be expected on new ones: of several runs, the best was lucky, too.

| gates | norm | start | rates | validation | calibrated loss | numbers | bytes |
|---|---|---|---|---|---|---|---|
{rows}"""


def _gates(config: AdapterConfig) -> str:
    if GATES_FILE not in config.files:
        return ""
    count = len(config.layout.sites)
    return f"""
## Gates

How far the gates of each of the {count} sites moved from 1, where they begin: the root of the mean
square, for each output channel and for the whole site.

![Distance of the gates from 1]({GATES_FILE})
"""


def _training(config: AdapterConfig) -> str:
    if not config.training:
        return ""
    shown = {**config.training, **name_data(config)}
    if read_tried(config.training):
        shown = {name: value for name, value in shown.items() if name not in (TRIED, GIVEN)}
    if (origin := name_origin(config)) is not None:
        shown["init_from"] = origin
    settings = "".join(f"| {write_cell(k)} | {write_cell(v)} |\n" for k, v in shown.items())
    curve = f"\n![Loss and accuracy]({CURVE_FILE})\n" if CURVE_FILE in config.files else ""
    command = write_command(config)
    told = f"\n```sh\n{command}\n```\n" if command else ""
    return f"\n## Training\n{told}{curve}\n| | |\n|---|---|\n{settings}"


def _code(text: str) -> str:
    """Write a code span; more backticks than any in the text must stand around it."""
    fence = "`" * (max(map(len, re.findall("`+", text)), default=0) + 1)
    return f"{fence} {text} {fence}" if len(fence) > 1 else f"`{text}`"


def write_cell(value: object) -> str:
    """Write the cell of a table, in which a bar would end it and an angle bracket begin HTML."""
    return str(value).replace("|", "\\|").replace("<", "&lt;")
