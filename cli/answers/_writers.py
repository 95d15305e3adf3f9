"""The forms in which answers are written as they come: a table, JSON, labels, CSV, JSON lines."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Protocol

from rich.cells import cell_len

from gatehub.cli._output import Format, Output, format_json, make_table
from gatehub.cli.answers._files import ESCAPED, open_csv
from gatehub.cli.answers._prediction import Answer, Task
from gatehub.training.sources.tables.label_sets import join_labels

SUFFIXES = (".csv", ".jsonl", ".ndjson")
_LABEL_WIDTH = 30
_SCORE_WIDTH = 6
_GAP = 2
_LEAST_PATH = 16


class Writer(Protocol):
    """Takes answers a batch at a time."""

    def write(self, answers: Sequence[Answer]) -> None:
        """Write some answers; they follow those of the last call."""

    def close(self) -> None:
        """End what was written; also when the run is cut short."""


def to_json(answer: Answer) -> dict[str, object]:
    """Return an answer as JSON has it; of several tasks, the predictions are by their names."""
    if answer.error is not None:
        return {"image": answer.image, "error": answer.error.message}
    by_task = {
        task: [{"label": label, "score": score} for label, score in found]
        for task, found in answer.found.items()
    }
    (first, *others) = by_task.values()
    return {"image": answer.image, "predictions": by_task if others else first}


@contextmanager
def open_writer(
    output: Output, tasks: Mapping[str, Task], file: BinaryIO | None, out: Path | None
) -> Iterator[Callable[[Sequence[Answer]], None]]:
    """Yield what writes answers, to a file or else to the terminal.

    The terminal shows nothing before the first image that has an answer: without one, there is no
    result, only an error.

    Args:
        output: where results go without a file.
        tasks: by their names.
        file: open for writing.
        out: its name.
    """
    if file is not None and out is not None:
        yield (_Csv(file) if out.suffix.lower() == ".csv" else _Lines(file)).write
        return
    writer: Writer
    if output.format is Format.human:
        writer = _Rows(output, {task: info.labels for task, info in tasks.items()})
    else:
        several = {
            task: join_labels(info.labels)
            for task, info in tasks.items()
            if info.problem.is_multi_label
        }
        writer = (
            _Json(output, list(tasks)) if output.format is Format.json else _Labels(output, several)
        )
    waiting: list[Answer] = []
    begun = False

    def write(answers: Sequence[Answer]) -> None:
        nonlocal begun
        waiting.extend(answers)
        begun = begun or any(answer.error is None for answer in answers)
        if begun:
            writer.write(waiting)
            waiting.clear()

    try:
        yield write
    finally:
        if begun:
            writer.close()


class _Json:
    """One object, whose list of images is written as it grows."""

    def __init__(self, output: Output, tasks: Sequence[str]) -> None:
        self._output = output
        self._before = format_json({"task": tasks[0]} if len(tasks) == 1 else {"tasks": tasks})
        self._before = f'{self._before[:-1]}, "images": ['

    def write(self, answers: Sequence[Answer]) -> None:
        for answer in answers:
            self._output.write(self._before + format_json(to_json(answer)))
            self._before = ", "

    def close(self) -> None:
        self._output.write("]}\n")


class _Labels:
    """The best label alone, of several tasks with tabs between; a line for each image.

    Several labels of one task are written as in a table's cell.
    """

    def __init__(
        self, output: Output, several: Mapping[str, Callable[[Iterable[str]], str]]
    ) -> None:
        self._output = output
        self._several = several  # what writes them, of tasks with any number of labels

    def write(self, answers: Sequence[Answer]) -> None:
        for answer in answers:
            labels = (self._join(task, found) for task, found in answer.found.items())
            self._output.write("\t".join(labels) + "\n")

    def _join(self, task: str, found: Sequence[tuple[str, float]]) -> str:
        if task in self._several:
            return self._several[task](label for label, _ in found)
        return found[0][0]

    def close(self) -> None:
        pass


class _Rows:
    """A table, in parts whose columns stand below each other."""

    def __init__(self, output: Output, labels: Mapping[str, Sequence[str]]) -> None:
        self._output = output
        self._several = len(labels) > 1
        longest = max(cell_len(label) for names in labels.values() for label in names)
        self._own = [min(max(longest, len("label")), _LABEL_WIDTH), _SCORE_WIDTH]
        if self._several:
            self._own.insert(0, min(max(len("task"), *map(len, labels)), _LABEL_WIDTH))
        self._path = 0
        self._header = True

    def write(self, answers: Sequence[Answer]) -> None:
        room = self._output.width - sum(self._own) - _GAP * len(self._own)
        longest = max(len("image"), *(cell_len(answer.image) for answer in answers))
        # No narrower than before, so that the parts make one table.
        self._path = max(self._path, min(longest, max(room, _LEAST_PATH)))
        names = (
            ("image", "task", "label", "score") if self._several else ("image", "label", "score")
        )
        rows = [row for answer in answers for row in self._rows(answer)]
        table = make_table(names, rows, left=len(names) - 1)
        table.show_header = self._header
        for column, width in zip(table.columns, (self._path, *self._own), strict=True):
            column.width = width
        self._output.result({}, human=table, quiet="")
        self._header = False

    def close(self) -> None:
        pass

    def _rows(self, answer: Answer) -> Iterator[tuple[str, ...]]:
        image = answer.image
        if not answer.found:
            yield (image, *("-" for _ in self._own))
        for task, found in answer.found.items():
            name = task
            for label, score in found:
                own = (name,) if self._several else ()
                yield (image, *own, label, f"{score:.4f}")
                image = name = ""
            if not found:  # an image without any of the labels
                yield (image, *((name,) if self._several else ()), "-", "")
                image = ""


class _Lines:
    """A JSON object on each line."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def write(self, answers: Sequence[Answer]) -> None:
        for answer in answers:
            self._file.write(
                f"{json.dumps(to_json(answer), ensure_ascii=False)}\n".encode(errors=ESCAPED)
            )


class _Csv:
    """A row for each label of each task of each image; an image without any has one, too."""

    def __init__(self, file: BinaryIO) -> None:
        self._rows = open_csv(file, ("path", "task", "rank", "label", "score", "error"))

    def write(self, answers: Sequence[Answer]) -> None:
        for answer in answers:
            if answer.error is not None:
                self._rows((answer.image, "", "", "", "", answer.error.message))
            for task, found in answer.found.items():
                for rank, (label, score) in enumerate(found, start=1):
                    self._rows((answer.image, task, rank, label, f"{score:.6g}", ""))
                if not found:  # an image without any of the labels
                    self._rows((answer.image, task, "", "", "", ""))
