"""Sweep timm: attach random gates, norms and head to each network, and hold what comes out.

    python -m benchmarks.coverage --one-per-family
    python -m benchmarks.coverage --family efficientnet
    python -m benchmarks.coverage --all --table benchmarks/coverage.md

Each name is checked by `benchmarks.coverage_check`. Results are appended to a file (--results), one
JSON object a line, and names that are in it already are not run again; so an interrupted sweep goes
on where it stopped, and several processes can share one (`--part 1/2`, `--part 2/2`).
"""

from __future__ import annotations

import argparse
import gc
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import timm

from benchmarks.coverage_check import SizeLimits, check_name, find_families
from benchmarks.coverage_table import read_results, render_table


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parse(arguments)
    results: Path = options.results
    results.parent.mkdir(parents=True, exist_ok=True)
    done = {result["name"] for result in read_results(results)}
    names = [name for name in _choose(options) if name not in done]
    limits = SizeLimits(convolutional=options.max_values, other=options.max_values_elsewhere)
    part, parts = options.part
    for position, name in enumerate(names[part - 1 :: parts], start=1):
        result = check_name(name, limits=limits)
        with results.open("a") as file:
            file.write(json.dumps(result) + "\n")
        print(
            f"{position}/{len(names[part - 1 :: parts])} {name}: {result['status']} "
            f"{result.get('reason') or ''} {result['seconds']:.1f} s",
            file=sys.stderr,
            flush=True,
        )
        gc.collect()
    table = render_table(read_results(results), limits)
    if options.table is not None:
        options.table.write_text(table)
    print(table)
    return int(any(result["status"] == "failed" for result in read_results(results)))


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.coverage", description=__doc__.partition("\n")[0]
    )
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--all", action="store_true", help="every name that timm registers")
    which.add_argument(
        "--convolutional",
        action="store_true",
        help="every name in which convolutions hold half of the parameters",
    )
    which.add_argument("--family", action="append", help="a module of timm.models; may be repeated")
    which.add_argument("--name", action="append", help="one name; may be repeated")
    which.add_argument("--one-per-family", action="store_true", help="the smallest of each family")
    parser.add_argument("--results", type=Path, default=Path("build/coverage.jsonl"))
    parser.add_argument("--table", type=Path, help="write the table there, as Markdown")
    parser.add_argument("--part", type=_read_part, default=(1, 1), help="K/N: every N-th name")
    limits = SizeLimits()
    parser.add_argument(
        "--max-values",
        type=int,
        default=limits.convolutional,
        help="count, but do not run, larger networks: four copies of one must fit into memory",
    )
    parser.add_argument(
        "--max-values-elsewhere",
        type=int,
        default=limits.other,
        help="the same where convolutions hold less than half of the parameters",
    )
    return parser.parse_args(arguments)


def _choose(options: argparse.Namespace) -> Iterator[str]:
    if options.name:
        yield from options.name
    elif options.all:
        yield from timm.list_models()
    else:
        for family, names in find_families().items():
            if options.one_per_family:
                yield names[0]
            elif options.convolutional or family in options.family:
                yield from names


def _read_part(text: str) -> tuple[int, int]:
    part, _, parts = text.partition("/")
    if not (part.isdecimal() and parts.isdecimal() and 1 <= int(part) <= int(parts)):
        raise argparse.ArgumentTypeError(f"{text!r} is no part; expected K/N, such as 1/2")
    return int(part), int(parts)


if __name__ == "__main__":
    sys.exit(main())
