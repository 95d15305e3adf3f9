"""A device is tried before anything is moved there."""

from __future__ import annotations

import pytest
import torch

from gatehub.backbone.device import find_device
from gatehub.errors import DeviceError


def test_the_processor_is_always_there() -> None:
    assert find_device("cpu") == torch.device("cpu")
    assert find_device().type == ("cuda" if torch.cuda.is_available() else "cpu")


@pytest.mark.parametrize("device", ["", "nowhere", "cuda:77", "cuda:x", "meta", "cpu;", None])
def test_a_device_that_is_not_there_gets_a_sentence(device: str) -> None:
    with pytest.raises(DeviceError, match=r"Device .* cannot be used here: .*\. Use cpu"):
        find_device(device)
