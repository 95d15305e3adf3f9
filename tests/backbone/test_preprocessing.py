from __future__ import annotations

import pickle
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from timm.data import create_transform, resolve_data_config

from gatehub.backbone import Backbone
from gatehub.backbone.images import ImageRules
from gatehub.backbone.preprocessing import Preprocessing
from gatehub.errors import ImageTooLargeError, InputError
from tests.backbone.drawn import images, preprocessings
from tests.backbone.files import encode, gradient, turned
from tests.tiny import make_backbone

SQUARE = Preprocessing(
    input_size=(3, 32, 32),
    mean=(0.4, 0.5, 0.6),
    std=(0.2, 0.25, 0.3),
    interpolation="bilinear",
    crop_pct=0.875,
    crop_mode="center",
)


@pytest.mark.parametrize(
    "name", ["resnet18.a1_in1k", "test_resnet", "tf_efficientnet_b0.ns_jft_in1k"]
)
def test_it_is_read_from_timms_own_configuration(name: str) -> None:
    with torch.device("meta"):
        model = timm.create_model(name)
    config = timm.get_pretrained_cfg(name)
    preprocessing = Preprocessing.from_model(model)
    assert preprocessing.input_size == config.input_size
    assert (preprocessing.mean, preprocessing.std) == (config.mean, config.std)
    assert preprocessing.interpolation == config.interpolation
    assert preprocessing.crop_pct == config.crop_pct
    assert preprocessing.crop_mode == config.crop_mode


def test_a_model_without_a_configuration_has_timms_defaults() -> None:
    defaults = Preprocessing.from_model(torch.nn.Identity())
    assert (defaults.input_size, defaults.interpolation) == ((3, 224, 224), "bicubic")


def test_a_backbone_has_the_one_of_its_model(tiny_backbone: Backbone) -> None:
    assert tiny_backbone.preprocessing == Preprocessing.from_model(tiny_backbone.model)
    assert tiny_backbone.preprocessing.input_size == (3, 32, 32)


@pytest.mark.parametrize(
    "overlay",
    [
        {},
        {"input_size": (3, 48, 64), "crop_pct": 1.0},
        {"input_size": (3, 64, 64), "crop_pct": 1.0, "crop_mode": "squash"},
        {"crop_mode": "border", "interpolation": "bilinear", "mean": (0.1, 0.2, 0.3)},
    ],
    ids=str,
)
def test_a_models_transform_is_timms_evaluation_transform(overlay: dict[str, object]) -> None:
    with torch.device("meta"):
        model = timm.create_model("test_resnet", pretrained_cfg_overlay=overlay)
    theirs = create_transform(**resolve_data_config({}, model=model), is_training=False)
    image = gradient(90, 70)
    tensor = Preprocessing.from_model(model).transform()(image)
    assert tensor.dtype == torch.float32
    assert torch.equal(tensor, theirs(image))


@settings(deadline=None, max_examples=200)
@given(preprocessings(), images())
def test_the_transform_is_timms_bit_for_bit(
    preprocessing: Preprocessing, image: Image.Image
) -> None:
    fields = asdict(preprocessing)
    del fields["image_rules"]
    theirs = create_transform(**fields, is_training=False)
    if not all(preprocessing.resized(*image.size)):
        with pytest.raises(InputError, match="would be resized to"):
            preprocessing.transform()(image)
    else:
        assert torch.equal(preprocessing.transform()(image), theirs(image))


def test_a_photograph_is_transformed_as_timm_does() -> None:
    imagenet = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
    noise = np.random.default_rng(0).integers(0, 256, (750, 1003, 3), dtype=np.uint8)
    for crop_mode in ("center", "squash", "border"):
        preprocessing = replace(
            SQUARE,
            input_size=(3, 224, 224),
            interpolation="bicubic",
            crop_mode=crop_mode,
            **imagenet,
        )
        fields = asdict(preprocessing)
        del fields["image_rules"]
        theirs = create_transform(**fields, is_training=False)
        image = Image.fromarray(noise)
        assert torch.equal(preprocessing.transform()(image), theirs(image))


