"""A card held against its adapter, before and after people edit it."""

from __future__ import annotations

from pathlib import Path

import pytest

from gatehub.adapter.card_check import check_card, read_front_matter, write_card
from gatehub.adapter.files import verify_adapter
from gatehub.errors import HubError
from tests.hub.plain import contents


def edit(folder: Path, old: str, new: str) -> None:
    card = folder / "README.md"
    text = card.read_text("utf-8")
    assert old in text
    card.write_text(text.replace(old, new), "utf-8")


def test_a_saved_adapter_has_a_sound_card(adapter_folder: Path) -> None:
    report = check_card(adapter_folder)
    assert report.problems == ()
    assert report.metadata["gatehub"]["task"] == "birds"
    assert [sentence.split(" (")[0] for sentence in report.advice] == [
        "It has no picture of its gates",
        "It names no license",
        "It names no data set on the Hub",
    ]


def test_license_and_data_are_written(adapter_folder: Path) -> None:
    write_card(adapter_folder, license="mit", datasets=["acme/birds"])
    report = check_card(adapter_folder)
    assert (report.problems, report.advice) == ((), ())
    assert report.metadata["license"] == "mit"
    with pytest.raises(HubError, match="is no name of a license"):
        write_card(adapter_folder, license="mit\nx: y")


def test_the_gates_are_drawn_once(adapter_folder: Path) -> None:
    before = contents(adapter_folder)
    write_card(adapter_folder)
    verify_adapter(adapter_folder)
    drawn = contents(adapter_folder)
    assert drawn.keys() - before.keys() == {"gates.png"}
    assert drawn["gates.safetensors"] == before["gates.safetensors"]
    assert b"](gates.png)" in drawn["README.md"]
    write_card(adapter_folder)
    assert contents(adapter_folder) == drawn


def test_hidden_files_are_not_lost_for_a_picture(adapter_folder: Path) -> None:
    (adapter_folder / ".git").mkdir()
    write_card(adapter_folder, license="mit")
    assert (adapter_folder / ".git").is_dir()
    assert not (adapter_folder / "gates.png").exists()
    assert check_card(adapter_folder).metadata["license"] == "mit"


def test_prose_may_be_edited(adapter_folder: Path) -> None:
    edit(adapter_folder, "# birds", "# Birds of our garden")
    assert check_card(adapter_folder).problems == ()


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ("library_name: gatehub", "library_name: timm", "library_name is 'timm'"),
        ("classes: 3", "classes: 4", "Its gatehub.classes is 4; expected 3."),
        ('backbone: "resnet18"', 'backbone: "demo"', "gatehub.backbone is 'demo'; expected 'resn"),
        ("  classes: 3", "  classes: 3\n  more: 1", "Its gatehub.more is 1; expected None."),
        ("- gatehub\n", "", "no list with 'gatehub'"),
        ("tags:", "tags: [", "is not YAML"),
        ("---\nlibrary", "library", "no front matter"),
        ("library_name: gatehub", "base_model: timm/x", "base_model is 'timm/x'; expected None"),
    ],
)
def test_what_a_hub_would_get_wrong_is_named(
    adapter_folder: Path, old: str, new: str, problem: str
) -> None:
    edit(adapter_folder, old, new)
    assert problem in " ".join(check_card(adapter_folder).problems)


def test_front_matter_is_data_only() -> None:
    with pytest.raises(ValueError, match="is not YAML"):
        read_front_matter("---\na: !!python/object/apply:os.system [x]\n---\n")
    with pytest.raises(ValueError, match="not a mapping"):
        read_front_matter("---\n- a\n---\n")
