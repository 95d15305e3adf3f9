"""README.md of an adapter: a model card that the Hub understands and a person can use."""

from __future__ import annotations

import json
import re

from gatehub.adapter.config import AdapterConfig


def render_card(config: AdapterConfig, *, adapter_bytes: int) -> str:
    """Return the model card of an adapter.

    Args:
        config: what to say.
        adapter_bytes: size of gates.safetensors.
    """
    return f"{_front_matter(config)}{_body(config, adapter_bytes)}"


def _front_matter(config: AdapterConfig) -> str:
    rows = ["library_name: gatehub", "pipeline_tag: image-classification"]
    base = _base_model(config)
    if base:
        rows += [f"base_model: {_quote(base)}", "base_model_relation: adapter"]
    if config.metrics:
        rows += ["metrics:", *(f"- {_quote(name)}" for name in config.metrics)]
    rows += ["tags:", "- gatehub", "- model-projection", f"- {_quote(config.task)}"]
    return "\n".join(["---", *rows, "---", ""])


def _base_model(config: AdapterConfig) -> str | None:
    """Name the backbone's repository on the Hub, if it has one."""
    backbone = config.backbone
    if backbone.source == "timm":
        return f"timm/{backbone.name}"
    kind, _, repository = backbone.source.partition(":")
    return repository if kind == "hf-hub" else None


def _body(config: AdapterConfig, adapter_bytes: int) -> str:
    labels = ", ".join(_code(label) for label in config.labels[:50])
    more = f" and {len(config.labels) - 50} more" if len(config.labels) > 50 else ""
    figures = "".join(f"| {_cell(k)} | {v:.4g} |\n" for k, v in config.metrics.items())
    settings = "".join(f"| {_cell(k)} | {_cell(v)} |\n" for k, v in config.training.items())
    measured = f"\n## Figures\n\n| | |\n|---|---|\n{figures}" if figures else ""
    trained = f"\n## Training\n\n| | |\n|---|---|\n{settings}" if settings else ""
    return f"""
# {config.task}

A gatehub adapter: {adapter_bytes:,} bytes of gates, normalisation values and head that turn the
frozen backbone `{config.backbone.name}` into a classifier of {len(config.labels)} classes:
{labels}{more}.

## Use

```python
import gatehub

adapter = gatehub.Adapter.load("path/to/this/folder")
engine = gatehub.Engine(gatehub.load_backbone(adapter.backbone))
engine.load({_quote(config.task)}, adapter)
```

```sh
gatehub predict path/to/this/folder image.png
gatehub serve path/to/this/folder
gatehub export path/to/this/folder --out {config.task}.onnx
```

It fits only the backbone whose weights have the digest `{config.backbone.digest}`.
{measured}{trained}"""


def _quote(text: str) -> str:
    """Write a string for YAML, whose double-quoted strings are those of JSON."""
    return json.dumps(text, ensure_ascii=False)


def _code(text: str) -> str:
    """Write a code span; more backticks than any in the text must stand around it."""
    fence = "`" * (max(map(len, re.findall("`+", text)), default=0) + 1)
    return f"{fence} {text} {fence}" if len(fence) > 1 else f"`{text}`"


def _cell(value: object) -> str:
    """Write the cell of a table, in which a bar would end it and an angle bracket begin HTML."""
    return str(value).replace("|", "\\|").replace("<", "&lt;")