def test_the_transform_takes_a_file_as_its_rules_say(tmp_path: Path) -> None:
    encoded = encode(gradient(), exif=turned(6))
    (tmp_path / "a.png").write_bytes(encoded)
    lying, upright = gradient(), gradient().transpose(Image.Transpose.ROTATE_270)
    for rules, expected in ((None, lying), (ImageRules(), upright)):
        preprocessing = replace(SQUARE, image_rules=rules)
        transform = preprocessing.transform()
        for source in (encoded, tmp_path / "a.png", str(tmp_path / "a.png")):
            assert torch.equal(transform(source), transform(expected))
            assert preprocessing.open(source).tobytes() == expected.tobytes()


def test_the_transform_can_be_sent_to_another_process() -> None:
    transform = pickle.loads(pickle.dumps(SQUARE.transform(max_pixels=1200)))
    assert torch.equal(transform(gradient()), SQUARE.transform()(gradient()))
    with pytest.raises(ImageTooLargeError, match="at most 1,200"):
        transform(gradient(41, 30))


@pytest.mark.parametrize(
    ("size", "crop_mode"),
    [
        ((1, 10_000), "center"),
        ((10_000, 1), "center"),
        ((1, 199_999), "center"),
        ((40, 190_000), "squash"),
    ],
)
def test_what_would_become_too_large_is_refused_before_it_is_made(
    size: tuple[int, int], crop_mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    preprocessing = replace(SQUARE, input_size=(3, 256, 256), crop_mode=crop_mode)
    monkeypatch.setattr(Image.Image, "resize", lambda *_: pytest.fail("it was made"))
    sentence = f"has {size[0]} x {size[1]} pixels and would be resized to .* takes more than 50,000"
    for source in (encode(Image.new("1", size)), Image.new("1", size)):
        with pytest.raises(ImageTooLargeError, match=sentence):
            preprocessing.transform()(source)
        with pytest.raises(ImageTooLargeError, match=sentence):
            preprocessing.open(source)


@settings(deadline=None)
@given(preprocessings(), st.integers(1, 300), st.integers(1, 300), st.integers(1600, 20_000))
def test_nothing_larger_than_the_limit_is_made(
    preprocessing: Preprocessing, width: int, height: int, limit: int
) -> None:
    made = []

    def resize(image: Image.Image, size: tuple[int, int], *rest: object) -> Image.Image:
        # What Pillow allocates: the new width in the old height, then the new height.
        made.append(max(size[0] * image.height, size[0] * size[1]))
        return original(image, size, *rest)

    original = Image.Image.resize
    image = Image.new("RGB", (width, height))
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(Image.Image, "resize", resize)
        try:
            preprocessing.transform(max_resized_pixels=limit)(image)
        except ImageTooLargeError:
            new_width, new_height = preprocessing.resized(width, height)
            assert new_width * max(height, new_height) > limit
            assert not made
        except InputError:
            assert not all(preprocessing.resized(width, height))
            assert not made
        else:
            assert max(made) <= limit


def test_what_would_become_nothing_is_refused() -> None:
    preprocessing = replace(SQUARE, crop_mode="border")
    sentence = "has 1 x 100 pixels and would be resized to 0 x 36"
    with pytest.raises(InputError, match=sentence) as refusal:
        preprocessing.transform()(Image.new("RGB", (1, 100)))
    assert "Pad it" in str(refusal.value.hint)


def test_the_host_programs_torch_settings_change_nothing() -> None:
    expected = SQUARE.transform()(gradient())
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        with torch.device("meta"):
            tensor = SQUARE.transform()(gradient())
    finally:
        torch.set_default_dtype(before)
    assert tensor.device.type == "cpu"
    assert torch.equal(tensor, expected)


def test_it_survives_being_written_as_a_mapping() -> None:
    assert Preprocessing(**asdict(SQUARE)) == SQUARE
    assert Preprocessing(**SQUARE.to_json()) == SQUARE


def test_rules_are_stored_where_there_are_any() -> None:
    assert "image_rules" not in SQUARE.to_json()
    ruled = replace(SQUARE, image_rules=ImageRules(background=(1, 2, 3)))
    assert ruled.to_json()["image_rules"] == {"version": 1, "background": (1, 2, 3)}


def test_a_models_preprocessing_has_the_newest_rules() -> None:
    assert Preprocessing.from_model(torch.nn.Identity()).image_rules == ImageRules()


def test_a_plain_image_is_normalised_channel_by_channel() -> None:
    tensor = SQUARE.transform()(Image.new("RGB", (50, 40), (51, 102, 204)))
    expected = torch.tensor([(0.2 - 0.4) / 0.2, (0.4 - 0.5) / 0.25, (0.8 - 0.6) / 0.3])
    assert tensor.shape == (3, 32, 32)
    torch.testing.assert_close(tensor, expected[:, None, None].expand(3, 32, 32))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"input_size": (1, 32, 32)}, r"input_size is \(1, 32, 32\); expected 3 channels"),
        ({"input_size": (3, 0, 32)}, "expected 3 channels and sides of 1 to 4096"),
        ({"input_size": (3, 32, 4097)}, "expected 3 channels and sides of 1 to 4096"),
        ({"mean": (0.5,)}, r"mean \(0.5,\) .* must each have 3 finite values"),
        ({"std": (0.2, 0.2, 0.2, 0.2)}, "must each have 3 finite values, std above 0"),
        ({"std": (0.2, 0.0, 0.2)}, "must each have 3 finite values, std above 0"),
        ({"std": ()}, "must each have 3 finite values, std above 0"),
        ({"mean": (0.5, float("nan"), 0.5)}, "must each have 3 finite values"),
        ({"std": (0.2, float("nan"), 0.2)}, "must each have 3 finite values"),
        ({"std": (0.2, float("inf"), 0.2)}, "must each have 3 finite values"),
        ({"interpolation": "cubic"}, "interpolation is 'cubic'; expected one of bicubic, bilinear"),
        ({"crop_pct": 0.0}, r"crop is 0.0 'center'; expected a share in \(0, 1\]"),
        ({"crop_pct": 1.01}, "crop is 1.01 'center'"),
        ({"crop_pct": float("nan")}, "crop is nan 'center'"),
        ({"interpolation": "nearest-exact"}, "interpolation is 'nearest-exact'; expected one of"),
        ({"std": (0.2, 1e-300, 0.2)}, "leave some of the 256 levels .* infinite or equal"),
        ({"std": (0.2, 5e-6, 0.2)}, "leave some of the 256 levels .* infinite or equal"),
        ({"std": (0.2, 1e300, 0.2)}, "leave some of the 256 levels .* infinite or equal"),
        ({"mean": (0.2, 1e300, 0.2)}, "leave some of the 256 levels .* infinite or equal"),
        ({"mean": (123.675, 116.28, 103.53), "std": (58.395, 57.12, 57.375)}, "infinite or equal"),
        ({"crop_pct": 1e-9}, "crop_pct is 1e-09, for which a photograph would be resized to more"),
        ({"crop_pct": 5e-324}, "for which a photograph would be resized to more than 50,000,000"),
        ({"input_size": (3, 32, 32), "crop_pct": 0.005}, "more than 50,000,000 pixels before"),
        ({"input_size": (3, 4096, 4096), "crop_pct": 0.5}, "more than 50,000,000 pixels before"),
        ({"crop_mode": "corner"}, "crop is 0.875 'corner'; .* one of border, center, squash"),
    ],
    ids=str,
)
def test_values_out_of_their_range_are_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        replace(SQUARE, **changes)


@pytest.mark.parametrize(
    "changes",
    [
        {"mean": (0.0,) * 3, "std": (1 / 255,) * 3},
        {"mean": (0.5,) * 3, "std": (0.5,) * 3},
        {"mean": (-1.0, 0.0, 2.0), "std": (1.0, 2.0, 3.0)},
        {"input_size": (3, 4096, 4096), "crop_pct": 0.875},
        {"crop_pct": 0.1},
    ],
    ids=str,
)
def test_unusual_values_that_work_are_taken(changes: dict[str, object]) -> None:
    replace(SQUARE, **changes)


@pytest.mark.parametrize(
    ("own", "largest"),
    [(32, 128), (112, 448), (160, 640), (224, 800), (288, 800), (384, 800), (512, 1024)],
)
def test_tasks_may_take_larger_images_than_their_backbone(own: int, largest: int) -> None:
    backbones = replace(make_backbone().preprocessing, input_size=(3, own, own), crop_pct=1.0)
    assert backbones.max_task_pixels == largest**2
    assert backbones.with_input_size(largest).input_size == (3, largest, largest)
    for side in (0, largest + 1):
        with pytest.raises(InputError, match=rf"input_size is {side}; expected 1 to {largest} pix"):
            backbones.with_input_size(side)
