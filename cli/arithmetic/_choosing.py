"""What `gatehub compress` makes, measures, chooses and shows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gatehub.cli._output import Output, format_bytes, format_percent, make_table
from gatehub.cli.arithmetic._measuring import (
    describe,
    name_score,
    prepare_measure,
    score,
    select,
)

if TYPE_CHECKING:
    from gatehub.adapter import Adapter
    from gatehub.adapter.arithmetic import Compression
    from gatehub.adapter.arithmetic.picture import Point
    from gatehub.backbone import Backbone
    from gatehub.training.evaluation.selection import Selection
    from gatehub.training.objectives import Measured

_SMALLER = "Choose a lower rank, a higher sparsity, or a dtype of fewer bits."


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A form of the adapter, as it would be stored.

    Args:
        form: what was done.
        adapter: what came of it.
        bytes: of its gates.safetensors.
        measured: how good it is.
    """

    form: Compression
    adapter: Adapter
    bytes: int
    measured: Measured


def make_one(
    output: Output,
    backbone: Backbone,
    adapter: Adapter,
    place: Path,
    form: Compression,
    *,
    out: Path,
) -> None:
    """Compress as told, without measuring."""
    made = form.apply(adapter)
    before, after = _count_stored(place), form.count_bytes(made)
    if after >= before:
        raise _not_smaller(str(form), after, before)
    _save(backbone, made, form.dtype_for(adapter), place, out)
    if adapter.config.metrics:
        output.note("Its figures were left out, since they are not of it; --data measures anew.")
    output.result(
        {
            "task": adapter.task,
            "path": str(out),
            "kept": str(form),
            "bytes": after,
            "original_bytes": before,
        },
        human=f"{out}: {form}; {_compare(after, before)}.",
        quiet=str(out),
    )


def measure_and_choose(
    output: Output,
    backbone: Backbone,
    adapter: Adapter,
    place: Path,
    forms: Sequence[Compression],
    *,
    out: Path,
    picture: Path,
    max_drop: float,
    sources: Sequence[str],
    columns: Mapping[str, str] | None,
    skip_bad: bool,
    workers: int | None,
) -> None:
    """Measure every form, and keep the smallest that is good enough.

    Raises:
        AdapterError: none is both smaller and good enough; the table and the picture say what is.
    """
    from gatehub._disk import write_whole
    from gatehub.adapter.arithmetic.picture import Point, draw_tradeoff
    from gatehub.errors import AdapterError

    selected = select(output, adapter, sources, columns=columns, skip_bad=skip_bad)
    measure = prepare_measure(backbone, selected, workers)
    candidates = []
    with output.progress(f"{adapter.task}: measuring") as advance:
        original = measure(adapter)
        for done, form in enumerate(forms, 1):
            advance(done, len(forms) + 1)
            made = form.apply(adapter)
            candidates.append(
                Candidate(
                    form=form,
                    adapter=made,
                    bytes=form.count_bytes(made),
                    measured=measure(made),
                )
            )
    before, least = _count_stored(place), score(original) - max_drop
    fit = [c for c in candidates if c.bytes < before and score(c.measured) >= least - 1e-9]
    kept = min(fit, key=lambda c: (c.bytes, -score(c.measured)), default=None)
    dtype = adapter.probe.dtype if adapter.probe is not None else "as stored"
    points = [Point(name=str(c.form), bytes=c.bytes, score=score(c.measured)) for c in candidates]
    begun = Point(name=dtype, bytes=before, score=score(original))
    picture.parent.mkdir(parents=True, exist_ok=True)
    names = ", ".join(Path(source).name for source in sources)
    drawn = draw_tradeoff(
        begun,
        points,
        kept=None if kept is None else points[candidates.index(kept)],
        least=least,
        measure=name_score(original),
        title=f"{adapter.task}: {len(selected.examples)} images of {names}",
    )
    write_whole(picture, drawn)
    table = _tabulate(
        begun,
        points,
        measure="mAP" if original.mean_average_precision is not None else "right",
        kept=None if kept is None else candidates.index(kept),
    )
    if kept is None:
        output.note(table)
        smaller = [c for c in candidates if c.bytes < before]
        best = max((score(c.measured) for c in smaller), default=None)
        found = (
            "none of them is smaller"
            if best is None
            else f"the best of those that are smaller loses {100 * (score(original) - best):.1f}"
        )
        raise AdapterError(
            f"Nothing was kept: {found}; expected at most {100 * max_drop:g} points of "
            f"{name_score(original)}.",
            hint=_SMALLER
            if best is None
            else f"Allow more (--max-drop), or see {picture} for what is to be had.",
        )
    stored = kept.adapter
    if not selected.trained:
        stored = stored.with_metrics(kept.measured.to_metrics())
    _save(backbone, stored, kept.form.dtype_for(adapter), place, out)
    _show(output, adapter, selected, begun, original, candidates, kept, table, out, picture)


