"""What a push does not publish: where on the machine that made an adapter something lies.

A backbone from a folder is remembered by its path, and so are the images; settings and a card may
hold any other. On a hub these tell strangers about a machine and its owner's clients, and help
nobody. So whatever could be a path is cut to its last name: rather one too many than one too few.
One rule says what could be one (`_tells`). In settings and log it cuts a line, in the card a word.
The digest still binds the adapter to the backbone's weights, wherever the one who pulls it has
them. Labels stay, since they are the adapter's answers.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from gatehub.adapter.card import last_name, write_cell
from gatehub.adapter.config import AdapterConfig
from gatehub.adapter.folder import ADAPTER_FILES, CARD_FILE, CONFIG_FILE

V = TypeVar("V")

_LOG_FILE = "training.jsonl"
# Parts of a PNG in which programs and cameras write: of the first kind the text can be read here.
_TEXTS = (b"tEXt", b"zTXt", b"iTXt", b"eXIf")
_SIGNATURE = b"\x89PNG\r\n\x1a\n"

# Settings whose values are places by their meaning.
_PLACES = re.compile(r"data|dir|file|folder|path|root|source|weights", re.IGNORECASE)
# Settings that name a repository or a licence.
_NAMED = re.compile(r"backbone|base_model|repo|licen[cs]e", re.IGNORECASE)
_ORG_NAME = re.compile(r"\w[\w.-]*/\w[\w.-]*")
_KINDS = re.compile(r"(file|local-dir):(?!//)", re.IGNORECASE)

# What stands around words, and where a word ends: before one of these, or before stops and one.
_AROUND = r"""\s"'`<>|()\[\]{},;=*"""
_BEGIN = rf"(?<![^{_AROUND}])"
_END = rf"(?=[.:!?]{{0,3}}(?:[{_AROUND}]|$))"
# An address goes on through brackets that are closed, and not where a query holds a path itself.
_ADDRESS = r"""(?: \([^\s"'`<>|(){}\[\]\\]*\)
    | (?!=(?:[/~]|%2F|file:|[a-z]:[/\\]))[^\s"'`<>|(){}\[\]\\] )*"""
# What holds a slash and is no path: public addresses, and figures.
_PUBLIC = rf"""https?://(?:[\w-]+\.)+(?!(?:local|localhost|localdomain|lan|home|corp|internal|intranet|
        private|arpa)\b)[a-z]{{2,}}(?::\d+)?(?:[/?#]{_ADDRESS})?{_END}
    | \b(?:s3|gs|hf)://{_ADDRESS}{_END} | \bhf-hub:[\w.-]+/[\w.-]+(?:@[\w.-]+)?{_END}
    | {_BEGIN}(?:\d[\d.]*(?:/\d[\d.]*)+|n/a|and/or|km/h){_END}"""
_ELSEWHERE = re.compile(_PUBLIC, re.VERBOSE | re.IGNORECASE)
# A separator, as URLs write it and in look-alikes, too. Between spaces it is none.
_SEPARATOR = r"(?:[\\/\u2044\u2215\u29f8\uff0f\uff3c]|%2F|%5C)"
# One name, with a separator before or behind it, says no more than the name alone.
_TELLING = re.compile(rf"[^\\/]{_SEPARATOR}+[^\\/]", re.IGNORECASE)
_TELLING_WORDS = re.compile(
    rf"\S{_SEPARATOR}+[^\s\\/]|[^\s\\/]{_SEPARATOR}+\S|\b[A-Za-z]:(?=[^\s\\/]+\\)", re.IGNORECASE
)
# Markdown's way to write a sign that would mean something.
_ESCAPE = re.compile(r"\\(?=[!-/:-@\[-`{-~])")
# The end of a sentence, or of what stands in brackets.
_TAIL = re.compile(r"([)\].,;:!?}*]*)$")

# In a text two names with a slash are a repository, or two words to choose from, but for a file.
_TWO_NAMES = r"""\w[\w.-]*/(?![\w.-]*\.(?:bmp|csv|gif|jpe?g|jsonl?|md|npy|onnx|pdf|png|pth?|py|sh|
    safetensors|tiff?|tsv|txt|webp|ya?ml|zip)(?![\w-]))\w[\w.-]*(?:@\w[\w.-]*)?"""
# What a link, a picture or a page's mark-up leads to is a place, though it has spaces.
_PLACE = r"""(?:(?<=\]\(<)|(?<=\]:[ ]<))[^<>\n]+ | (?<=\]\()[^\s()<>]+ | (?<=\]:[ ])[^\s<>]+
    | (?:(?<=\ssrc=["'])|(?<=\shref=["']))[^"'\n<>]+"""
