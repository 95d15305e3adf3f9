"""examples/preprocess.py: numpy and Pillow alone, and the same bits as the package."""

from __future__ import annotations

import ast
import importlib.util
import io
import json
import runpy
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch.nn import Identity

from gatehub.backbone.images import ImageRules
from gatehub.backbone.preprocessing import Preprocessing
from gatehub.errors import InputError
from tests.backbone.drawn import any_images, preprocessings
from tests.backbone.files import chunk, encode, gradient, png, turned

EXAMPLE = Path(__file__).parents[1] / "examples" / "preprocess.py"


def load_prepare() -> Callable[[Image.Image, dict[str, Any]], np.ndarray]:
    spec = importlib.util.spec_from_file_location("preprocess", EXAMPLE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    prepare: Callable[[Image.Image, dict[str, Any]], np.ndarray] = module.prepare
    return prepare


PREPARE = load_prepare()


def stored(preprocessing: Preprocessing) -> dict[str, Any]:
    """The section as it stands in config.json."""
    fields: dict[str, Any] = json.loads(json.dumps(preprocessing.to_json()))
    return fields


def assert_same(source: bytes | Image.Image, preprocessing: Preprocessing) -> None:
    image = Image.open(io.BytesIO(source)) if isinstance(source, bytes) else source
    try:
        expected = preprocessing.transform()(source).numpy()
    except InputError:
        with pytest.raises(ValueError, match=r"must be > 0"):
            PREPARE(image, stored(preprocessing))
        return
    made = PREPARE(image, stored(preprocessing))
    assert made.dtype == np.float32
    assert np.array_equal(made, expected)


def test_it_needs_numpy_and_pillow_alone() -> None:
    tree = ast.parse(EXAMPLE.read_text("utf-8"))
    names = {
        name.partition(".")[0]
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in ([node.module or ""] if isinstance(node, ast.ImportFrom) else [])
        + [alias.name for alias in node.names if isinstance(node, ast.Import)]
    }
    assert names == {"__future__", "json", "math", "sys", "typing", "numpy", "PIL"}


@settings(deadline=None, max_examples=200)
@given(any_images(), preprocessings())
def test_it_gives_the_same_bits(image: Image.Image, preprocessing: Preprocessing) -> None:
    assert_same(image, preprocessing)


@pytest.mark.filterwarnings("ignore:Palette images with Transparency")  # of Pillow, as it writes
@settings(deadline=None, max_examples=100)
@given(any_images(), preprocessings(), st.sampled_from(["PNG", "TIFF", "JPEG", "WEBP", "GIF"]))
def test_it_gives_the_same_bits_of_a_file(
    image: Image.Image, preprocessing: Preprocessing, form: str
) -> None:
    try:
        encoded = encode(image, form, exif=image.info.get("exif", b""))
    except (OSError, ValueError, KeyError):  # no such mode in the format
        encoded = encode(image.convert("RGB"), form)
    assert_same(encoded, preprocessing)


@settings(deadline=None, max_examples=50)
@given(preprocessings(), st.integers(0, 2**32), st.sampled_from([0, 2, 6]), st.integers(1, 8))
def test_it_gives_the_same_bits_of_16_bits(
    preprocessing: Preprocessing, seed: int, colour_type: int, orientation: int
) -> None:
    channels = {0: 1, 2: 3, 6: 4}[colour_type]
    noise = np.random.default_rng(seed)
    values = noise.integers(0, 65536, (*noise.integers(1, 40, 2), channels), dtype=np.uint16)
    exif = turned(orientation).tobytes().removeprefix(b"Exif\0\0")
    assert_same(png(values, colour_type, chunks=chunk(b"eXIf", exif)), preprocessing)


@settings(deadline=None, max_examples=50)
@given(preprocessings(), st.sampled_from(["1", "L", "LA", "RGB", "RGBA", "CMYK"]))
def test_it_gives_the_same_bits_for_an_adapter_without_rules(
    preprocessing: Preprocessing, mode: str
) -> None:
    assert_same(gradient().convert(mode), replace(preprocessing, image_rules=None))


@pytest.mark.parametrize(
    "encoded",
    [
        png(np.zeros((2, 2, 2), np.uint16), 4),
        png(np.zeros((2, 2, 1), np.uint16), 0, key=(0,)),
        png(np.zeros((2, 2, 1), np.uint16), 0, bits=4, key=(0,)),
        encode(Image.new("I", (2, 2)), "TIFF"),
        encode(Image.new("F", (2, 2)), "TIFF"),
        encode(Image.new("LAB", (2, 2)), "TIFF"),
    ],
)
def test_what_it_leaves_out_is_refused(encoded: bytes) -> None:
    preprocessing = Preprocessing.from_model(Identity())
    with pytest.raises(ValueError, match="save the image with"):
        PREPARE(Image.open(io.BytesIO(encoded)), stored(preprocessing))


@pytest.mark.parametrize(
    ("mode", "rules"),
    [
        *((mode, None) for mode in ("I;16", "I", "F")),
        *((mode, ImageRules()) for mode in ("I", "F", "LAB")),
    ],
)
def test_what_the_package_refuses_is_refused(mode: str, rules: ImageRules | None) -> None:
    preprocessing = replace(Preprocessing.from_model(Identity()), image_rules=rules)
    encoded = encode(Image.new(mode, (2, 2)), "TIFF")
    with pytest.raises(InputError):
        preprocessing.transform()(encoded)
    with pytest.raises(ValueError, match="save the image with"):
        PREPARE(Image.open(io.BytesIO(encoded)), stored(preprocessing))


def test_it_is_a_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    preprocessing = Preprocessing.from_model(Identity())
    (tmp_path / "config.json").write_text(json.dumps({"preprocessing": stored(preprocessing)}))
    gradient().save(tmp_path / "a.png")
    arguments = ["config.json", "a.png", "a.npy"]
    monkeypatch.setattr("sys.argv", ["preprocess.py", *(str(tmp_path / a) for a in arguments)])
    runpy.run_path(str(EXAMPLE), run_name="__main__")
    assert np.array_equal(np.load(tmp_path / "a.npy"), preprocessing.transform()(gradient()))
