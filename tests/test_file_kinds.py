"""What a file is: pointers of git-lfs, in every place where a file is read."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from gatehub import Adapter, GatehubError, load_backbone
from gatehub._file_kinds import describe_file, is_pointer, is_pointer_text
from gatehub.backbone.images import open_image
from gatehub.export import verify_onnx
from gatehub.training.sources import read_source

BODY = b"oid sha256:4d7a214614ab2935c943f9e0ff69d22eadbb8f32b1258daaa5e2ca24d17e2393\nsize 12345\n"
NEW = b"version https://git-lfs.github.com/spec/v1\n" + BODY
POINTERS = {
    "today's": NEW,
    "of the old name": b"version https://hawser.github.com/spec/v1\n" + BODY,
    "after a byte order mark": b"\xef\xbb\xbf" + NEW,
    "with lines of Windows": NEW.replace(b"\n", b"\r\n"),
    "with extensions": NEW + b"".join(b"ext-%d-x sha256:%s\n" % (i, b"0" * 64) for i in range(45)),
    "cut off": b"version https://git-lfs.github.com/spec/v1",
}
READERS: dict[str, Callable[[Path], object]] = {
    "birds.onnx": verify_onnx,
    "photo.jpg": open_image,
    "birds": Adapter.load,
    "gates.safetensors": Adapter.load,
    "weights.safetensors": lambda path: load_backbone("resnet18", weights=path),
    "table.csv": lambda path: list(read_source(path).pictures),
}


@pytest.mark.parametrize("kind", POINTERS)
@pytest.mark.parametrize("name", READERS)
def test_a_pointer_is_named_wherever_a_file_is_read(name: str, kind: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(POINTERS[kind])
    assert path.stat().st_size <= 4_096
    assert describe_file(path) == "a git-lfs pointer"
    with pytest.raises(GatehubError, match=rf"{name}' is a git-lfs pointer .*`git lfs pull`") as e:
        READERS[name](path)
    assert e.value.hint == f"Run: git lfs install && git -C {tmp_path} lfs pull"


def test_bytes_of_a_pointer_are_no_image() -> None:
    with pytest.raises(GatehubError, match=r"The image is a git-lfs pointer .*Send the image"):
        open_image(NEW)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"# About `version https://git-lfs.github.com/spec/v1`",
        NEW + b"A line of prose.\n",
        NEW + b"x" * 2_000,
        NEW + b"ext-0-x " + b"0" * 4_096,
        b"version https://git-lfs.example.com/spec/v1\n" + BODY,
    ],
)
def test_what_only_looks_like_a_pointer_is_none(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(content)
    assert not is_pointer_text(content)
    assert not is_pointer(tmp_path / "file")
