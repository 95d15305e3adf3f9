"""What a sweep found, as Markdown: a line for each family, and every name that did not pass."""

from __future__ import annotations

import json
import platform
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import timm
import torch

from benchmarks.coverage_check import TOLERANCE, SizeLimits

Result = dict[str, Any]

_COLUMNS = (
    "family",
    "names",
    "passed",
    "refused",
    "too large",
    "failed",
    "gated",
    "folded",
    "merged",
    "served",
    "norms left",
    "auto",
    "full",
    "lowrank:4",
    "scale",
)


def read_results(path: Path) -> list[Result]:
    """Read what a sweep has appended so far."""
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text().splitlines()]


def render_table(results: Sequence[Result], limits: SizeLimits) -> str:
    """Return the whole page."""
    convolutional = [result for result in results if result["conv_share"] >= 0.5]
    others = [result for result in results if result["conv_share"] < 0.5]
    passed = sum(result["status"] == "passed" for result in convolutional)
    double = sum(result.get("dtype") == "float64" for result in convolutional)
    share = passed / len(convolutional) if convolutional else 0.0
    return "\n".join(
        [
            "# Gates on every network of timm",
            "",
            "    python -m benchmarks.coverage --all --table benchmarks/coverage.md",
            "",
            f"timm {timm.__version__}, torch {torch.__version__.partition('+')[0]}, Python "
            f"{platform.python_version()}, on a CPU. {len(results)} names; convolutions hold at "
            f"least half of the parameters in {len(convolutional)} of them, and of those "
            f"**{passed} pass, {100 * share:.1f} %**.",
            "",
            "Each name gets random weights and gates (`auto`); then all that learns, and all "
            "statistics that a training pass moves, are drawn anew, norms and head included. "
            "It passes when these answers agree with those of that gated model within "
            f"{TOLERANCE:g} of the largest logit: the folded model's, before and after the adapter "
            "was saved with float16 gates and loaded; the folded model's with batch norms merged; "
            "and the engine's; when the untrained gated model's agree with the backbone's; when "
            "the answers to two images differ by more than that, or by a hundred times more than "
            "those that should agree; "
            "and when every tensor came back from the file bit by bit. Computed in float32, and in "
            f"float64 where float32 missed that ({double} of {len(convolutional)}): networks with "
            "random weights and attention amplify rounding. "
            f"Networks of more than {limits.convolutional:,} parameters ({limits.other:,} where "
            "convolutions hold less than half) are counted and not run.",
            "",
            "*gated*: smallest share, over the family, of the learned kernels that convolve in a "
            "forward pass and carry a gate. *folded*, *merged*, *served*: largest difference, "
            "relative. "
            "*norms left*: `BatchNorm2d` layers before → after merging, summed over the family. "
            "*auto* … *scale*: gates and normalisation values as a share of the backbone's "
            "parameters without classifier, smallest to largest.",
            "",
            "## Where convolutions hold at least half of the parameters",
            "",
            *_families(convolutional),
            "",
            *_exceptions(convolutional),
            "## The rest of timm",
            "",
            "Their convolutions are gated just so; what they hold beside them stays as it is, with "
            "a note, but for linear layers in convolutional blocks (ConvNeXt, MambaOut, EdgeNeXt).",
            "",
            *_families(others),
            "",
            *_exceptions(others),
        ]
    )


def _families(results: Sequence[Result]) -> list[str]:
    families: dict[str, list[Result]] = {}
    for result in results:
        families.setdefault(result["family"], []).append(result)
    rows = [_summarise(family, families[family]) for family in sorted(families)]
    if len(rows) > 1:
        rows.append(_summarise("**all**", results))
    return [_row(_COLUMNS), _row(["---"] * len(_COLUMNS)), *map(_row, rows)]


def _summarise(family: str, results: Sequence[Result]) -> list[str]:
    counts = Counter(result["status"] for result in results)
    ran = [result for result in results if "fold_error" in result]
    sized = [result for result in results if "shares" in result]
    cells = [family, str(len(results))]
    cells += [str(counts[status] or "") for status in ("passed", "refused", "too large", "failed")]
    if ran:
        cells.append(_percent(min(result["gated_share"] for result in ran)))
        for key in ("fold_error", "merge_error", "engine_error"):
            errors = [result[key] for result in ran if result[key] is not None]
            cells.append(f"{max(errors):.0e}" if errors else "")
        before, after = (sum(r[key] for r in ran) for key in ("norms", "norms_left"))
        cells.append(f"{before} → {after}")
    else:
        cells += [""] * 5
    for policy in ("auto", "full", "lowrank:4", "scale"):
        shares = [result["shares"][policy] for result in sized]
        cells.append(f"{_percent(min(shares))} to {_percent(max(shares))}" if shares else "")
    return cells


def _exceptions(results: Sequence[Result]) -> list[str]:
    """Name what did not pass, by reason, and what passed with kernels left ungated."""
    reasons: dict[tuple[str, str], list[str]] = {}
    for result in results:
        if result["status"] == "too large":
            reasons.setdefault(("too large", ""), []).append(result["name"])
        elif result["status"] != "passed":
            key = result["status"], result["reason"]
            reasons.setdefault(key, []).append(result["name"])
    lines = [
        f"- {status}: {', '.join(names)}{f' — {reason}' if reason else ''}"
        for (status, reason), names in sorted(reasons.items())
    ]
    unserved: dict[str, list[str]] = {}
    for result in results:
        if result.get("engine_refusal"):
            unserved.setdefault(result["engine_refusal"], []).append(result["name"])
    lines += [
        f"- passed, but not served: {', '.join(names)} — {reason}"
        for reason, names in sorted(unserved.items())
    ]
    partial = [r for r in results if r.get("gated_share", 1.0) < 1.0]
    lines += [
        f"- {_percent(r['gated_share'])} gated: {r['name']} — left: {', '.join(r['ungated'])}"
        for r in partial
    ]
    return [*lines, ""] if lines else []


def _percent(share: float) -> str:
    """With enough digits that only the whole is 100 %."""
    if 0.999 < share < 1.0:
        return f"{min(100 * share, 99.999):.3f} %"
    return f"{100 * share:.3g} %"


def _row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"