# Where a path may begin in a text: at a drive, a share, the root, a home, here, or a variable.
_ROOT = r"""(?: file:[\\/]* | [A-Za-z]:[\\/]+ | \\*/[\\/]* | \\+(?=[A-Za-z0-9.])
    | ~[\w.-]*[\\/]+ | \.\.?[\\/]+ | \$\{?\w+\}?[\\/]+ | %\w+%[\\/]+ )"""
# Without quotation marks it ends at a space, unless what follows goes on as a path does.
_BARE = r"""[^\s"'`<>|]* (?: [ ](?![.~$%])[^\s"'`<>|\\/:\[\]]+[\\/][^\s"'`<>|]* )*"""
_PATH = re.compile(
    rf"""(?P<place> (?!{_PUBLIC}) (?:{_PLACE}) )
    | (?P<elsewhere> {_PUBLIC} | {_BEGIN}{_TWO_NAMES}{_END} )
    | (?P<path> (?<=["])  {_ROOT} [^"\n]* (?=["])
              | (?<=['])  {_ROOT} [^'\n]* (?=['])
              | (?<=[`])  {_ROOT} [^`\n]* (?=[`])
              | (?<![\w.~$%\\/])  {_ROOT} {_BARE}
              | {_BEGIN} [^{_AROUND}\\/\u2044\u2215\u29f8\uff0f\uff3c]* {_SEPARATOR} {_BARE} )""",
    re.VERBOSE | re.IGNORECASE,
)


def hide_paths(
    folder: Path, config: AdapterConfig
) -> tuple[AdapterConfig, tuple[str, ...], list[str]]:
    """Make a folder one that may be published, with paths cut to their last name.

    Args:
        folder: a copy of a sound adapter, which is rewritten.
        config: its config.

    Returns:
        Its config, the files that were rewritten, and what was cut.
    """
    found: dict[str, str] = {}
    published = replace(
        config,
        backbone=replace(config.backbone, source=_cut_source(config.backbone.source, found)),
        training=_cut_names(
            {name: cut_setting(name, value, found) for name, value in config.training.items()},
            found,
        ),
        metrics=_cut_names(config.metrics, found),
    )
    changed = {}
    for name in (CARD_FILE, _LOG_FILE):
        if (folder / name).is_file():
            # What is no UTF-8 stays as it is.
            before = (folder / name).read_bytes().decode("utf-8", "surrogateescape")
            if name == CARD_FILE:
                after = cut_paths(_cut_known(before, found), found, kept=config.labels)
            else:
                after = _cut_log(before, found)
            if after != before:
                changed[name] = after.encode("utf-8", "surrogateescape")
    for name in filter(_is_picture, ADAPTER_FILES):
        if (folder / name).is_file():
            picture = (folder / name).read_bytes()
            bare = _drop_texts(picture, name, found)
            if bare != picture:
                changed[name] = bare
    if not found:
        return config, (), []
    digests = {
        name: hashlib.sha256(data).hexdigest()
        for name, data in changed.items()
        if name in config.files
    }
    published = published.with_files(config.tensors, {**config.files, **digests})
    changed[CONFIG_FILE] = published.to_json()
    for name, data in changed.items():
        (folder / name).write_bytes(data)
    return published, tuple(changed), sorted(found)


def cut_paths(text: str, found: dict[str, str], *, kept: Collection[str] = ()) -> str:
    """Cut every path in a text to its last name.

    What is judged is a word, and what a link or a picture leads to. Words with spaces are one path
    where they are in quotation marks or begin at a root. Other than in a setting, two names with a
    slash between them stay (`acme/birds`, `cat/dog`), unless a link leads there.

    Args:
        text: prose, a table, code, or lines of JSON.
        found: what was cut is added, with what stands there instead.
        kept: what stays, whatever it looks like.
    """

    def cut(match: re.Match[str]) -> str:
        path, tail = _TAIL.split(match["place"] or match["path"] or "", maxsplit=1)[:2]
        if path in kept or path + tail in kept or not _tells(_ESCAPE.sub("", path)):
            return match[0]
        return _shorten(path, found) + tail

    while (after := _PATH.sub(cut, text)) != text:  # what is left may make up another
        text = after
    return text


def _tells(text: str) -> bool:
    """Whether something in a text could be a path: the one rule for settings, log and card."""
    return _TELLING_WORDS.search(_ELSEWHERE.sub("", text)) is not None


def _cut_source(source: str, found: dict[str, str]) -> str:
    kind, colon, place = source.partition(":")
    if kind in ("file", "local-dir"):
        return f"{kind}{colon}{_shorten(place, found)}" if _TELLING.search(place) else source
    return cut_paths(source, found)


