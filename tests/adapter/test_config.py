"""config.json: every field known, of its type, and within its range; written in one form."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from functools import reduce
from operator import getitem
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gatehub.adapter import AdapterConfig
from gatehub.adapter._declared import check_declared
from gatehub.adapter.files import MAX_CONFIG_BYTES
from gatehub.backbone.images import ImageRules
from gatehub.errors import (
    AdapterFormatError,
    ConfigError,
    DuplicateKeyError,
    FormatVersionError,
    TensorDtypeError,
    UnsafeNameError,
)
from gatehub.problem import ONE_LABEL, Problem
from tests.adapter.breaking import (
    Broken,
    assert_refused,
    assign,
    config,
    config_text,
    drop,
    in_turn,
    put,
)
from tests.adapter.sample import CONFIG, GOLDEN, PROBE, SAMPLE_CONFIG, TENSORS, make_sample

GOLDEN_TEXT = (GOLDEN / CONFIG).read_bytes()
WHOLE_TEXT = replace(
    AdapterConfig.from_json(GOLDEN_TEXT),
    probe=PROBE,
    problem=Problem(thresholds=(0.25, 1.0)),
    preprocessing=replace(SAMPLE_CONFIG.preprocessing, image_rules=ImageRules()),
).to_json()

SOUND = {"type": "multi-label", "thresholds": [0.5, 1]}
BROKEN_PROBLEMS = [
    Broken("a problem that is " + name, assign("problem", value=value), ConfigError, match)
    for name, value, match in (
        ("null", None, "problem is null; expected an object"),
        ("empty", {}, "problem lacks the field 'type'"),
        ("single", {**SOUND, "type": "single-label"}, "type is .*; expected 'multi-label'"),
        ("unknown", {**SOUND, "type": "detection"}, "type is .*; expected 'multi-label'"),
        ("without thresholds", {"type": "multi-label"}, "lacks the field 'thresholds'"),
        ("with more", {**SOUND, "loss": "focal"}, 'unknown fields: "loss"'),
        ("short", {**SOUND, "thresholds": [0.5]}, "2 labels, but 1 thresholds"),
        ("long", {**SOUND, "thresholds": [0.5] * 3}, "2 labels, but 3 thresholds"),
        ("high", {**SOUND, "thresholds": [0.5, 1.5]}, "label 1 is 1.5; expected a number from 0"),
        ("low", {**SOUND, "thresholds": [-0.5, 0.5]}, "label 0 is -0.5; expected a number from 0"),
        ("huge", {**SOUND, "thresholds": [0.5, 10**400]}, "is .*; expected a number"),
        ("text", {**SOUND, "thresholds": [0.5, "0.5"]}, 'is "0.5"; expected a number'),
        ("true", {**SOUND, "thresholds": [0.5, True]}, "is true; expected a number"),
        ("one number", {**SOUND, "thresholds": 0.5}, "is 0.5; expected a list"),
    )
]


@pytest.mark.parametrize("broken", BROKEN_PROBLEMS, ids=str)
def test_thresholds_are_one_number_from_0_to_1_for_each_label(
    broken: Broken, tmp_path: Path
) -> None:
    assert_refused(broken, tmp_path)


def test_a_config_without_a_problem_is_of_one_label_an_image() -> None:
    found = AdapterConfig.from_json(GOLDEN_TEXT)
    assert found.problem == ONE_LABEL
    assert b"problem" not in found.to_json()
    several = replace(found, problem=Problem(thresholds=(0.25, 1.0)))
    assert AdapterConfig.from_json(several.to_json()) == several


BROKEN_TEXTS = [
    Broken("nothing", put(CONFIG, b""), ConfigError, "is not JSON"),
    Broken("half of it", put(CONFIG, GOLDEN_TEXT[:500]), ConfigError, "is not JSON"),
    Broken("something behind it", put(CONFIG, GOLDEN_TEXT + b"{}"), ConfigError, "is not JSON"),
    Broken("zeros behind it", put(CONFIG, GOLDEN_TEXT + b"\0"), ConfigError, "is not JSON"),
    Broken("Latin-1", put(CONFIG, b'{"task": "\xe9"}'), ConfigError, "not JSON in UTF-8"),
    Broken("UTF-16", put(CONFIG, "{}".encode("utf-16")), ConfigError, "not JSON in UTF-8"),
    Broken("a byte order mark", put(CONFIG, b"\xef\xbb\xbf{}"), ConfigError, "not JSON in UTF-8"),
    Broken("a list", put(CONFIG, b"[]"), ConfigError, "a list of 0 items; expected an object"),
    Broken("null", put(CONFIG, b"null"), ConfigError, "is null; expected an object"),
    Broken(
        "deeper than it parses",
        put(CONFIG, b'{"task": ' + b"[" * 1_000_000),
        ConfigError,
        "is not JSON in UTF-8",
    ),
    Broken(
        "as deep as it parses",
        config_text('"task": "fruit"', f'"task": {"[" * 800}{"]" * 800}'),
        ConfigError,
        "task is a list of 1 items; expected a string",
    ),
    Broken(
        "a field twice",
        config_text('"task": "fruit"', '"task": "fruit", "task": "fruit"'),
        DuplicateKeyError,
        'holds the key "task" more than once',
    ),
    Broken(
        "a tensor twice",
        config_text('"bn1.bias": {', '"bn1.bias": {}, "bn1.bias": {'),
        DuplicateKeyError,
        'holds the key "bn1.bias" more than once',
    ),
    Broken(
        "a field twice behind very many",
        config_text('"epochs": 3', ", ".join(f'"{i}": 0' for i in (*range(50_000), 49_999))),
        DuplicateKeyError,
        'holds the key "49999" more than once',
    ),
    *(
        Broken(
            f"{constant} for a number",
            config_text('"accuracy": 0.75', f'"accuracy": {constant}'),
            ConfigError,
            f"holds {constant}, which is not JSON",
        )
        for constant in ("NaN", "Infinity", "-Infinity")
    ),
    *(
        Broken(
            f"1e999 for {field}",
            config_text(f'"{field}": {value}', f'"{field}": 1e999'),
            ConfigError,
            f"{field} is Infinity; expected a number",
        )
        for field, value in (("accuracy", 0.75), ("crop_pct", 0.875), ("rate", 0.5))
    ),
    Broken(
        "an integer of 5000 digits",
        config_text('"epochs": 3', f'"epochs": {"9" * 5_000}'),
        ConfigError,
        "holds a number out of range",
    ),
    Broken(
        "half a character",
        config_text('"apple"', '"\\ud83c"'),
        ConfigError,
        r'labels\[0\] is "\\ud83c"; expected a line of text',
    ),
]

WRONG_TYPES: list[tuple[tuple[str | int, ...], object, str]] = [
    (("format_version",), True, "true; expected an integer"),
    (("format_version",), 1.0, "1.0; expected an integer"),
    (("format_version",), "1", '"1"; expected an integer'),
    (("task",), None, "null; expected a string"),
    (("labels",), "apple", '"apple"; expected a list'),
    (("labels", 1), 7, "7; expected a string"),
    (("backbone",), "resnet18", '"resnet18"; expected an object'),
    (("backbone", "revision"), 1, "1; expected a string"),
    (("backbone", "tag"), None, "null; expected a string"),
    (("gates",), [], "a list of 0 items; expected an object"),
    (("gates", "start"), 3, "3; expected a string"),
    (("gates", "sites"), [], "a list of 0 items; expected an object"),
    (("gates", "sites", "conv1"), "full", '"full"; expected an object'),
    (("gates", "sites", "conv1", "shape", 0), True, "true; expected an integer"),
    (("gates", "sites", "conv1", "shape", 0), 2.0, "2.0; expected an integer"),
    (("norm",), ["stats"], "a list of 1 items; expected a string"),
    (("preprocessing", "input_size", 1), 32.0, "32.0; expected an integer"),
    (("preprocessing", "mean", 0), "0.5", '"0.5"; expected a number'),
    (("preprocessing", "crop_pct"), True, "true; expected a number"),
    (("metrics",), [], "a list of 0 items; expected an object"),
    (("metrics", "accuracy"), None, "null; expected a number"),
    (("metrics", "accuracy"), True, "true; expected a number"),
    (("metrics", "accuracy"), 10**300, "Infinity; expected a number"),
    (("training",), None, "null; expected an object"),
    (("training", "epochs"), [3], "a list of 1 items; expected a single value"),
    (("training", "epochs"), {}, "an object of 0 items; expected a single value"),
    (("tensors",), [], "a list of 0 items; expected an object"),
    (("tensors", "head.bias"), None, "null; expected an object"),
    (("tensors", "head.bias", "shape"), 2, "2; expected a list"),
    (("tensors", "head.bias", "shape", 0), "2", '"2"; expected an integer'),
    (("tensors", "head.bias", "dtype"), 32, "32; expected a string"),
    (("files",), None, "null; expected an object"),
    (("files", TENSORS), 0, "0; expected a string"),
]


def rules(**changes: object) -> dict[str, object]:
    """A sound section of image rules, but for these fields."""
    return {"version": 1, "background": [0, 0, 0], **changes}


OUT_OF_RANGE: list[tuple[tuple[str | int, ...], object, str]] = [
    (("format_version",), 0, "there is none below 1"),
    (("format_version",), -1, "there is none below 1"),
    (("labels",), [], "has 0 labels, 0 of them named and distinct"),
    (("labels",), ["apple", "apple"], "has 2 labels, 1 of them named and distinct"),
    (("labels",), ["apple", ""], "has 2 labels, 1 of them named and distinct"),
    (("labels", 0), "two\nlines", "expected a line of text"),
    (("labels", 0), "\x1b[2J", "expected a line of text"),
    (("labels", 0), "a" * 4_097, "at most 4096 characters"),
    (("backbone", "architecture"), "", "architecture is empty"),
    (("backbone", "architecture"), "resnet18\nlicense: mit", "expected a line of text"),
    (("backbone", "digest"), "0" * 63, "expected 64 hex digits"),
    (("backbone", "digest"), "A" * 64, "expected 64 hex digits"),
    (("backbone", "digest"), "\u0660" * 64, "expected 64 hex digits"),
    (("gates", "kind"), "lowrank:0", "'lowrank:0' is not a gate kind"),
    (("gates", "kind"), "", "'' is not a gate kind"),
    (("gates", "sites", "conv1", "kind"), "auto", "'auto' is not a gate kind"),
    (("gates", "sites", "conv1", "kind"), "lowrank:99999", "is not a gate kind"),
    (("gates", "sites", "conv1", "kind"), "full\n", "expected a line of text"),
    (("gates", "sites", "conv1", "shape"), [2, 3, 1], r"\[2, 3, 1\]; expected \[O, I\]"),
    (("gates", "sites", "conv1", "shape"), [2, 0], "expected up to 4 sizes from 1"),
    (("norm",), "batch", "'batch'; expected one of frozen, affine, stats"),
    (("preprocessing", "input_size"), [3, 32], "has 2 sizes, 3 means and 3 deviations; expected 3"),
    (("preprocessing", "input_size"), [3, 0, 32], "sides of 1 to 4096"),
    (("preprocessing", "input_size"), [3, 32, 10**9], "sides of 1 to 4096"),
    (("preprocessing", "mean"), [0.5], "has 3 sizes, 1 means and 3 deviations; expected 3"),
    (("preprocessing", "std"), [0.5] * 100_000, "3 means and 100000 deviations; expected 3"),
    (("preprocessing", "std"), [0.5, 0.5, 0.0], "std above 0"),
    (("preprocessing", "interpolation"), "magic", "'magic'; expected one of"),
    (("preprocessing", "crop_pct"), 1.5, r"expected a share in \(0, 1\]"),
    (("preprocessing", "crop_mode"), "", "crop is 0.875 ''; expected"),
    (("preprocessing", "crop_pct"), 1e-9, "for which a photograph would be resized to more than"),
    (("preprocessing", "std", 1), 1e-300, "leave some of the 256 levels .* infinite or equal"),
    (("preprocessing", "mean", 1), 1e300, "leave some of the 256 levels .* infinite or equal"),
    (("preprocessing", "image_rules"), None, "image_rules is null; expected an object"),
    (("preprocessing", "image_rules"), {"version": 1}, "lacks the field 'background'"),
    (("preprocessing", "image_rules"), {"background": [0, 0, 0]}, "lacks the field 'version'"),
    (
        ("preprocessing", "image_rules"),
        rules(version=0),
        "of version 0; this gatehub knows version 1",
    ),
    (("preprocessing", "image_rules"), rules(version=True), "version is true; expected an integer"),
    (("preprocessing", "image_rules"), rules(surprise=1), 'has unknown fields: "surprise"'),
    (("preprocessing", "image_rules"), rules(background=[0, 0]), "background has 2 values"),
    (
        ("preprocessing", "image_rules"),
        rules(background=[0, 0, 256]),
        "a whole number from 0 to 255",
    ),
    (("preprocessing", "image_rules"), rules(background=[0, 0.5, 0]), "0.5; expected an integer"),
    (("tensors", "head.bias", "dtype"), "F64", '"F64"; expected one of F16, BF16, F32'),
    (("tensors", "head.bias", "dtype"), "I2", '"I2"; expected one of'),
    (("tensors", "head.bias", "dtype"), "f32", '"f32"; expected one of'),
    (("tensors", "head.bias", "shape"), [-2], "shape is -2; expected up to 4 sizes from 1"),
    (("tensors", "head.bias", "shape"), [0], "shape is 0; expected"),
    (("tensors", "head.bias", "shape"), [2**63], "shape is 9223372036854775808; expected"),
    (("tensors", "head.bias", "shape"), [1] * 100_000, "shape is 1, 1, 1, 1, 1; expected"),
    (("files", TENSORS), "0" * 65, "expected 64 hex digits"),
    (("files", TENSORS), "", "expected 64 hex digits"),
    (("metrics", "two\nlines"), 1.0, 'has the name "two\\\\nlines"'),
    (("training", ""), 1, 'training has the name ""'),
    (("training", "a" * 257), 1, "at most 256 characters"),
    (("training", "note"), "two\nlines", "expected a line of text"),
]

UNSAFE_TASKS = [
    "../x", "a/b", "a\\b", "..", ".hidden", "-option", "", "a" * 97, "two words", "%2e%2e",
    "\uff46ruit", "fru\u0456t", "fruit\u200b", "fruit\u2024png", "école",
]  # fmt: skip
UNSAFE_TENSORS = [
    "../../etc/passwd", "a/b.gate", "a\\b.gate", "conv1", "", ".", "a..gate", ".a.gate", "a.gate.",
    "a b.gate", "a\0.gate", "ünï.gate", "\uff41.gate", "a." * 128 + "gate",
]  # fmt: skip
UNSAFE_FILES = [
    "../config.json", "/etc/passwd", "a/training.png", "..\\training.png", "..", ".gitattributes",
    "", "C:training.png", "training.png\0", "trainin\uff47.png", "a" * 97,
]  # fmt: skip

BROKEN_FIELDS = [
    Broken(
        "a newer format",
        in_turn(assign("format_version", value=5), assign("of the future", value=1)),
        FormatVersionError,
        "of format version 5; this gatehub reads up to 4. Upgrade gatehub",
    ),
    Broken(
        "a version with packed gates, without any",
        assign("format_version", value=2),
        ConfigError,
        "of format version 2, but its tensors are of version 1",
    ),
    Broken(
        "a packed gate in a version without them",
        assign("tensors", "conv1.gate", "dtype", value="I8"),
        ConfigError,
        "of format version 1, but its tensors are of version 2",
    ),
    *(
        Broken(
            f"{kept} values kept",
            in_turn(
                assign("format_version", value=2),
                assign("tensors", "conv1.gate", "kept", value=kept),
            ),
            ConfigError,
            f"tensors.conv1.gate.kept is {kept}; expected {expected}",
        )
        for kept, expected in ((-1, "0 to 6"), (7, "0 to 6"), (0.5, "an integer"))
    ),
    Broken(
        "a packed head",
        in_turn(assign("format_version", value=2), assign("tensors", "head.bias", "kept", value=1)),
        TensorDtypeError,
        r"declares 'head\.bias' as packed F32; expected F32",
    ),
    Broken(
        "bits that would become gigabytes",
        in_turn(
            assign("format_version", value=2),
            assign("tensors", "conv1.gate", value={"dtype": "I1", "shape": [2**16, 2**16]}),
        ),
        ConfigError,
        "declares 8,589,9.* bytes of tensors; at most 2,147,483,648 are read",
    ),
    Broken(
        "newer image rules",
        assign("preprocessing", "image_rules", value={"version": 2, "of the future": 1}),
        FormatVersionError,
        "image_rules is of version 2; this gatehub knows up to 1. Upgrade gatehub",
    ),
    *(
        Broken(
            f"no {'.'.join(map(str, path))}",
            drop(*path),
            ConfigError,
            f"lacks the field '{path[-1]}'",
        )
        for path in (
            *((field,) for field in json.loads(GOLDEN_TEXT)),
            *(("backbone", field) for field in json.loads(GOLDEN_TEXT)["backbone"]),
            *(("preprocessing", field) for field in json.loads(GOLDEN_TEXT)["preprocessing"]),
            *(("gates", field) for field in ("kind", "start", "sites")),
            *(("gates", "sites", "conv1", field) for field in ("kind", "shape")),
            *(("tensors", "conv1.gate", field) for field in ("dtype", "shape")),
        )
    ),
    *(
        Broken(
            f"an unknown field in {'.'.join(path) or 'it'}",
            assign(*path, "surprise", value=1),
            ConfigError,
            'has unknown fields: "surprise"',
        )
        for path in (
            (),
            ("backbone",),
            ("gates",),
            ("gates", "sites", "conv1"),
            ("preprocessing",),
            ("tensors", "conv1.gate"),
        )
    ),
    Broken(
        "very many unknown fields",
        config(lambda found: found.update({f"x{i}": 0 for i in range(50_000)})),
        ConfigError,
        'has unknown fields: "x0", "x1", "x10", "x100", "x1000" and 49995 more',
    ),
    *(
        Broken(
            f"{'.'.join(map(str, path))}: {match}", assign(*path, value=value), ConfigError, match
        )
        for path, value, match in (*WRONG_TYPES, *OUT_OF_RANGE)
    ),
    *(
        Broken(
            f"the task {name[:20]!a}",
            assign("task", value=name),
            UnsafeNameError,
            "not a valid task name",
        )
        for name in UNSAFE_TASKS
    ),
    *(
        Broken(
            f"the tensor {name[:20]!a}",
            assign("tensors", name, value={"dtype": "F32", "shape": [1]}),
            UnsafeNameError,
            "names a tensor .* expected dotted identifiers",
        )
        for name in UNSAFE_TENSORS
    ),
    *(
        Broken(
            f"the site {name!a}",
            assign("gates", "sites", name, value={"kind": "full", "shape": [1, 1]}),
            UnsafeNameError,
            "names a tensor .* expected dotted identifiers",
        )
        for name in ("../conv1", "a/b", "", "a\n")
    ),
    *(
        Broken(
            f"the file {name[:20]!a}",
            assign("files", name, value="0" * 64),
            UnsafeNameError,
            "names a file .* expected a plain name without a folder",
        )
        for name in UNSAFE_FILES
    ),
]


@pytest.mark.parametrize("broken", [*BROKEN_TEXTS, *BROKEN_FIELDS], ids=str)
def test_broken_config_is_refused(broken: Broken, tmp_path: Path) -> None:
    assert_refused(broken, tmp_path)


def test_error_names_the_file_and_the_place() -> None:
    data = GOLDEN_TEXT.replace(b'"shape": [2, 3]', b'"shape": [2, "3"]', 1)
    with pytest.raises(ConfigError) as caught:
        AdapterConfig.from_json(data, where="birds/config.json")
    assert caught.value.message == (
        'birds/config.json.gates.sites.conv1.shape[1] is "3"; expected an integer.'
    )


def test_config_reads_what_it_writes() -> None:
    config = AdapterConfig.from_json(GOLDEN_TEXT)
    assert config.to_json() == GOLDEN_TEXT
    assert AdapterConfig.from_json(config.to_json()) == config
    assert config.with_files(tensors={}, files={}) == SAMPLE_CONFIG


def test_image_rules_are_stored_and_read() -> None:
    assert AdapterConfig.from_json(GOLDEN_TEXT).preprocessing.image_rules is None
    ruled = ImageRules(background=(1, 2, 3))
    preprocessing = replace(SAMPLE_CONFIG.preprocessing, image_rules=ruled)
    data = make_sample(preprocessing=preprocessing).config.to_json()
    assert b'    "image_rules": {"version": 1, "background": [1, 2, 3]}\n' in data
    assert AdapterConfig.from_json(data).preprocessing == preprocessing


LABELS = {
    "one": ("apple",),
    "twenty thousand": tuple(f"label {number}" for number in range(20_000)),
    "as long as they may be": tuple(str(number) + 4_090 * "\u68a8" for number in range(3)),
    # Two ways to write one letter, and two letters that are written alike: classes of a script.
    "alike to the eye": ("\u00e9", "e\u0301", "\u00c5", "\u212b", "a\u202eb", "ab"),
}


@pytest.mark.parametrize("labels", LABELS.values(), ids=LABELS)
def test_labels_come_back_as_they_were(labels: tuple[str, ...]) -> None:
    logits = tuple(tuple(float(number) for number in range(len(labels))) for _ in range(3))
    config = replace(SAMPLE_CONFIG, labels=labels, probe=replace(PROBE, logits=logits))
    data = config.to_json()
    assert AdapterConfig.from_json(data) == config
    assert len(data) < MAX_CONFIG_BYTES


# What a stranger may put in any place of a config: long, commanding, huge, or of another kind.
HOSTILE: list[Any] = [
    *("x" * 5_000, "x" * 4_000, "\x1b[2J", "\u202e" * 300, "\ud83c", "a\nb", "", "\u00e9" * 300),
    *(10**4_000, -(10**30), 1e308, None, True, [], {}, ["x" * 4_000] * 9, {"\u202e" * 90: 1}),
]


def test_whatever_a_stranger_wrote_the_sentence_is_short_and_shows_anywhere() -> None:
    told = [(path, _read(found)) for path, found in _spoil(WHOLE_TEXT)]
    assert sum(sentence is not None for _, sentence in told) > 1_000
    for path, sentence in told:
        if sentence is not None:
            assert sentence.isprintable(), path
            assert len(sentence) < 500, (path, sentence)


def _read(found: Any) -> str | None:
    """What is said about a config, None if it is sound."""
    try:
        check_declared(AdapterConfig.from_json(json.dumps(found).encode()), "config.json")
    except AdapterFormatError as error:
        return str(error)
    return None


def _spoil(text: bytes) -> Iterator[tuple[tuple[Any, ...], Any]]:
    """Every config with something hostile in one place, or in the place of one name."""
    for path in _places(json.loads(text)):
        for value in HOSTILE:
            for as_name in (False, True):
                found = json.loads(text)
                inner = reduce(getitem, path[:-1], found)
                if not as_name:
                    inner[path[-1]] = value
                elif isinstance(inner, dict) and isinstance(value, str):
                    inner[value] = inner.pop(path[-1])
                yield path, found


def _places(value: Any, path: tuple[str | int, ...] = ()) -> list[tuple[Any, ...]]:
    """The path of each value in parsed JSON."""
    steps: Any = value.items() if isinstance(value, dict) else ()
    steps = enumerate(value) if isinstance(value, list) else steps
    return [path] * bool(path) + [
        place for step, item in steps for place in _places(item, (*path, step))
    ]


def test_each_site_and_tensor_has_one_line() -> None:
    lines = GOLDEN_TEXT.decode().splitlines()
    assert '      "conv1": {"kind": "full", "shape": [2, 3]},' in lines
    assert '    "head.bias": {"dtype": "F32", "shape": [2]}' in lines
    assert GOLDEN_TEXT.endswith(b"}\n")


def test_whole_numbers_among_the_metrics_are_stored_as_numbers() -> None:
    config = make_sample(metrics={"accuracy": 1}).config
    assert b'"accuracy": 1.0\n' in config.to_json()
    assert AdapterConfig.from_json(config.to_json()).to_json() == config.to_json()


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"labels": ()}, "has 0 labels"),
        ({"labels": ("a", "a")}, "has 2 labels, 1 of them named and distinct"),
        ({"labels": ("caf\udce9",)}, r'has the label "caf\\udce9"; expected one line of text'),
        ({"labels": ("a\nb",)}, r'has the label "a\\nb"; expected one line of text'),
        (
            {"metrics": {"accuracy": float("nan")}},
            "metric 'accuracy' nan; expected a finite number",
        ),
        ({"metrics": {"accuracy": float("inf")}}, "metric 'accuracy' inf; expected"),
        ({"metrics": {"accuracy": True}}, "metric 'accuracy' True; expected"),
        ({"metrics": {"accuracy": "0.5"}}, "metric 'accuracy' '0.5'; expected"),
        ({"metrics": {"": 0.5}}, 'has the name ""'),
        ({"metrics": {"accuracy": 10**5_000}}, "metric 'accuracy' beyond 64 bits; expected"),
        ({"metrics": {"accuracy": torch.ones(9)}}, "metric 'accuracy' tensor.*; expected"),
        ({"training": {"rate": float("nan")}}, "setting 'rate' nan; expected a line of text"),
        ({"training": {"rates": [1, 2]}}, r"setting 'rates' \[1, 2\]; expected a line of text"),
        ({"training": {"folder": Path("x")}}, "setting 'folder' .*Path"),
        ({"training": {"seed": 10**5_000}}, "setting 'seed' beyond 64 bits; expected"),
        ({"training": {"note": "a\nb"}}, r"setting 'note' 'a\\nb'; expected a line of text"),
        ({"training": {"note": "x" * 5_000}}, "setting 'note' 'xxx.*…; expected a line of text"),
    ],
)
def test_config_that_could_not_be_stored_is_never_made(changes: dict[str, Any], match: str) -> None:
    with pytest.raises(ConfigError, match=match):
        make_sample(**changes)


@pytest.mark.parametrize("task", ["a", "7", "birds-2024_v1.0", "A" * 96])
def test_task_names(task: str) -> None:
    assert make_sample(task=task).config.task == task


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(min_value=-(2**70), max_value=2**70)
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(
        ["full", "frozen", "affine", "F16", "BF16", "lowrank:1", "bicubic", "0" * 64]
    ),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=6,
)


def places(value: Any) -> list[tuple[Any, Any]]:
    """Every (container, key) in parsed JSON."""
    keys: list[Any] = []
    if isinstance(value, dict):
        keys = list(value)
    elif isinstance(value, list):
        keys = list(range(len(value)))
    return [place for key in keys for place in ((value, key), *places(value[key]))]


@settings(max_examples=250, deadline=None, derandomize=True)
@given(data=st.data())
def test_other_values_anywhere_are_refused_or_read_as_they_stand(data: st.DataObject) -> None:
    value = json.loads(GOLDEN_TEXT)
    for _ in range(data.draw(st.integers(min_value=1, max_value=3))):
        container, key = data.draw(st.sampled_from(places(value)))
        if isinstance(container, dict) and data.draw(st.booleans()):
            container[data.draw(st.sampled_from([key]) | st.text(max_size=8))] = data.draw(JSON)
        elif data.draw(st.booleans()):
            container[key] = data.draw(JSON)
        else:
            del container[key]
        if not places(value):
            break
    text = json.dumps(value).encode("utf-8", "surrogatepass")
    try:
        config = AdapterConfig.from_json(text)
    except AdapterFormatError as error:
        refused = error.message
        assert refused.isprintable()
        return
    assert json.loads(config.to_json()) == value
    assert AdapterConfig.from_json(config.to_json()) == config