def _show(
    output: Output,
    adapter: Adapter,
    selected: Selection,
    begun: Point,
    original: Measured,
    candidates: Sequence[Candidate],
    kept: Candidate,
    table: Any,
    out: Path,
    picture: Path,
) -> None:
    loss = 100 * (score(original) - score(kept.measured))
    change = f"{abs(loss):.1f} points {'less' if loss > 0 else 'more'}" if loss else "the same"
    sentence = (
        f"{out}: {kept.form}; {_compare(kept.bytes, begun.bytes)}, {change} "
        f"{name_score(original)} on {len(selected.examples)} images ({selected.split})."
    )
    output.result(
        {
            "task": adapter.task,
            "path": str(out),
            "kept": str(kept.form),
            "bytes": kept.bytes,
            "original_bytes": begun.bytes,
            **describe(kept.measured),
            **{f"original_{name}": value for name, value in describe(original).items()},
            "images": len(selected.examples),
            "split": selected.split,
            "trained": selected.trained,
            "picture": str(picture),
            "candidates": [
                {
                    "name": str(c.form),
                    "rank": c.form.rank,
                    "sparsity": c.form.sparsity,
                    "dtype": c.form.dtype_for(adapter),
                    "bytes": c.bytes,
                    **describe(c.measured),
                }
                for c in candidates
            ],
        },
        human=[table, "", sentence, f"{picture}: accuracy against bytes."],
        quiet=str(out),
    )


def _save(backbone: Backbone, adapter: Adapter, dtype: str, place: Path, out: Path) -> None:
    from gatehub.adapter.gate_map import draw_gates

    attachments = {
        name: (place / name).read_bytes()
        for name in ("training.jsonl", "training.png")
        if name in adapter.config.files
    }
    if adapter.layout.sites:
        title = f"Gates of {adapter.task}"
        attachments["gates.png"] = draw_gates(adapter.layout, adapter.tensors, title=title)
    out.parent.mkdir(parents=True, exist_ok=True)
    adapter.with_probe(backbone, dtype=dtype).save(out, dtype=dtype, attachments=attachments)


def _count_stored(place: Path) -> int:
    return (place / "gates.safetensors").stat().st_size


def _tabulate(begun: Point, points: Sequence[Point], *, measure: str, kept: int | None) -> Any:
    rows = [("", "as it was", format_bytes(begun.bytes), "", format_percent(begun.score), "")]
    for number, point in enumerate(points):
        rows.append(
            (
                "kept" if number == kept else str(number + 1),
                point.name,
                format_bytes(point.bytes),
                format_percent(point.bytes / begun.bytes),
                format_percent(point.score),
                f"{100 * (point.score - begun.score):+.1f}",
            )
        )
    return make_table(("", "form", "bytes", "of it", measure, "points"), rows, left=2)


def _compare(after: int, before: int) -> str:
    share = format_percent(after / before)
    return f"{format_bytes(after)}, {share} of {format_bytes(before)}"


def _not_smaller(what: str, after: int, before: int) -> Exception:
    from gatehub.errors import AdapterError

    return AdapterError(
        f"With {what} it would take {after:,} bytes, and takes {before:,} as it is.",
        hint=_SMALLER,
    )
