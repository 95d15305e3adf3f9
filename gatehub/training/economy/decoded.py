"""Images that are decoded once and then stay in memory, as far as a budget goes."""

from __future__ import annotations

import multiprocessing
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from gatehub.backbone.preprocessing import Preprocessing
from gatehub.training.examples import Examples


def hold_decoded(
    examples: Examples, preprocessing: Preprocessing, *, limit_bytes: int, workers: int = 0
) -> Examples:
    """Decode files, in their order, until a budget is used up; the others stay files.

    What is held are whole pictures, since a random crop may need any part of one, so whatever is
    drawn from them is the same, bit for bit.

    Args:
        examples: they stay as they are.
        preprocessing: the one that the images will be opened by.
        limit_bytes: of the pixels that are held.
        workers: processes that will read the images beside this one, and threads that decode now.

    Raises:
        InputError: an image cannot be decoded any more.
    """
    # Processes that are forked read the same memory; others are given a copy each.
    if workers and multiprocessing.get_context().get_start_method() != "fork":
        limit_bytes //= workers + 1
    sources = list(examples.sources)
    files = [index for index, source in enumerate(sources) if not isinstance(source, np.ndarray)]
    at_once = max(1, workers)

    def decode(index: int) -> NDArray[np.uint8]:
        return np.array(preprocessing.open(examples.source(index)))

    with ThreadPoolExecutor(at_once) as pool:
        while files and limit_bytes > 0:
            some, files = files[:at_once], files[at_once:]
            for index, pixels in zip(some, pool.map(decode, some), strict=True):
                limit_bytes -= pixels.nbytes
                if limit_bytes >= 0:
                    sources[index] = pixels
    return replace(examples, sources=tuple(sources))
