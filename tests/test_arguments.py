"""What public functions say to arguments of another type: one sentence each, and a hint."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import gatehub
import gatehub.export
import gatehub.hub
from gatehub import Adapter, Backbone, Engine, GatehubError, SiteRule
from gatehub._arguments import check_fields, checked
from gatehub.errors import BackboneError, GateError, HubError
from tests.tiny import make_backbone, random_images

# What users are given and never make.
RESULTS = {
    *("Hub", "ListedAdapter", "ListedRevision", "Pulled", "PushPlan", "PushResult", "Query"),
    *("ExportReport", "FileState"),
}
NOTHING = inspect.Parameter.empty
WRONG = (None, 5, b"x", "\0", "\ud800", object(), True, [5], {5: 5}, float("nan"), int)


def find_callables() -> dict[str, Callable[..., Any]]:
    """Every public function, class and method that takes arguments, by name."""
    found: dict[str, Callable[..., Any]] = {}
    for module in (gatehub, gatehub.hub, gatehub.export):
        for name in module.__all__:
            value = getattr(module, name)
            if inspect.isfunction(value):
                found[name] = value
            elif inspect.isclass(value) and name not in RESULTS and value is not GatehubError:
                found |= {name: value, **find_methods(value)}
    return found


def find_methods(cls: type) -> dict[str, Callable[..., Any]]:
    """A class's own public methods, but for those in the place of torch's."""
    own = [name for name in vars(cls) if not name.startswith("_") and not hasattr(nn.Module, name)]
    methods = {name: getattr(cls, name) for name in own}
    return {f"{cls.__name__}.{n}": m for n, m in methods.items() if takes_arguments(m)}


def takes_arguments(method: object) -> bool:
    if not inspect.isroutine(method):  # a property
        return False
    return bool(inspect.signature(method).parameters.keys() - {"self"})


CALLABLES = find_callables()


@pytest.fixture(scope="module")
def calls(
    tiny_backbone: Backbone, tiny_adapter: Adapter, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Mapping[str, tuple[object | None, dict[str, Any]]]]:
    """For each callable, the object that it is called on and arguments that it takes."""
    place = tmp_path_factory.mktemp("arguments")
    folder, hub, image = tiny_adapter.save(place / "birds"), place / "hub", place / "image.png"
    Image.new("RGB", (40, 40)).save(image)
    gatehub.push(folder, "acme/birds", hub=hub)
    engine = Engine(tiny_backbone)
    engine.load("birds", tiny_adapter)
    model = gatehub.attach_gates(tiny_backbone, labels=["crow", "jay"])
    inner, images, name = make_backbone().model, random_images(), "acme/birds"
    prepared = tiny_backbone.preprocessing
    rule = SiteRule(kernel=lambda module: module.weight)
    mixed = {"tasks": ["birds", "birds"], "images": images}
    many = {"tasks": ["birds"], "images": images}
    one = {"task": "birds", "images": images}
    both = {"backbone": tiny_backbone, "adapter": tiny_adapter}
    config, tensors = tiny_adapter.config, tiny_adapter.tensors
    on_engine = {
        **{"load": {"task": "birds", "adapter": folder}, "run": one, "predict": one},
        **{"register": {"task": "later", "adapter": folder}, "prefetch": {"tasks": "birds"}},
        **{"run_mixed": mixed, "predict_mixed": mixed, "run_all": many, "predict_all": many},
    }
    for method in ("unload", "task", "loaded", "stem", "pin", "unpin", "evict"):
        on_engine[method] = {"task": "birds"}
    on_adapter = {
        "save": {"folder": place / "copy"},
        "as_stored": {"dtype": "float16"},
        "with_probe": {"backbone": tiny_backbone},
        "with_metrics": {"metrics": {}},
        "with_thresholds": {"thresholds": [0.5] * len(tiny_adapter.labels)},
    }
    on_preprocessing = {
        "open": {"source": image},
        "transform": {},
        "resized": {"width": 40, "height": 40},
        "with_input_size": {"side": 40},
    }
    hub_calls: dict[str, dict[str, Any]] = {
        **{"push": {"folder": folder, "repo": name}, "plan_push": {"folder": folder, "repo": name}},
        **{"pull": {"name": name}, "pull_adapter": {"name": name}, "open_hub": {}},
        **{"search": {}, "list_adapters": {}, "list_revisions": {"repo": name}},
    }
    plain: dict[str, dict[str, Any]] = {
        "Adapter": {"config": config, "tensors": tensors},
        "Adapter.from_model": {"model": model, "task": "birds"},
        "Adapter.load": {"folder": folder},
        "Backbone": {"model": inner},
        "Engine": {"backbone": tiny_backbone},
        "ImageRules": {},
        "Preprocessing": {field.name: getattr(prepared, field.name) for field in fields(prepared)},
        "Preprocessing.from_model": {"model": inner},
        "SiteRule": {"kernel": rule.kernel},
        "attach_gates": {"backbone": tiny_backbone, "labels": ["crow", "jay"]},
        "export_onnx": {**both, "path": place / "no folder" / "birds.onnx"},
        "fold": both,
        "load_backbone": {"name": "test_resnet", "pretrained": False},
        "register_site": {"layer": type("New", (nn.Module,), {}), "rule": rule},
        "verify_onnx": {"path": place / "no.onnx"},
        **{name: {**given, "hub": hub} for name, given in hub_calls.items()},
    }
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("GATEHUB_HUB", str(hub))
        patched.setenv("GATEHUB_CACHE", str(place / "cache"))
        yield {
            **{name: (None, given) for name, given in plain.items()},
            **{f"Engine.{name}": (engine, given) for name, given in on_engine.items()},
            **{f"Adapter.{name}": (tiny_adapter, given) for name, given in on_adapter.items()},
            **{
                f"Preprocessing.{name}": (prepared, given)
                for name, given in on_preprocessing.items()
            },
        }


def test_every_public_callable_is_tried(calls: Mapping[str, object]) -> None:
    assert calls.keys() == CALLABLES.keys()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", CALLABLES)
def test_a_public_callable_answers_any_argument_with_a_sentence(
    name: str, calls: Mapping[str, tuple[object | None, dict[str, Any]]]
) -> None:
    owner, given = calls[name]
    function = CALLABLES[name] if owner is None else getattr(owner, name.partition(".")[2])
    for parameter in inspect.signature(function).parameters.values():
        optional = parameter.default is None or "None" in str(parameter.annotation)
        several = parameter.kind is inspect.Parameter.VAR_POSITIONAL
        for wrong in WRONG:
            where = f"{name}({parameter.name}={wrong!r})"
            error = None
            try:
                if several:
                    function(wrong)
                else:
                    function(**{**given, parameter.name: wrong})
            except Exception as raised:
                error = raised
            if error is None:  # some of them are what some parameters take
                assert type(wrong) is not object, f"{where} was taken"
                assert wrong is not None or optional, f"{where} was taken"
            else:
                assert isinstance(error, GatehubError), f"{where} ended in {error!r}"
                assert error.message.endswith("."), f"{where}: {error}"
                assert error.hint or isinstance(wrong, str | int | float), f"{where}: {error}"


@checked(HubError)
def take(
    folder: str | Path = "here",
    labels: Sequence[str] = (),
    figures: Mapping[str, float] | None = None,
    size: tuple[int, int] = (1, 2),
    kind: type[nn.Module] = nn.Linear,
    report: Callable[[str], None] | None = None,
    *rest: str,
) -> str:
    """Take what public functions take."""
    return "taken"


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"folder": None}, "take() got None as folder; expected str or Path."),
        ({"folder": 5}, "take() got 5 (int) as folder; expected str or Path."),
        ({"folder": 10**5000}, "take() got a value of type int as folder; expected str or Path."),
        (
            {"folder": "a\0b"},
            "take() got 'a\\x00b' (str) as folder, which is neither a path nor a name.",
        ),
        ({"folder": Path("\ud800")}, "take() got '\\ud800' (str) as folder, which is neither a"),
        ({"labels": "abc"}, "take() got 'abc' (str) as labels; expected Sequence[str]."),
        ({"labels": ["a", 5]}, "take() got 5 (int) as labels[1]; expected str."),
        ({"labels": {"a", "b"}}, "take() got a value of type set as labels; expected Sequence"),
        ({"labels": np.array(5)}, "take() got a value of type ndarray as labels; expected"),
        ({"figures": {"a": "x"}}, "take() got 'x' (str) as figures['a']; expected float."),
        ({"figures": {"a": True}}, "take() got True (bool) as figures['a']; expected float."),
        ({"figures": {5: 1.0}}, "take() got 5 (int) as figures (a key); expected str."),
        ({"figures": 5}, "take() got 5 (int) as figures; expected Mapping[str, float] or None."),
        ({"size": (1, 2, 3)}, "take() got a value of type tuple as size; expected tuple[int, int]"),
        ({"size": (1, 2.5)}, "take() got 2.5 (float) as size[1]; expected int."),
        ({"kind": int}, "take() got a value of type type as kind; expected type[Module]."),
        ({"report": 5}, "take() got 5 (int) as report; expected a function or None."),
    ],
)
def test_the_sentence_names_what_was_given_and_what_was_expected(
    arguments: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(HubError) as refused:
        take(**arguments)
    assert refused.value.message.startswith(sentence)
    assert refused.value.hint in ("Check the path.", "help(take) says what it takes.")


def test_each_of_several_arguments_is_checked() -> None:
    with pytest.raises(HubError, match=r"got 5 \(int\) as rest\[1\]; expected str\."):
        take("x", (), None, (1, 2), nn.Linear, None, "x", 5)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "arguments",
    [
        {"folder": Path("x")},
        {"labels": np.array(["a", "b"])},
        {"labels": ["a"]},
        {"figures": {"a": np.float32(1), "b": 1, "c": np.int64(2)}},
        {"size": (np.int64(1), 2)},
        {"kind": nn.Linear, "report": print},
    ],
)
def test_what_works_in_the_place_of_a_type_is_taken(arguments: dict[str, Any]) -> None:
    assert take(**arguments) == "taken"


def test_a_missing_argument_is_pythons_own_error() -> None:
    @checked(HubError)
    def need(folder: str) -> None: ...

    with pytest.raises(TypeError, match="missing 1 required positional argument: 'folder'"):
        need()  # type: ignore[call-arg]


def test_fields_of_a_record_are_checked() -> None:
    @dataclass
    class Record:
        count: int
        name: str | None = None

    check_fields(Record(count=1), HubError)
    with pytest.raises(HubError, match=r"Record\(\) got 'x' \(str\) as count; expected int\."):
        check_fields(Record(count="x"), HubError)  # type: ignore[arg-type]


def test_a_gated_model_is_no_adapter(tiny_backbone: Backbone) -> None:
    model = gatehub.attach_gates(tiny_backbone, labels=np.array(["crow", "jay"]))  # type: ignore[arg-type]
    assert model.labels == ("crow", "jay")
    assert {type(label) for label in model.labels} == {str}
    with pytest.raises(GateError, match=r"GatedModel as adapter; expected Adapter\. Adapter"):
        gatehub.fold(tiny_backbone, model)  # type: ignore[arg-type]
    with pytest.raises(GatehubError, match=r"ResNet as model; expected GatedModel\. attach"):
        Adapter.from_model(tiny_backbone.model, task="birds")  # type: ignore[arg-type]


def test_a_path_is_a_folder_to_load_from(tmp_path: Path) -> None:
    with pytest.raises(BackboneError, match=f"'{tmp_path}' has no config.json"):
        gatehub.load_backbone(tmp_path)
    folder = Path(gatehub.__file__).parent / "demo_backbone"
    loaded, named = gatehub.load_backbone(folder), gatehub.load_backbone(f"local-dir:{folder}")
    assert loaded.identity == named.identity


@pytest.mark.filterwarnings(
    "ignore:`torch.jit:FutureWarning", "ignore:`torch.jit:DeprecationWarning"
)
def test_a_backbone_refuses_a_model_without_layers_or_values_of_its_own() -> None:
    model = make_backbone().model
    lazy = make_backbone().model
    lazy.extra = nn.LazyLinear(3)
    refusals = {
        r"ScriptModule of torch\.jit": torch.jit.trace(model, random_images()),
        r"compiled by torch\.compile.*_orig_mod": torch.compile(model),
        r"'conv1.weight' of ResNet is on the meta device": make_backbone().model.to("meta"),
        r"'extra.weight' of ResNet is not initialised": lazy,
        r"Identity has no parameters": nn.Identity(),
    }
    for sentence, given in refusals.items():
        with pytest.raises(BackboneError, match=sentence):
            Backbone(given)


def test_a_warning_points_to_who_called(adapter_folder: Path) -> None:
    (adapter_folder / "notes.txt").write_text("x")
    with pytest.warns(gatehub.errors.ExtraFilesWarning) as told:
        Adapter.load(adapter_folder)
    assert told[0].filename == __file__
