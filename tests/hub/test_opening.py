"""Which hub a path, a URL or the environment names."""

from __future__ import annotations

from pathlib import Path

import pytest

from gatehub.errors import HubError
from gatehub.hub.opening import open_hub
from gatehub.hub.protocol import Hub, ListedAdapter, Query
from tests.hub.plain import REPO, SUMMARY, digests, write_folder


@pytest.fixture(autouse=True)
def _no_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GATEHUB_HUB", raising=False)


def pushed_to(hub: Hub, tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "one", 1)
    hub.push(
        folder,
        digests(folder),
        REPO,
        revision="main",
        tag=None,
        message="",
        summary=SUMMARY,
    )


@pytest.mark.parametrize("form", ["path", "text", "url", "localhost", "relative", "home"])
def test_a_folder_in_every_form(form: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tmp_path / "a hub"
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    places: dict[str, str | Path] = {
        "path": root,
        "text": str(root),
        "url": root.as_uri(),
        "localhost": root.as_uri().replace("file://", "FILE://localhost"),
        "relative": "a hub",
        "home": "~/a hub",
    }

    pushed_to(open_hub(places[form]), tmp_path)

    assert (root / "repos" / REPO).is_dir()


def test_the_environment_names_the_hub_of_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GATEHUB_HUB", str(tmp_path / "env"))

    pushed_to(open_hub(None), tmp_path)

    assert (tmp_path / "env" / "repos" / REPO).is_dir()
    assert "given" in repr(open_hub(tmp_path / "given"))  # what is given goes before it


@pytest.mark.parametrize("value", [None, ""])
def test_no_name_is_the_hugging_face_hub(
    value: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HF_ENDPOINT", raising=False)
    if value is not None:
        monkeypatch.setenv("GATEHUB_HUB", value)
    assert open_hub(None).place == "https://huggingface.co"
    monkeypatch.setenv("HF_ENDPOINT", "https://hub.acme.example/")
    assert open_hub(None).place == "https://hub.acme.example"
    assert open_hub("https://elsewhere.example:8443").key.startswith("elsewhere.example-8443-")


def test_no_secret_of_a_url_is_shown() -> None:
    hub = open_hub("https://ada:secret@hub.acme.example")
    assert "secret" not in f"{hub!r} {hub.place} {hub.key}"
    for place in ("file://ada:secret@server/share", "nosuch://ada:secret@server/share"):
        with pytest.raises(HubError) as caught:
            open_hub(place)
        assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    "place", ["nosuch://acme", "file://server/share", "file://", "s3://", "memory:///../x"]
)
def test_other_hubs_are_refused(place: str) -> None:
    with pytest.raises(HubError, match=f"'{place}' is not a hub that this version of gatehub"):
        open_hub(place)


@pytest.mark.parametrize(
    ("recorded", "asked", "others"),
    [
        ("demo", ["demo"], ["resnet18", "demo2"]),
        ("resnet18.a1_in1k", ["resnet18", "resnet18.a1_in1k", "timm/resnet18.a1_in1k"], ["demo"]),
        ("resnet18.a1_in1k", ["hf-hub:timm/resnet18.a1_in1k@0123abc"], ["resnet18.a2_in1k"]),
        ("hf-hub:timm/resnet18.a1_in1k", ["resnet18", "resnet18.a1_in1k"], ["resnet"]),
        (
            "hf-hub:acme/wide.v2",
            ["acme/wide.v2", "hf-hub:acme/wide.v2@main"],
            ["wide", "acme/wide"],
        ),
        (
            "local-dir:wide",
            ["local-dir:/srv/wide/", "local-dir:C:\\models\\wide"],
            ["wide", "/wide"],
        ),
    ],
)
def test_a_backbone_is_found_by_what_it_is_loaded_by(
    recorded: str, asked: list[str], others: list[str]
) -> None:
    row = ListedAdapter(
        **{"repo": REPO, "revision": "main", "commit": "0" * 40, "task": "birds", "classes": 2},
        **{"backbone": recorded, "gates": "auto", "bytes": 1, "accuracy": None, "updated": ""},
    )
    assert [name for name in asked if not Query(backbone=name).takes(row)] == []
    assert [name for name in others if Query(backbone=name).takes(row)] == []


@pytest.mark.parametrize(
    ("backbone", "base_model"),
    [
        *((None, None), ("demo", None), ("resnet18", None), ("local-dir:/srv/wide.v2", None)),
        ("resnet18.a1_in1k", "timm/resnet18.a1_in1k"),
        ("hf-hub:acme/wide@v1", "acme/wide"),
    ],
)
def test_the_hub_is_asked_for_the_base_model(backbone: str | None, base_model: str | None) -> None:
    assert Query(backbone=backbone).base_model == base_model
