"""Freed memory is kept where a program asks for it, and its user's own settings stay."""

from __future__ import annotations

import os
import resource
import subprocess
import sys

import pytest

from gatehub.runtime.heap import _find_libc, return_free_memory

needs_glibc = pytest.mark.skipif(_find_libc() is None, reason="not glibc")

BLOCK_BYTES = 40_000_000
PAGES = BLOCK_BYTES // resource.getpagesize()

# Takes and frees a block ten times, in a thread of its own, and counts pages that were fetched.
PROGRAM = f"""
import ctypes, resource, sys, threading
from gatehub.runtime import heap

class OldLibc:
    def mallopt(self, name, value):
        too_high = name == heap._MMAP_THRESHOLD and value > 2**25
        return 0 if too_high else ctypes.CDLL("libc.so.6").mallopt(name, value)

def touch():
    for _ in range(10):
        _ = bytes([1]) * {BLOCK_BYTES}

def count():
    touch()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    touch()
    print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)

ctypes.CDLL(None).prctl(41, 1, 0, 0, 0)  # PR_SET_THP_DISABLE: pages of one size everywhere
what = sys.argv[1]
if what == "keep on an old system":
    heap._find_libc = OldLibc
if what != "leave":
    assert heap.keep_freed_memory() is (what != "keep what is set")
thread = threading.Thread(target=count)
thread.start()
thread.join()
"""


def count_pages(what: str, **settings: str) -> int:
    ours = {k: v for k, v in os.environ.items() if not k.startswith(("MALLOC_", "GLIBC_"))}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, what],
        env=ours | settings,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return int(done.stdout)


@needs_glibc
def test_large_blocks_are_fetched_once() -> None:
    assert count_pages("leave") > 5 * PAGES
    assert count_pages("keep") < PAGES / 5


@needs_glibc
def test_large_blocks_are_fetched_once_where_glibc_limits_its_threshold() -> None:
    assert count_pages("keep on an old system") < PAGES / 5


@needs_glibc
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("MALLOC_MMAP_THRESHOLD_", "1000000"),
        ("MALLOC_MMAP_MAX_", "1000"),
        ("GLIBC_TUNABLES", "glibc.malloc.mmap_threshold=1000000"),
    ],
)
def test_the_users_own_settings_stay(name: str, value: str) -> None:
    assert count_pages("keep what is set", **{name: value}) > 5 * PAGES


def test_memory_is_given_back_no_more_often_than_asked() -> None:
    assert return_free_memory()
    assert not return_free_memory(every_s=60)
    assert return_free_memory()
