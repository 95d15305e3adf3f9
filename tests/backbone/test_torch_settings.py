"""What the host program has set in torch: set aside while gatehub computes, and given back."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from gatehub.backbone import Backbone, load_backbone
from gatehub.backbone.backbone import build_structure
from gatehub.backbone.torch_settings import pin_settings, pin_thread_settings

NET = "test_resnet"
Setting = Callable[[], AbstractContextManager[object]]


@contextmanager
def default_dtype() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)


@contextmanager
def default_device() -> Iterator[None]:
    torch.set_default_device("meta")
    try:
        yield
    finally:
        torch.set_default_device(None)


@contextmanager
def deterministic() -> Iterator[None]:
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(False)


@contextmanager
def low_precision() -> Iterator[None]:
    torch.set_float32_matmul_precision("medium")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision("highest")


THREAD: dict[str, Setting] = {
    "autocast": lambda: torch.autocast("cpu", dtype=torch.bfloat16),
    "default device": default_device,
    "device block": lambda: torch.device("meta"),
    "inference mode": torch.inference_mode,
}
PROCESS: dict[str, Setting] = {
    "default dtype": default_dtype,
    "deterministic algorithms": deterministic,
    "matmul precision": low_precision,
}
ALL = THREAD | PROCESS


def read_precision() -> str:
    """What a matrix product on the CPU goes by; before torch 2.9 there is one for all devices."""
    operator = getattr(torch.backends.mkldnn, "matmul", None)
    found = operator.fp32_precision if operator else torch.get_float32_matmul_precision()
    return "full" if found in ("none", "ieee", "highest") else str(found)


def describe() -> dict[str, object]:
    """Every setting that is pinned, as it is now."""
    return {
        "autocast": torch.is_autocast_enabled("cpu"),
        "autocast dtype": torch.get_autocast_dtype("cpu"),
        "device": torch.get_default_device(),
        "inference mode": torch.is_inference_mode_enabled(),
        "gradients": torch.is_grad_enabled(),
        "dtype": torch.get_default_dtype(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "warn only": torch.is_deterministic_algorithms_warn_only_enabled(),
        "precision": read_precision(),
    }


def compute() -> Tensor:
    """Make layers as timm does, in the default dtype and on the default device, and ask them."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Flatten(), nn.Linear(8 * 36, 4))
    with torch.no_grad():
        return model(torch.linspace(-1, 1, 2 * 3 * 64).reshape(2, 3, 8, 8))


@pytest.mark.parametrize("name", ALL)
def test_what_the_host_has_set_changes_nothing_inside(name: str) -> None:
    expected, own = compute(), describe()
    with ALL[name]():
        before = describe()
        with pin_settings():
            found, inside = compute(), describe()
        assert describe() == before
    assert inside | {"gradients": True} == own
    assert (found.dtype, found.device) == (torch.float32, torch.device("cpu"))
    assert torch.equal(found, expected)
    assert not found.is_inference()


@pytest.mark.parametrize("name", THREAD)
def test_settings_of_the_thread_alone(name: str) -> None:
    expected = compute()
    with THREAD[name]():
        before = describe()
        with pin_thread_settings():
            assert torch.equal(compute(), expected)
        assert describe() == before


def test_all_of_them_at_once_and_nested() -> None:
    expected = compute()
    with ExitStack() as settings:
        for enter in ALL.values():
            settings.enter_context(enter())
        before = describe()
        with pin_settings(), pin_thread_settings(), pin_settings():
            assert torch.equal(compute(), expected)
        assert describe() == before


def test_they_are_given_back_after_an_error() -> None:
    with default_dtype(), default_device():
        before = describe()
        with pytest.raises(ZeroDivisionError), pin_settings():
            _ = 1 / 0
        assert describe() == before


@pytest.mark.parametrize("gradients", [True, False])
def test_the_mode_of_gradients_stays(gradients: bool) -> None:
    with torch.set_grad_enabled(gradients), pin_settings():
        assert torch.is_grad_enabled() is gradients
    with torch.inference_mode(), pin_settings():
        assert not torch.is_grad_enabled()


def test_two_threads_whose_blocks_overlap_lose_no_setting() -> None:
    """The second block begins inside the first, and ends after it."""
    inside, first_is_out = threading.Event(), threading.Event()
    found: list[torch.dtype] = []

    def second() -> None:
        with pin_settings():
            inside.set()
            first_is_out.wait()
            found.append(torch.empty(0).dtype)

    with default_dtype():
        thread = threading.Thread(target=second)
        with pin_settings():
            thread.start()
            inside.wait()
        first_is_out.set()
        thread.join()
        assert found == [torch.float32]
        assert torch.get_default_dtype() is torch.float64


def test_what_the_host_sets_meanwhile_is_kept() -> None:
    with default_dtype():
        with pin_settings():
            torch.set_default_dtype(torch.float16)
        assert torch.get_default_dtype() is torch.float16


def test_a_loaded_backbone_holds_what_its_source_holds(tmp_path: Path) -> None:
    path = tmp_path / "net.safetensors"
    save_file(load_backbone(NET, pretrained=False).model.state_dict(), path)
    makers: dict[str, Callable[[], Backbone]] = {
        "demo": lambda: load_backbone("demo"),
        "seed": lambda: load_backbone(NET, pretrained=False),
        "file": lambda: load_backbone(NET, weights=path),
        "object": lambda: Backbone(load_backbone(NET, pretrained=False).model),
    }
    digests = {name: make().digest for name, make in makers.items()}
    for enter in ALL.values():
        for name, make in makers.items():
            with enter():
                backbone = make()
            assert backbone.digest == digests[name]
            tensors = backbone.state_dict().values()
            assert {t.device.type for t in tensors} == {"cpu"}
            assert {t.dtype for t in tensors} == {torch.float32, torch.int64}
            assert not any(t.is_inference() for t in tensors)


@pytest.mark.parametrize("name", ALL)
def test_the_structure_alone_is_built_as_ever(name: str) -> None:
    with ALL[name]():
        model = build_structure("demo")
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    assert not any(p.is_inference() for p in model.parameters())
