from __future__ import annotations

import pytest

from gatehub._pickles import is_pickle


@pytest.mark.parametrize(
    "name",
    [
        "pytorch_model.bin",
        "epoch=3.ckpt",
        "model.joblib",
        "embeddings.npy",
        "state.pickle",
        "evil.PKL",
        "net.pt",
        "folder/net.pth",
        "model_best.pth.tar",
    ],
)
def test_a_pickle_is_known_by_its_name(name: str) -> None:
    assert is_pickle(name)


@pytest.mark.parametrize(
    "name", ["gates.safetensors", "config.json", "README.md", "pt", "net.pth.safetensors", ""]
)
def test_other_files_are_none(name: str) -> None:
    assert not is_pickle(name)
