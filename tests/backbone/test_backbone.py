from __future__ import annotations

import hashlib
import json
import pickle
import struct
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path

import pytest
import timm
import torch
from huggingface_hub import constants
from safetensors.torch import load_file, save, save_file
from torch import Tensor, nn

from gatehub.backbone import Backbone, BackboneIdentity, digest_tensors, load_backbone
from gatehub.backbone.classifier import is_inside, replace_classifier
from gatehub.backbone.structure import copy_structure
from gatehub.errors import BackboneError, BackboneNotFoundError, HubWarning, UnsafeWeightsError
from tests.hub_server.serve import TestHub
from tests.tiny import OneLayer, changed, make_backbone, random_images, snapshot
from tests.weights_hub import MAIN, WeightsHub, serve_weights

NET = "test_resnet"  # timm's own for tests: 0.4 million weights
GOLDEN = "f6ce613baf1f29a89958c9838d87dea7608fbd23b644c0191bf0b669e8ea256c"


def make_net(classes: int = 1000, seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return timm.create_model(NET, num_classes=classes).eval()


def save_weights(path: Path, model: nn.Module, *, without: str = "\0") -> Path:
    state = {n: t for n, t in model.state_dict().items() if not n.startswith(without)}
    save_file(state, path)
    return path


def save_folder(folder: Path, model: nn.Module) -> Path:
    timm.models.save_for_hf(
        model,
        folder,
        model_config={"num_classes": model.num_classes},
        safe_serialization=True,
    )
    return folder


def read_files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def kept(model: nn.Module) -> dict[str, Tensor]:
    return {n: t for n, t in model.state_dict().items() if not n.startswith("fc.")}


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[WeightsHub]:
    """A hub on a loopback port, which the Hub client takes for its own, with an empty cache."""
    with serve_weights() as served:
        # Where HF_ENDPOINT, HF_HOME and the like go when huggingface_hub is imported.
        template = f"{served.url}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
        monkeypatch.setattr(constants, "ENDPOINT", served.url)
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        yield served


def test_a_name_without_weights_draws_them_from_the_seed() -> None:
    first, second, other = (
        load_backbone(NET, pretrained=False, seed=seed).digest for seed in (1, 1, 2)
    )
    assert first == second != other


def test_a_seeded_backbone_says_so() -> None:
    identity = load_backbone(NET, pretrained=False, seed=7).identity
    assert (identity.architecture, identity.tag) == (NET, "")
    assert (identity.source, identity.revision) == ("seed:7", None)
    assert identity.name == NET
    assert str(identity) == f"{NET} (digest {identity.digest[:12]}…)"


@pytest.mark.parametrize(
    ("name", "message", "hint"),
    [
        ("resnet1", "timm knows no model 'resnet1'", "Did you mean resnet18 or"),
        ("mobilenetv3_small_50", "no model 'mobilenetv3_small_50'", "mobilenetv3_small_050"),
        ("qqqq", "timm knows no model 'qqqq'", "See timm.list_models"),
        ("", "timm knows no model ''", "See timm.list_models"),
        ("org/resnet18", "no model 'org/resnet18'", "resnet18"),
        ("resnet18.a9", "no weights 'a9' for resnet18", "It knows: resnet18.a1_in1k, resnet18.a2"),
        ("resnet18.", "no weights '' for resnet18", "It knows: resnet18.a1_in1k"),
        ("resnet18.a1_in1k.x", "no weights 'a1_in1k.x' for resnet18", "resnet18.a1_in1k"),
        ("resnet18*", r"no model 'resnet18\*'", "resnet18"),
    ],
)
def test_an_unknown_name_is_refused_with_suggestions(name: str, message: str, hint: str) -> None:
    for pretrained in (True, False):
        with pytest.raises(BackboneNotFoundError, match=message) as refusal:
            load_backbone(name, pretrained=pretrained)
        assert hint in str(refusal.value.hint)


def test_a_name_without_published_weights_is_refused(hub: WeightsHub) -> None:
    with pytest.raises(BackboneNotFoundError, match="no pretrained weights for 'resnet200'") as r:
        load_backbone("resnet200")
    assert "pretrained=False" in str(r.value.hint)
    assert hub.asked == []


def test_weights_that_timm_offers_only_as_a_pickle_are_refused(hub: WeightsHub) -> None:
    with pytest.raises(UnsafeWeightsError, match=r"'legacy_seresnet18.in1k' .*\.pth, a pickle"):
        load_backbone("legacy_seresnet18.in1k")
    assert hub.asked == []


@pytest.mark.parametrize("choice", [{"weights": "w.safetensors"}, {"pretrained": False}], ids=str)
@pytest.mark.parametrize("name", ["hf-hub:org/net", "local-dir:net", "demo"])
def test_a_place_brings_its_own_weights(name: str, choice: dict[str, object]) -> None:
    with pytest.raises(BackboneError, match=f"'{name}' brings its own weights"):
        load_backbone(name, **choice)


@pytest.mark.parametrize("classes", [1000, 7, 1])
def test_a_file_may_hold_any_number_of_classes(tmp_path: Path, classes: int) -> None:
    model = make_net(classes)
    backbone = load_backbone(NET, weights=save_weights(tmp_path / "net.safetensors", model))
    images = random_images(1)
    assert torch.equal(backbone(images), model(images))
    assert backbone.digest == digest_tensors(kept(model))
    assert backbone.identity.source == f"file:{tmp_path / 'net.safetensors'}"


def test_a_file_may_hold_no_classifier(tmp_path: Path) -> None:
    model = make_net()
    path = save_weights(tmp_path / "net.safetensors", model, without="fc.")
    backbone = load_backbone(NET, weights=path)
    assert backbone.digest == digest_tensors(kept(model))
    assert backbone.heads == ("fc",)


def test_the_tag_of_a_name_goes_with_a_file(tmp_path: Path) -> None:
    path = save_weights(tmp_path / "net.safetensors", make_net())
    identity = load_backbone(f"{NET}.r160_in1k", weights=str(path)).identity
    assert identity.name == f"{NET}.r160_in1k"


@pytest.mark.parametrize("suffix", ["pth", "pt", "bin", "ckpt", "pkl", "tar", "PTH"])
def test_a_pickle_is_refused_by_name_before_it_is_opened(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"net.{suffix}"
    with pytest.raises(UnsafeWeightsError, match=f"net.{suffix}' is a pickle, which can run code"):
        load_backbone(NET, weights=path)


def test_a_pickle_in_disguise_never_runs(tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> tuple[object, tuple[Path]]:
            return Path.touch, (tmp_path / "ran",)

    path = tmp_path / "net.safetensors"
    path.write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(BackboneError, match="is not a valid safetensors file"):
        load_backbone(NET, weights=path)
    assert not (tmp_path / "ran").exists()


def test_another_kind_of_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BackboneError, match=r"net.onnx' is not a .safetensors file"):
        load_backbone(NET, weights=tmp_path / "net.onnx")


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BackboneNotFoundError, match=r"There is no file '.*net.safetensors'"):
        load_backbone(NET, weights=tmp_path / "net.safetensors")


@pytest.mark.parametrize("size", [0, 7, 100, -1])
def test_a_truncated_file_is_refused(tmp_path: Path, size: int) -> None:
    path = save_weights(tmp_path / "net.safetensors", make_net())
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(BackboneError, match=r"net.safetensors' is not a valid safetensors file"):
        load_backbone(NET, weights=path)


@pytest.mark.parametrize("case", ["another", "lacks", "adds", "shape", "empty"])
def test_weights_that_do_not_fit_are_refused(tmp_path: Path, case: str) -> None:
    state = make_net().state_dict()
    match case:
        case "another":
            state = make_backbone().model.state_dict()
        case "lacks":
            del state["layer3.0.conv1.weight"]
        case "adds":
            state["layer9.weight"] = torch.zeros(1)
        case "shape":
            state["layer3.0.conv1.weight"] = state["layer3.0.conv1.weight"][:, :-1].contiguous()
        case "empty":
            state = OrderedDict()
    save_file(state, tmp_path / "net.safetensors")
    with pytest.raises(BackboneError, match=r"net.safetensors' do not fit test_resnet"):
        load_backbone(NET, weights=tmp_path / "net.safetensors")


def test_a_folder_holds_a_whole_model(tmp_path: Path) -> None:
    model = make_net(5)
    folder = save_folder(tmp_path / "net", model)
    backbone = load_backbone(f"local-dir:{folder}")
    images = random_images(1)
    assert torch.equal(backbone(images), model(images))
    assert backbone.identity.architecture == NET
    assert backbone.identity.source == f"local-dir:{folder}"
    assert backbone.identity.revision is None


def test_a_folder_brings_its_own_preprocessing(tmp_path: Path) -> None:
    folder = save_folder(tmp_path / "net", make_net(5))
    config = json.loads((folder / "config.json").read_text())
    config["pretrained_cfg"] |= {"input_size": [3, 48, 40], "mean": [0.1, 0.2, 0.3]}
    (folder / "config.json").write_text(json.dumps(config))
    preprocessing = load_backbone(f"local-dir:{folder}").preprocessing
    assert preprocessing.input_size == (3, 48, 40)
    assert preprocessing.mean == (0.1, 0.2, 0.3)


def test_a_folder_with_only_a_pickle_is_refused(tmp_path: Path) -> None:
    folder = save_folder(tmp_path / "net", make_net(5))
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    with pytest.raises(UnsafeWeightsError, match=r"net' offers .*only pytorch_model.bin, a pickle"):
        load_backbone(f"local-dir:{folder}")


def test_a_folder_without_weights_is_refused(tmp_path: Path) -> None:
    folder = save_folder(tmp_path / "net", make_net(5))
    (folder / "model.safetensors").unlink()
    with pytest.raises(UnsafeWeightsError, match=r"no weights as model.safetensors .found: none"):
        load_backbone(f"local-dir:{folder}")


@pytest.mark.parametrize("place", ["net", "net/config.json"])
def test_a_folder_without_a_config_is_refused(tmp_path: Path, place: str) -> None:
    (tmp_path / "net").mkdir()
    with pytest.raises(BackboneNotFoundError, match=f"{place}' has no config.json") as refusal:
        load_backbone(f"local-dir:{tmp_path / place}")
    # Without that, timm's own function writes the pickle that is refused.
    assert "safe_serialization=True" in str(refusal.value.hint)


def test_a_truncated_file_in_a_folder_is_refused(tmp_path: Path) -> None:
    folder = save_folder(tmp_path / "net", make_net(5))
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(BackboneError, match=r"model.safetensors' is not a valid safetensors file"):
        load_backbone(f"local-dir:{folder}")


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_a_clone_without_git_lfs_is_told_from_a_broken_one(tmp_path: Path, name: str) -> None:
    folder = save_folder(tmp_path / "net", make_net(5))
    pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"
    (folder / name).write_bytes(pointer)
    with pytest.raises(
        BackboneError, match=f"net/{name}' is a git-lfs pointer .* -C .*net lfs pull"
    ):
        load_backbone(f"local-dir:{folder}")
    (folder / "net.safetensors").write_bytes(pointer)
    with pytest.raises(BackboneError, match=r"net.safetensors' is a git-lfs pointer"):
        load_backbone(NET, weights=folder / "net.safetensors")


@pytest.mark.parametrize("text", ["", "[]", '{"architecture": "qqqq"}', "{"])
def test_a_folder_with_another_config_is_refused(tmp_path: Path, text: str) -> None:
    folder = save_folder(tmp_path / "net", make_net(5))
    (folder / "config.json").write_text(text)
    with pytest.raises(BackboneError):
        load_backbone(f"local-dir:{folder}")


def test_a_hub_repository_is_a_backbone(hub: WeightsHub, tmp_path: Path) -> None:
    model = make_net(5)
    hub.put("org/net", read_files(save_folder(tmp_path / "net", model)))
    backbone = load_backbone("hf-hub:org/net")
    images = random_images(1)
    assert torch.equal(backbone(images), model(images))
    assert backbone.identity.source == "hf-hub:org/net"
    assert backbone.identity.revision == MAIN
    assert backbone.identity.name == f"{NET}.r160_in1k"


def test_a_revision_is_the_one_asked_for(hub: WeightsHub, tmp_path: Path) -> None:
    old, new = make_net(5, seed=1), make_net(5, seed=2)
    hub.put("org/net", read_files(save_folder(tmp_path / "new", new)))
    hub.put("org/net", read_files(save_folder(tmp_path / "old", old)), revision="b" * 40)
    backbone = load_backbone(f"hf-hub:org/net@{'b' * 40}")
    assert backbone.digest == digest_tensors(kept(old))
    assert (backbone.identity.source, backbone.identity.revision) == ("hf-hub:org/net", "b" * 40)
    assert load_backbone("hf-hub:org/net").digest == digest_tensors(kept(new))


def test_config_and_weights_are_of_one_commit(hub: WeightsHub, tmp_path: Path) -> None:
    hub.put("org/net", read_files(save_folder(tmp_path / "net", make_net(5))))
    load_backbone("hf-hub:org/net")
    paths = [path for _, path in hub.asked if path.startswith("/org/net/")]
    assert paths[0] == "/org/net/resolve/main/config.json"
    assert paths[-1] == f"/org/net/resolve/{MAIN}/model.safetensors"


def test_a_moved_repository_is_followed_and_named(
    test_hub: TestHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", test_hub.url)
    test_hub.state.put("org/net", read_files(save_folder(tmp_path / "net", make_net(5))))
    commit = load_backbone("hf-hub:org/net").identity.revision
    test_hub.state.move("org/net", "org/wider")
    with pytest.warns(HubWarning, match=r"org/net is called org/wider now"):
        assert load_backbone("hf-hub:org/net").identity.revision == commit


def test_a_timm_name_comes_from_the_hub(hub: WeightsHub) -> None:
    model = make_net(1000)
    hub.put(f"timm/{NET}.r160_in1k", {"model.safetensors": save(model.state_dict())})
    for name in (NET, f"{NET}.r160_in1k"):
        backbone = load_backbone(name)
        images = random_images(1)
        assert torch.equal(backbone(images), model(images))
        assert backbone.identity.name == f"{NET}.r160_in1k"
        assert (backbone.identity.source, backbone.identity.revision) == ("timm", MAIN)


def test_what_the_hub_gave_once_is_not_fetched_again(hub: WeightsHub) -> None:
    hub.put(f"timm/{NET}.r160_in1k", {"model.safetensors": save(make_net().state_dict())})
    load_backbone(NET)
    load_backbone(NET)
    assert [method for method, path in hub.asked if path.startswith("/timm/")].count("GET") == 1


def test_a_hub_that_is_away_is_not_needed_with_a_warm_cache(
    hub: WeightsHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.put("org/net", read_files(save_folder(tmp_path / "net", make_net(5))))
    identity = load_backbone("hf-hub:org/net").identity
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.warns(HubWarning, match=r"HF_HUB_OFFLINE is set.*org/net from .*may be stale"):
        assert load_backbone("hf-hub:org/net").identity == identity
    assert load_backbone(f"hf-hub:org/net@{MAIN}").identity == identity  # a commit never is
    with pytest.raises(
        BackboneNotFoundError, match=r"config.json of org/other is not in the cache"
    ):
        load_backbone("hf-hub:org/other")


def test_a_hub_repository_with_only_a_pickle_is_refused(hub: WeightsHub, tmp_path: Path) -> None:
    files = read_files(save_folder(tmp_path / "net", make_net(5)))
    hub.put("org/net", {"config.json": files["config.json"], "pytorch_model.bin": b"\x80\x04."})
    with pytest.raises(UnsafeWeightsError, match=r"'org/net' .*only pytorch_model.bin, a pickle"):
        load_backbone("hf-hub:org/net")
    assert ("GET", f"/org/net/resolve/{MAIN}/pytorch_model.bin") not in hub.asked


def test_a_timm_repository_with_only_a_pickle_is_refused(hub: WeightsHub) -> None:
    hub.put(f"timm/{NET}.r160_in1k", {"pytorch_model.bin": b"\x80\x04."})
    with pytest.raises(UnsafeWeightsError, match=r"only pytorch_model.bin, a pickle"):
        load_backbone(NET)


def test_a_hub_repository_without_weights_is_refused(hub: WeightsHub, tmp_path: Path) -> None:
    files = read_files(save_folder(tmp_path / "net", make_net(5)))
    hub.put("org/net", {"config.json": files["config.json"]})
    with pytest.raises(UnsafeWeightsError, match=r"'org/net' offers no weights .*found: none"):
        load_backbone("hf-hub:org/net")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("org/none", "There is no repository org/none on http"),
        ("org/gated", "org/gated on http.* is gated, and you have no access to it"),
        ("org/net@v9", "org/net has no branch, tag or commit 'v9'"),
        ("org/net", "'org/net' on the Hub has no config.json, so it is not a timm model"),
        ("org/net/more", "'org/net/more' is not a repository name"),
        ("", "'' is not a repository name"),
        ("org/login", "needs a token, and none was sent|does not know the token"),
    ],
)
def test_what_the_hub_does_not_give_is_refused(hub: WeightsHub, name: str, message: str) -> None:
    hub.put("org/net", {"README.md": b""})
    hub.refusals |= {"org/gated": (403, "GatedRepo"), "org/login": (401, "")}
    with pytest.raises(BackboneNotFoundError, match=message):
        load_backbone(f"hf-hub:{name}")


def test_a_download_that_breaks_off_is_refused(
    hub: WeightsHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.put("org/net", read_files(save_folder(tmp_path / "net", make_net(5))))
    hub.cut.add("model.safetensors")
    # The client waits a second before each of its five further attempts.
    monkeypatch.setattr("huggingface_hub.file_download.time.sleep", lambda seconds: None)
    with pytest.raises(BackboneNotFoundError, match=r"Fetching model.safetensors of org/net"):
        load_backbone("hf-hub:org/net")
    hub.cut.clear()
    assert load_backbone("hf-hub:org/net").identity.revision == MAIN


def test_a_damaged_cache_is_noticed_and_fetched_again(hub: WeightsHub, tmp_path: Path) -> None:
    hub.put("org/net", read_files(save_folder(tmp_path / "net", make_net(5))))
    identity = load_backbone("hf-hub:org/net").identity
    blobs = [p for p in (tmp_path / "cache").rglob("blobs/*") if p.is_file()]
    blob = max(blobs, key=lambda path: path.stat().st_size)
    data = bytearray(blob.read_bytes())
    data[-9] ^= 1
    blob.write_bytes(data)
    assert load_backbone(f"hf-hub:org/net@{MAIN}").identity == identity


def test_an_identity_loads_from_where_it_came(hub: WeightsHub, tmp_path: Path) -> None:
    folder = save_folder(tmp_path / "net", make_net(5))
    hub.put("org/net", read_files(folder))
    hub.put(f"timm/{NET}.r160_in1k", {"model.safetensors": save(make_net().state_dict())})
    path = save_weights(tmp_path / "net.safetensors", make_net(3))
    for backbone in (
        load_backbone(NET, pretrained=False, seed=3),
        load_backbone(NET, weights=path),
        load_backbone(f"local-dir:{folder}"),
        load_backbone("hf-hub:org/net"),
        load_backbone(NET),
    ):
        assert load_backbone(backbone.identity).identity == backbone.identity


def test_an_identity_of_the_hub_keeps_its_commit(hub: WeightsHub, tmp_path: Path) -> None:
    hub.put("org/net", read_files(save_folder(tmp_path / "old", make_net(5, seed=1))))
    identity = load_backbone("hf-hub:org/net").identity
    hub.put("org/net", hub.repositories["org/net"][MAIN], revision="b" * 40)
    pinned = BackboneIdentity(
        architecture=NET,
        tag="",
        source="hf-hub:org/net",
        revision="b" * 40,
        digest=identity.digest,
    )
    assert load_backbone(pinned).identity.revision == "b" * 40


@pytest.mark.parametrize("source", ["memory", "elsewhere", "seed:x", ""])
def test_an_identity_without_a_place_is_refused(source: str) -> None:
    identity = BackboneIdentity(
        architecture=NET, tag="", source=source, revision=None, digest="0" * 64
    )
    with pytest.raises(BackboneError, match=f"has source '{source}', from which it cannot be load"):
        load_backbone(identity)


def test_a_backbone_never_trains(tiny_backbone: Backbone) -> None:
    before = snapshot(tiny_backbone)
    assert tiny_backbone.train() is tiny_backbone
    assert not any(module.training for module in tiny_backbone.modules())
    assert not any(parameter.requires_grad for parameter in tiny_backbone.parameters())
    tiny_backbone(random_images())
    assert changed(before, tiny_backbone) == set()


def test_a_model_in_training_is_stopped() -> None:
    model = make_net().train()
    backbone = Backbone(model)
    assert not any(module.training for module in model.modules())
    assert backbone.model is model


def test_a_backbone_inside_a_model_in_training_stays_in_evaluation(tiny_backbone: Backbone) -> None:
    outer = nn.ModuleList([tiny_backbone]).train()
    assert outer.training
    assert not tiny_backbone.model.training


@pytest.mark.parametrize("source", ["seed", "file", "folder"])
def test_loading_leaves_the_callers_random_numbers_alone(tmp_path: Path, source: str) -> None:
    path = save_weights(tmp_path / "net.safetensors", make_net(3))
    folder = save_folder(tmp_path / "net", make_net(5))
    before = torch.get_rng_state()
    match source:
        case "seed":
            load_backbone(NET, pretrained=False)
        case "file":
            load_backbone(NET, weights=path)
        case "folder":
            load_backbone(f"local-dir:{folder}")
    assert torch.equal(torch.get_rng_state(), before)


def small_tensors() -> dict[str, Tensor]:
    return {
        "b.weight": torch.tensor([[1.0, -2.0, 0.5], [0.0, 3.0, -0.25]]),
        "a.count": torch.tensor(7),
        "c": torch.tensor([1.5], dtype=torch.bfloat16),
    }


def test_the_digest_is_the_one_that_was_once_written() -> None:
    assert digest_tensors(small_tensors()) == GOLDEN


def test_the_digest_is_over_names_dtypes_shapes_and_bytes() -> None:
    text = (
        b"a.count int64 []\n"
        + struct.pack("<q", 7)
        + b"b.weight float32 [2, 3]\n"
        + struct.pack("<6f", 1.0, -2.0, 0.5, 0.0, 3.0, -0.25)
        + b"c bfloat16 [1]\n"
        + struct.pack("<f", 1.5)[2:]
    )
    assert digest_tensors(small_tensors()) == hashlib.sha256(text).hexdigest()


def test_the_digest_does_not_depend_on_order_or_layout() -> None:
    tensors = small_tensors()
    turned = dict(reversed(tensors.items()))
    turned["b.weight"] = tensors["b.weight"].T.contiguous().T
    assert not turned["b.weight"].is_contiguous()
    assert digest_tensors(turned) == digest_tensors(tensors)


@pytest.mark.parametrize("change", ["name", "dtype", "shape", "byte", "sign", "none", "more"])
def test_the_digest_depends_on_everything_else(change: str) -> None:
    tensors = small_tensors()
    match change:
        case "name":
            tensors["d"] = tensors.pop("c")
        case "dtype":
            tensors["c"] = tensors["c"].view(torch.float16)
        case "shape":
            tensors["b.weight"] = tensors["b.weight"].reshape(3, 2)
        case "byte":
            tensors["b.weight"].view(torch.uint8).view(-1)[5] ^= 1
        case "sign":
            tensors["b.weight"][1, 0] = -0.0
        case "none":
            del tensors["a.count"]
        case "more":
            tensors["z"] = torch.empty(0)
    assert digest_tensors(tensors) != digest_tensors(small_tensors())


def test_the_digest_does_not_depend_on_the_classifier() -> None:
    model = make_net(1000)
    digests = {Backbone(model).digest}
    for classes in (1000, 7, 0):
        torch.manual_seed(classes + 1)
        model.reset_classifier(classes)
        digests.add(Backbone(model).digest)
    assert len(digests) == 1


def test_the_digest_depends_on_every_other_tensor() -> None:
    model = OneLayer(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)), 4)
    first = Backbone(model).digest
    assert len(kept(model)) == 7
    for name, tensor in kept(model).items():
        before = tensor.clone()
        tensor.view(-1)[-1:] += 1
        assert Backbone(model).digest != first, name
        tensor.copy_(before)
    assert Backbone(model).digest == first


