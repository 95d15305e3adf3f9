"""A card held against its adapter, before and after people edit it."""

from __future__ import annotations

from pathlib import Path

import pytest

from gatehub.adapter import Adapter
from gatehub.adapter.card_check import MAX_CARD_BYTES, check_card, write_card
from gatehub.adapter.files import verify_adapter
from gatehub.backbone import Backbone
from gatehub.errors import AdapterExistsError, HubError
from gatehub.hub.files import MAX_FILE_BYTES
from tests.hub.plain import contents
from tests.tiny import make_trained


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
    with pytest.raises(HubError, match="is not the name of a license"):
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


def test_a_picture_that_would_not_be_drawn_is_not_promised(
    adapter_folder: Path, tiny_backbone: Backbone, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(adapter_folder)
    write_card(".", license="mit", datasets=["acme/birds"])  # the current folder stays
    assert check_card(".").advice == (
        "It has no picture of its gates (--write draws it when it is called from outside the "
        "folder).",
    )
    bare = make_trained(tiny_backbone, labels=("a", "b"), gates="none")
    Adapter.from_model(bare, task="bare").save(tmp_path / "bare")
    write_card(tmp_path / "bare", license="mit", datasets=["acme/birds"])
    assert check_card(tmp_path / "bare").advice == ()


def test_hidden_files_are_not_lost_for_a_picture(adapter_folder: Path) -> None:
    (adapter_folder / ".git").mkdir()
    write_card(adapter_folder, license="mit")
    assert (adapter_folder / ".git").is_dir()
    assert not (adapter_folder / "gates.png").exists()
    assert check_card(adapter_folder).metadata["license"] == "mit"


def test_a_card_that_is_a_link_is_not_replaced(adapter_folder: Path, tmp_path: Path) -> None:
    """As in the cache of the Hub's client, whose files several folders share."""
    card, shared = adapter_folder / "README.md", tmp_path / "blob"
    shared.write_bytes(card.read_bytes())
    card.unlink()
    card.symlink_to(shared)
    before = contents(adapter_folder)

    with pytest.raises(AdapterExistsError, match=r"README\.md' is a link, and is left as it is"):
        write_card(adapter_folder, license="mit")

    assert card.readlink() == shared
    assert contents(adapter_folder) == before


def test_prose_may_be_edited(adapter_folder: Path) -> None:
    edit(adapter_folder, "# birds", "# Birds of our garden")
    assert check_card(adapter_folder).problems == ()


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ("classes: 3", "classes: 3.0", "Its gatehub.classes is 3.0; expected 3."),
        ("classes: 3", "classes: &x 3", "an alias or anchor ('x') in line"),
        ("library_name: gatehub", f"library_name: {'x' * 9_999}", "…; expected 'gatehub'"),
        ("library_name: gatehub", 'library_name: "\\e[2J"', r"library_name is '\x1b[2J'; expected"),
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


def test_a_date_and_what_else_is_read_in_different_ways_is_advice(adapter_folder: Path) -> None:
    edit(adapter_folder, "tags:", "released: 2024-01-01\ntags:")
    report = check_card(adapter_folder)
    assert report.problems == ()
    assert report.metadata["released"] == "2024-01-01"
    assert "holds a date in line " in report.advice[0]


def test_of_many_foreign_fields_some_are_named(adapter_folder: Path) -> None:
    more = "".join(f"  more{number}: 1\n" for number in range(1_000))
    edit(adapter_folder, "  classes: 3\n", f"  classes: 3\n{more}")
    problems = check_card(adapter_folder).problems
    assert len(problems) == 11
    assert problems[-1] == "Its block gatehub has 990 more such fields."


def test_a_card_of_any_size_is_read_up_to_what_a_hub_takes(adapter_folder: Path) -> None:
    assert MAX_FILE_BYTES["README.md"] == MAX_CARD_BYTES
    with (adapter_folder / "README.md").open("r+b") as file:
        file.truncate(10 * 2**30)
    report = check_card(adapter_folder)
    assert report.problems == ("It has more than 1,000,000 bytes, which no hub takes.",)
    assert len(report.text) == MAX_CARD_BYTES


def test_line_breaks_of_windows_are_no_matter(adapter_folder: Path) -> None:
    card = adapter_folder / "README.md"
    card.write_bytes(card.read_bytes().replace(b"\n", b"\r\n"))
    assert check_card(adapter_folder).problems == ()
