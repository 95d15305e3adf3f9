"""A push: what could be a path of the machine that made an adapter is cut to its last name."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from gatehub.adapter import verify_adapter
from gatehub.adapter.card_check import check_card
from gatehub.adapter.privacy import cut_paths, cut_setting, hide_paths
from tests.adapter.sample import CARD, CONFIG, SAMPLE_CONFIG, TENSORS, contents, make_sample

SECRET = "secret-client"

# Each leads to eyes by way of a client's name.
PATHS = [
    f"/home/ada/{SECRET}/eyes",
    f"/home/ada/{SECRET}/eyes/",
    f"//nas/{SECRET}/eyes",
    f"../{SECRET}/eyes",
    f"../../{SECRET}/eyes",
    f"./{SECRET}/eyes",
    f"~/{SECRET}/eyes",
    f"~{SECRET}/eyes",
    f"$HOME/{SECRET}/eyes",
    f"${{DATA}}/{SECRET}/eyes",
    f"file:///home/{SECRET}/eyes",
    f"FILE://nas/{SECRET}/eyes",
    f"file:/home/{SECRET}/eyes",
    rf"C:\Users\{SECRET}\eyes",
    f"D:/{SECRET}/eyes",
    rf"\\nas\{SECRET}\eyes",
    rf"\Users\{SECRET}\eyes",
    rf"..\{SECRET}\eyes",
    rf".\{SECRET}\eyes",
    rf"%USERPROFILE%\{SECRET}\eyes",
    f"file:../{SECRET}/eyes",
]
RELATIVE = [f"{SECRET}/eyes", rf"{SECRET}\eyes", f"photos/../{SECRET}/eyes"]
SPACED = [f"/home/ada/My Photos/{SECRET} & co/eyes", rf"C:\Users\Ada {SECRET}\eyes"]
KEPT = [
    *("https://huggingface.co/acme/birds", "s3://bucket/birds", "hf-hub:acme/birds"),
    *("sklearn:digits", "glyphs:thai", "1/2", "0.5/0.9", "n/a", "eyes", "an eye and/or two", ""),
    *("rate 1/3", "km / h", "14.05.2024", "two\u00a0eyes", "/eyes", "eyes/", "eyes\\", "\\eyes"),
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "fruit"


def publish(folder: Path) -> tuple[dict[str, bytes], list[str]]:
    """What a push would send, and what was cut."""
    before = contents(folder)
    config, changed, cut = hide_paths(folder, verify_adapter(folder))
    assert verify_adapter(folder) == config
    assert check_card(folder).problems == ()
    sent = contents(folder)
    assert {name for name in sent if sent[name] != before[name]} <= set(changed) - {TENSORS}
    assert bool(changed) == bool(cut)
    return sent, cut


@pytest.mark.parametrize("path", [*PATHS, *RELATIVE, *SPACED])
@pytest.mark.parametrize("name", ["data", "note", "init_weights"])
def test_a_setting_that_is_a_path_is_cut(path: str, name: str, folder: Path) -> None:
    training = {name: path, "epochs": 3}
    sent, cut = publish(make_sample(training=training).save(folder))
    assert cut
    assert json.loads(sent[CONFIG])["training"][name].removeprefix("file:") == "eyes"
    assert SECRET.encode() not in b"".join(sent.values())
    assert b"eyes |" in sent[CARD]


@pytest.mark.parametrize("path", [f"{SECRET} and co/eyes", f"/{SECRET}/3 | 4 <5>/eyes"])
def test_a_place_is_cut_whatever_it_looks_like(path: str, folder: Path) -> None:
    sent, _ = publish(make_sample(training={"val_data": path}).save(folder))
    assert json.loads(sent[CONFIG])["training"] == {"val_data": "eyes"}
    assert SECRET.encode() not in b"".join(sent.values())


@pytest.mark.parametrize("value", KEPT)
def test_a_setting_that_is_no_path_stays(value: str, folder: Path) -> None:
    sent, cut = publish(make_sample(training={"note": value}).save(folder))
    assert cut == []
    assert json.loads(sent[CONFIG])["training"] == {"note": value}


@pytest.mark.parametrize("kind", ["file", "local-dir"])
@pytest.mark.parametrize(
    "path", ["/eyes/../secret-client/eyes", *PATHS[3:10], *PATHS[13:20], *RELATIVE, *SPACED]
)
def test_a_backbone_is_published_by_its_last_name(kind: str, path: str, folder: Path) -> None:
    backbone = replace(SAMPLE_CONFIG.backbone, source=f"{kind}:{path}")
    adapter = make_sample(backbone=backbone, training={"guide": f"{kind}:{path}"})
    sent, _ = publish(adapter.save(folder))
    found = json.loads(sent[CONFIG])
    assert found["backbone"]["source"] == found["training"]["guide"] == f"{kind}:eyes"
    assert SECRET.encode() not in b"".join(sent.values())


@pytest.mark.parametrize("source", ["timm", "demo", "seed:1", "hf-hub:acme/net", "memory"])
def test_other_backbones_stay(source: str, folder: Path) -> None:
    backbone = replace(SAMPLE_CONFIG.backbone, source=source)
    assert publish(make_sample(backbone=backbone).save(folder))[1] == []


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    "text", ["see {}", "({}),", "from={};", "a:{} b", "[eyes]({})", "'{}'", '"{}"', "`{}`", "<{}>"]
)
def test_a_path_in_a_text_is_cut(path: str, text: str, folder: Path) -> None:
    folder = make_sample(training={"note": f"x {text.format(path)} y"}).save(folder)
    card = folder / CARD
    card.write_text(f"{card.read_text('utf-8')}\n{text.format(path)}\n", "utf-8")
    sent, cut = publish(folder)
    assert cut
    assert SECRET.encode() not in sent[CONFIG] + sent[CARD]
    assert "eyes" in json.loads(sent[CONFIG])["training"]["note"]


@pytest.mark.parametrize(
    ("text", "cut"),
    [
        ("A path /home/ada/My Photos/eyes in prose.", "A path eyes in prose."),
        ('"/home/ada/my own photos/eyes" and so', '"eyes" and so'),
        ("`C:\\Users\\Ada L\\the eyes`", "`the eyes`"),
        ("GET https://hf.co/acme/a or file:///srv/eyes", "GET https://hf.co/acme/a or eyes"),
        ("(see /srv/a/eyes/, or ~/eyes.) [x](/a/eyes)!", "(see eyes, or eyes.) [x](eyes)!"),
        ("see <https://hf.co/acme/eyes>, [x](../a/eyes.png)", "see <https://hf.co/acme/eyes>, [x]"
         "(eyes.png)"),
        ("acme/eyes, and/or km/h on 1/2/2024 at 3 / 4", None),
        ("\\*not\\* bold, a\\_b, </b>, /tasks, ~, .., a~b, ...", None),
        ("../.., /a/.., ./", None),
        ("/srv/eyes (old)/a b/eyes (new) is", "eyes (new) is"),
        ("{\"a\": \"/srv/a b/eyes\", \"b\": \"C:\\\\x\\\\eyes\", \"c\": \"\\/srv\\/eyes\"}",
         '{"a": "eyes", "b": "eyes", "c": "eyes"}'),
    ],
)  # fmt: skip
def test_prose_keeps_what_is_no_path(text: str, cut: str | None) -> None:
    found: dict[str, str] = {}
    assert cut_paths(text, found) == (text if cut is None else cut)
    assert bool(found) == (cut is not None)
    assert cut_paths(cut or text, {}) == (cut or text)


def test_names_of_settings_and_figures_are_cut_and_kept_apart(folder: Path) -> None:
    adapter = make_sample(
        metrics={"accuracy": 0.5, f"accuracy on /{SECRET}/eyes": 0.5, "accuracy on eyes": 0.25},
        training={f"/{SECRET}/eyes": 1, f"~/{SECRET}/eyes": 2, "eyes": 3},
    )
    sent, _ = publish(adapter.save(folder))
    found = json.loads(sent[CONFIG])
    assert found["training"] == {"eyes": 1, "eyes (2)": 2, "eyes (3)": 3}
    assert found["metrics"] == {
        **{"accuracy": 0.5, "accuracy on eyes": 0.5, "accuracy on eyes (2)": 0.25}
    }
    assert SECRET.encode() not in sent[CONFIG] + sent[CARD]


def test_a_log_is_cut_and_its_digest_renewed(folder: Path) -> None:
    log = json.dumps({"epoch": 1, "checkpoint": f"/home/{SECRET}/eyes"}).encode() + b"\n"
    sent, cut = publish(make_sample().save(folder, attachments={"training.jsonl": log}))
    assert cut == [f"/home/{SECRET}/eyes"]
    assert json.loads(sent["training.jsonl"]) == {"epoch": 1, "checkpoint": "eyes"}


def test_bytes_that_are_no_text_stay(folder: Path) -> None:
    card = make_sample().save(folder) / CARD
    card.write_bytes(card.read_bytes() + b"\xff\xfe /home/ada/eyes \xc3\r\n")
    assert publish(folder)[0][CARD].endswith(b"\xff\xfe eyes \xc3\r\n")


def test_a_repository_in_the_front_matter_is_no_path(folder: Path) -> None:
    folder = make_sample(training={"data": "acme/eyes", "val": "acme/eyes"}).save(folder)
    card = folder / CARD
    edited = card.read_text("utf-8").replace("tags:", 'datasets:\n- "acme/eyes"\ntags:')
    card.write_text(edited + "https://hf.co/acme/eyes\n", "utf-8")
    sent = publish(folder)[0][CARD].decode()
    assert '- "acme/eyes"\n' in sent
    assert "| val | eyes |" in sent
    assert "https://hf.co/acme/eyes" in sent


PIECES = [
    *"/\\ab .~$%:\n<>`\"'1{}(),=@*_[]-\u2215",
    *("%2F", "[x](", "https://x.co", "http://", "file:", "C:", "src="),
]


@settings(max_examples=500, deadline=None)
@given(st.lists(st.sampled_from(PIECES), max_size=40).map("".join))
def test_any_text_is_cut_once_and_for_all(text: str) -> None:
    found: dict[str, str] = {}
    cut = cut_paths(text, found)
    assert len(cut) <= len(text) + len("unnamed") * len(found)
    assert (cut == text) == (not found)
    assert cut_paths(cut, {}) == cut


# Where a card names a place.
AROUND = [
    *("{}", "see {}.", "({}),", "**{}**", "`{}`", '"{}"', "| {} |", "a,{};b", "x={}", "k: {}\n"),
    *("[l]({})", "![l]({})", "[l](<{}>)", "[l]: {}", "<{}>", '<img src="{}">', "<a href='{}'>"),
    *("-I {}", "[a](https://hf.co/b)({})", "[![b](https://hf.co/b)]({})", "https://hf.co {}"),
]
# What a path or an address of this machine, or of one beside it, begins with.
BEGINNINGS = [
    *("", "/", "//", "./", "../", "~/", "~ada/", "$HOME/", "${D}/", "%D%\\", "C:/", "C:\\", "C:"),
    *("\\\\", "\\", "-I/", "@", "x:", "a@srv:", "file:", "file:///", "FILE://", "git+file://"),
    *("smb://", "nfs://h/", "afp:/", "ssh://", "sftp://a@h/", "vscode://file/", "data:", "http:"),
    *("http://localhost/", "http://[::1]/", "https://10.0.0.5/", "https://nas/", "//hf.co/"),
    *("https://nas.local/", "https://localhost:80/", "https://u:p@hf.co/", "https://hf.co/?x=/"),
]
SEPARATORS = ["/", "\\", "//", "%2F", "%5c", "\u2215", "\uff0f"]
NAMES = st.lists(st.text(st.sampled_from("abzé训0-_.+@&#~"), min_size=1, max_size=5), max_size=2)


@settings(max_examples=500, deadline=None)
@given(*map(st.sampled_from, (AROUND, BEGINNINGS, SEPARATORS)), NAMES, NAMES)
def test_one_rule_cuts_card_and_settings(
    around: str, beginning: str, separator: str, before: list[str], after: list[str]
) -> None:
    names = [*before, SECRET, *after, "photos", "eyes"]
    text = around.format(beginning + separator.join(names))
    assert SECRET not in cut_paths(text, {})
    assert SECRET not in cut_setting("note", text, {})


PUBLIC = [
    *("https://hf.co", "https://x.org/~ada/a//b", "http://x.com:80/a/b.html?x=1&y=a/b#c/d"),
    *("https://en.wikipedia.org/wiki/Bird_(animal)", "s3://b/a/c", "hf://a/b/c", "eyes.png"),
    *("hf-hub:acme/net@v1", "1/2/2024", "and/or"),
]


@pytest.mark.parametrize("around", AROUND)
@pytest.mark.parametrize("public", PUBLIC)
def test_a_card_links_to_public_pages_and_its_own_files(around: str, public: str) -> None:
    text = around.format(public)
    assert cut_paths(text, {}) == text
    assert cut_paths(f"{text} {public}", {}) == f"{text} {public}"


@pytest.mark.parametrize(
    ("text", "cut"),
    [
        ("acme/birds, acme/birds@v1 or cat/dog", None),
        (f"[l]({SECRET}/photos) of {SECRET}/1.jpg", "[l](photos) of 1.jpg"),
        (f'<img src="{SECRET} and co/1.jpg"> [l](<my {SECRET}/a>)', '<img src="1.jpg"> [l](<a>)'),
        ("home/a/x y, [l](./eyes.png)", "x y, [l](eyes.png)"),
        ("smb://host/share and vscode://file/home/a/x", "share and x"),
    ],
)  # fmt: skip
def test_two_names_stay_in_prose_and_are_a_place_in_a_link(text: str, cut: str | None) -> None:
    assert cut_paths(text, {}) == (cut or text)


def test_labels_stay_in_the_card(folder: Path) -> None:
    sent, cut = publish(make_sample(labels=("ape/monkey/lemur", "/a/b")).save(folder))
    assert cut == []
    assert b"`ape/monkey/lemur`, `/a/b`." in sent[CARD]


def test_a_long_line_takes_no_longer_for_its_paths() -> None:
    pieces = (
        '"./',
        "/a",
        " a/",
        "'../x ",
        "file:",
        "\\a",
        "~/",
        "(",
        "a,",
        "a(",
        "https://a.",
        "[](",
    )
    for piece in (
        *pieces,
        "https://a.co/.",
        "https://a.co/(",
        "a/b@",
        "x.jpg",
        "%2",
        "%2F",
        "=a:",
        ")*",
    ):
        cut_paths(piece * 20_000, {})


def test_a_setting_that_is_not_text_stays(folder: Path) -> None:
    training: dict[str, Any] = {"data": None, "path": 3, "folder": True, "weights_dir": 0.5}
    sent, cut = publish(make_sample(training=training).save(folder))
    assert cut == []
    assert json.loads(sent[CONFIG])["training"] == training


@pytest.mark.parametrize(
    "value",
    [
        f"gatehub train {SECRET}/eyes --epochs 3",
        f"a {SECRET}/eyes folder",
        rf"path is clients\acme {SECRET}\eyes",
        f"git+file:///home/a/{SECRET}/eyes",
        f"vscode://file/home/a/{SECRET}/eyes",
        f"smb://srv/{SECRET}/eyes",
        f"sftp://a@srv/home/{SECRET}/eyes",
        f"http://localhost/home/{SECRET}/eyes",
        f"训练/home/a/{SECRET}/eyes z",
        f"home/a/{SECRET}/eyes y",
        f"scp a@srv:{SECRET}/eyes .",
        f"file%3A%2F%2F%2Fhome%2F{SECRET}%2Feyes",
        f"{SECRET}\u2215eyes",
        f"-I/home/a/{SECRET}/eyes",
        rf"C:{SECRET}\eyes",
        f'{{"path": "/home/{SECRET}/eyes"}}',
    ],
)
def test_whatever_could_be_a_path_is_cut_in_settings_and_log(value: str, folder: Path) -> None:
    log = json.dumps({"epoch": 1, "note": value, "more": [{"x": value}]}).encode() + b"\n"
    adapter = make_sample(training={"note": value})
    sent, _ = publish(adapter.save(folder, attachments={"training.jsonl": log}))
    note = json.loads(sent[CONFIG])["training"]["note"]
    record = json.loads(sent["training.jsonl"])
    assert record == {"epoch": 1, "note": note, "more": [{"x": note}]}
    assert note.startswith("eyes")
    assert SECRET.encode() not in sent[CONFIG] + sent["training.jsonl"]


def test_lines_of_a_log_that_hide_a_value_are_cut_as_text(folder: Path) -> None:
    log = f'{{"a": "/{SECRET}/eyes", "a": 1}}\nno json {SECRET}/eyes\n{{"rate": 1e5}}\n'.encode()
    sent, _ = publish(make_sample().save(folder, attachments={"training.jsonl": log}))
    assert SECRET.encode() not in sent["training.jsonl"]
    assert sent["training.jsonl"].endswith(b'\n{"rate": 1e5}\n')


def test_a_backbone_by_its_name_on_a_hub_stays(folder: Path) -> None:
    training = {"backbone": "acme/net", "license": "acme/licence"}
    assert publish(make_sample(training=training).save(folder))[1] == []


def picture(**texts: str) -> bytes:
    info = PngInfo()
    for key, text in texts.items():
        if key.startswith("z"):
            info.add_text(key, text, zip=True)
        elif key.startswith("i"):
            info.add_itxt(key, text)
        else:
            info.add_text(key, text)
    buffer = io.BytesIO()
    image = Image.new("RGB", (5, 4), (9, 8, 7))
    image.save(buffer, "PNG", pnginfo=info)
    return buffer.getvalue()


@pytest.mark.parametrize("key", ["Source", "zSource", "iSource"])
@pytest.mark.parametrize("name", ["training.png", "gates.png"])
def test_a_picture_is_published_without_what_programs_wrote_in_it(
    key: str, name: str, folder: Path
) -> None:
    make_sample().save(folder)
    (folder / name).write_bytes(picture(Title="Curve", **{key: "/home/alice/secret/photos"}))
    _, changed, cut = hide_paths(folder, SAMPLE_CONFIG)
    assert (len(cut), changed) == (1, (name, CONFIG))
    image = Image.open(folder / name)
    assert image.getpixel((0, 0)) == (9, 8, 7)
    assert image.info == {"Title": "Curve"}


@pytest.mark.parametrize(
    "data",
    [
        picture(Software="Matplotlib version3.9, https://matplotlib.org/"),
        picture(),
        b"\x89PNG\r\n\x1a\n",
        b"\x89PNG\r\n\x1a\n\xff\xff\xff\xfftEXt",
        b"no picture",
    ],
)
def test_a_picture_that_tells_nothing_stays(data: bytes, folder: Path) -> None:
    make_sample().save(folder)
    (folder / "training.png").write_bytes(data)
    assert hide_paths(folder, SAMPLE_CONFIG) == (SAMPLE_CONFIG, (), [])
    assert (folder / "training.png").read_bytes() == data