def cut_setting(name: str, value: V, found: dict[str, str]) -> V | str:
    """Cut a setting to its last name, unless it provably holds no path."""
    if not isinstance(value, str) or (_NAMED.fullmatch(name) and _ORG_NAME.fullmatch(value)):
        return value
    if kind := _KINDS.match(value):
        rest = value[kind.end() :]
        return kind[0] + _shorten(rest, found) if _TELLING.search(rest) else value
    if _PLACES.search(name) and _TELLING.search(value) and not _ELSEWHERE.fullmatch(value):
        return _shorten(value, found)
    return "\n".join(_cut_line(line, found) for line in value.split("\n"))


def _cut_line(line: str, found: dict[str, str]) -> str:
    """Cut a line of a setting: a path may begin with any word of it, since names have spaces."""
    if not _tells(line):
        return line
    if _PATH.fullmatch(line) and line[-1:] in "\\/":
        return _shorten(line, found)
    names = [name for name in re.split(_SEPARATOR, line, flags=re.IGNORECASE) if name.strip()]
    while len(names) > 1 and re.match(r"[\s\"'`)>\]},;:!?]", names[-1]):  # what follows a path
        names[-2:] = [f"{names[-2]}{names[-1]}"]
    short = re.sub(r"^[A-Za-z]:", "", names[-1]) if names else ""
    short = short if short.strip(" .") else "unnamed"
    if short != line:
        found[line] = short
    return short


def _cut_log(text: str, found: dict[str, str]) -> str:
    """Cut the values of a log, line by line; a line that is no JSON is cut as a setting is."""
    return "\n".join(_cut_record(line, found) for line in text.split("\n"))


def _cut_record(line: str, found: dict[str, str]) -> str:
    try:
        before = json.loads(line, object_pairs_hook=_read_object)
        after = _cut_value("", before, found)
        return line if after == before else json.dumps(after)
    except (ValueError, RecursionError):
        return cut_setting("", line, found)


def _is_picture(name: str) -> bool:
    return name.endswith(".png")


def _drop_texts(picture: bytes, name: str, found: dict[str, str]) -> bytes:
    """Leave out what a PNG says beside its pixels, unless it provably holds no path."""
    if not picture.startswith(_SIGNATURE):
        return picture
    kept, at = [_SIGNATURE], len(_SIGNATURE)
    while at < len(picture):
        end = at + 12 + int.from_bytes(picture[at : at + 4], "big")
        kind, data = picture[at + 4 : at + 8], picture[at + 8 : end - 4]
        text = data.decode("latin-1").replace("\0", "\n")
        if kind not in _TEXTS or (kind == b"tEXt" and cut_setting("", text, {}) == text):
            kept.append(picture[at:end])
        else:
            found[f"a {kind.decode()} of {name}"] = "nothing"
        at = end
    return b"".join(kept)


def _read_object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(found := dict(pairs)) < len(pairs):
        raise ValueError("a key stands twice")  # one of them would be hidden from us
    return found


def _cut_value(name: str, value: Any, found: dict[str, str]) -> Any:
    if isinstance(value, dict):
        cut = {key: _cut_value(key, item, found) for key, item in value.items()}
        return _cut_names(cut, found)
    if isinstance(value, list):
        return [_cut_value(name, item, found) for item in value]
    return cut_setting(name, value, found)


def _cut_names(settings: Mapping[str, V], found: dict[str, str]) -> dict[str, V]:
    """Cut the names of settings or figures, and keep them apart."""
    names: dict[str, V] = {}
    for name, value in settings.items():
        short, count = cut_paths(name, found), 2
        while short in names:
            short, count = f"{cut_paths(name, found)} ({count})", count + 1
        names[short] = value
    return names


def _cut_known(text: str, found: Mapping[str, str]) -> str:
    """Cut what was cut in the config, wherever it stands in the card: there it may have spaces."""
    # Two names with a slash are a path in the settings, and a repository in the front matter.
    start = text.find("\n---\n") if text.startswith("---\n") else 0
    head, body = text[:start], text[start:]
    for path in sorted(found, key=len, reverse=True):
        known = "|".join({re.escape(path), re.escape(write_cell(path))})
        pattern = re.compile(rf"(?<![\w./\\~-])(?:{known})(?![\w\\/])")
        short = found[path]  # a last name has no backslash, which would stand for a group
        body = pattern.sub(short, body)
        head = pattern.sub(short, head) if _begins_as_path(path) else head
    return head + body


def _begins_as_path(text: str) -> bool:
    match = _PATH.match(text)
    return match is not None and match["path"] is not None


def _shorten(path: str, found: dict[str, str]) -> str:
    short = last_name(re.sub(_SEPARATOR, "/", path, flags=re.IGNORECASE)) or "unnamed"
    if short != path:
        found[path] = short
    return short