def test_the_digest_names_the_weights_as_they_were_loaded(tiny_backbone: Backbone) -> None:
    backbone = make_backbone()
    assert backbone.digest == tiny_backbone.digest
    backbone.double()
    assert backbone.digest == tiny_backbone.digest


@pytest.mark.parametrize(
    ("name", "heads"),
    [
        ("test_resnet", ("fc",)),
        ("test_efficientnet", ("classifier",)),
        ("test_convnext", ("head.fc",)),
        ("test_byobnet", ("head.fc",)),
        ("test_nfnet", ("head.fc",)),
        ("test_mambaout", ("head.fc",)),
        ("efficientformer_l1", ("head", "head_dist")),
    ],
)
def test_the_classifier_is_found_under_every_name(name: str, heads: tuple[str, ...]) -> None:
    backbone = load_backbone(name, pretrained=False)
    assert backbone.heads == heads
    for classes in (3, 0):
        backbone.model.reset_classifier(classes)
        assert Backbone(backbone.model).heads == heads


def test_a_model_without_a_classifier_is_refused() -> None:
    with pytest.raises(BackboneError, match="Conv2d has no classifier that can be replaced"):
        Backbone(nn.Conv2d(3, 3, 1))


def test_both_classifiers_of_a_model_are_found() -> None:
    class TwoHeads(OneLayer):
        def reset_classifier(self, classes: int) -> None:
            super().reset_classifier(classes)
            self.fc_distilled = nn.Sequential(nn.LayerNorm(4), nn.Linear(self.channels, classes))

    backbone = Backbone(TwoHeads(nn.Conv2d(3, 4, 1), 4))
    assert backbone.heads == ("fc", "fc_distilled")
    assert backbone.digest == Backbone(OneLayer(backbone.model.layer, 4)).digest


