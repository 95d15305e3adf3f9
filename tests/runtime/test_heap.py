"""Freed memory is kept where a program asks for it, and its user's own settings stay."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from gatehub.runtime.heap import _find_libc, return_free_memory

needs_glibc = pytest.mark.skipif(_find_libc() is None, reason="not glibc")

# Takes and frees 40 MB ten times, in a thread of its own, and counts pages that had to be fetched.
PROGRAM = """
import resource, sys, threading
from gatehub.runtime.heap import keep_freed_memory

def touch():
    for _ in range(10):
        _ = bytes([1]) * 40_000_000

def count():
    touch()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    touch()
    print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)

if sys.argv[1] == "keep":
    assert keep_freed_memory() is (len(sys.argv) == 2)
thread = threading.Thread(target=count)
thread.start()
thread.join()
"""


def count_pages(*arguments: str, **environment: str) -> int:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *arguments],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return int(done.stdout)


@needs_glibc
def test_large_blocks_are_fetched_once() -> None:
    assert count_pages("leave") > 10_000  # 40 MB are about as many pages of 4 KiB
    assert count_pages("keep") < 1000


@needs_glibc
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("MALLOC_MMAP_THRESHOLD_", "1000000"),
        ("GLIBC_TUNABLES", "glibc.malloc.mmap_threshold=1000000"),
    ],
)
def test_the_users_own_settings_stay(name: str, value: str) -> None:
    assert count_pages("keep", "is set", **{name: value}) > 10_000


def test_memory_is_given_back_no_more_often_than_asked() -> None:
    assert return_free_memory()
    assert not return_free_memory(every_s=60)
    assert return_free_memory()
