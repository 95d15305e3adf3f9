"""What is no batch of images is refused in a sentence, whatever it is."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from gatehub.errors import InputError
from gatehub.runtime.inputs import check_image, check_images

NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("images", "text"),
    [
        (np.zeros((1, 3, 8, 8), np.float32), r"got numpy\.ndarray; expected a dense float32"),
        ([[1.0]], r"got builtins\.list"),
        (None, r"got builtins\.NoneType"),
        (Path("robin.jpg"), r"got pathlib\."),
        (Image.new("RGB", (8, 8)), r"got PIL\.Image"),
        (torch.zeros(1, 3, 8, 8, device="meta"), r"without values \(meta\)"),
        (torch.zeros(1, 3, 8, 8).to_sparse(), "laid out as torch.sparse_coo"),
        (torch.zeros(1).expand(1, 3, 300_000, 300_000), "at most 1,073,741,824 are taken"),
        (torch.zeros(1, 3, 8, 8, dtype=torch.uint8), "got images of torch.uint8"),
        (torch.zeros(1, 3, 8, 8, dtype=torch.complex64), "got images of torch.complex64"),
        (torch.zeros(3, 8, 8), r"shape \(3, 8, 8\); expected \(B, 3, H, W\), none of them 0"),
        (torch.zeros(1, 4, 8, 8), r"shape \(1, 4, 8, 8\)"),
        (torch.zeros(1, 3, 0, 8), r"shape \(1, 3, 0, 8\)"),
        (torch.zeros(0, 3, 8, 8), r"shape \(0, 3, 8, 8\)"),
    ],
)
def test_what_is_no_batch_of_images(images: object, text: str) -> None:
    with pytest.raises(InputError, match=f"Task 'birds' got|{text}") as caught:
        check_images(images, channels=3, subject="Task 'birds'")
    assert caught.match(text)


@given(
    st.integers(0, 3),
    st.integers(0, 3 * 5 * 4 - 1),
    st.sampled_from([NAN, INF, -INF]),
    st.booleans(),
)
def test_one_value_that_is_not_finite_is_found(
    image: int, place: int, value: float, channels_last: bool
) -> None:
    images = torch.randn(4, 3, 5, 4)
    images[image].view(-1)[place] = value
    if channels_last:
        images = images.contiguous(memory_format=torch.channels_last)
    with pytest.raises(InputError, match=f"NaN or infinity in image {image} of 4"):
        check_images(images, channels=3, subject="Task 'birds'")
    with pytest.raises(InputError, match="NaN or infinity in image 0 of 1"):
        check_image(images[image], channels=3, subject="Task 'birds'")


@pytest.mark.parametrize(
    ("value", "ordinary"), [(-7.5, True), (0.0, True), (-3e38, False), (3e38, False), (2e4, False)]
)
def test_values_that_no_normalised_image_has_are_told(value: float, ordinary: bool) -> None:
    images = torch.zeros(2, 3, 4, 4)
    images[1, 2, 3, 0] = value
    assert check_images(images, channels=3, subject="x") is ordinary