def test_a_classifier_that_is_no_module_of_its_own_is_refused() -> None:
    class BareHead(OneLayer):
        def reset_classifier(self, classes: int) -> None:
            self.matrix = nn.Parameter(torch.zeros(classes, self.channels))

    with pytest.raises(BackboneError, match="BareHead holds its classifier's tensors itself"):
        Backbone(BareHead(nn.Conv2d(3, 4, 1), 4))


def test_a_model_whose_classifier_does_nothing_is_refused() -> None:
    class NoHead(OneLayer):
        def reset_classifier(self, classes: int) -> None:
            self.fc = nn.Identity()

    with pytest.raises(BackboneError, match="NoHead has no classifier to replace"):
        Backbone(NoHead(nn.Conv2d(3, 4, 1), 4))


def test_a_replaced_classifier_has_dtype_of_the_model_and_moves_nothing_else() -> None:
    model = make_net(5).bfloat16()
    model.bn1.float()
    pointers = {name: tensor.data_ptr() for name, tensor in kept(model).items()}
    replace_classifier(model, 3)
    assert model.fc.weight.shape[0] == 3
    assert model.fc.weight.dtype == torch.bfloat16
    assert model.bn1.weight.dtype == torch.float32
    assert {name: tensor.data_ptr() for name, tensor in kept(model).items()} == pointers


def test_a_structural_copy_shares_tensors_and_no_modules() -> None:
    model = make_net(5)
    copied = copy_structure(model)
    originals = dict(model.named_modules())
    for name, module in copied.named_modules():
        assert module is not originals[name]
    theirs = model.state_dict(keep_vars=True)
    for name, tensor in copied.state_dict(keep_vars=True).items():
        assert tensor is theirs[name]


@pytest.mark.parametrize(
    ("name", "module", "inside"),
    [
        ("head", "head", True),
        ("head.fc", "head", True),
        ("header", "head", False),
        ("stem.head", "head", False),
    ],
)
def test_inside_means_below_and_not_beginning_alike(name: str, module: str, inside: bool) -> None:
    assert is_inside(name, ("neck", module)) is inside
    assert not is_inside(name, ())
