"""Which dtypes are tried, and how far answers may drift in each."""

from __future__ import annotations

import pytest
import torch

from gatehub.errors import EngineError
from gatehub.runtime.execution import dtypes
from gatehub.runtime.execution.dtypes import choose_dtypes, has_matrix_units, tolerance

CPU = torch.device("cpu")


@pytest.mark.parametrize("name", ["float32", "bfloat16", "float16"])
def test_a_named_dtype_is_the_only_one(name: str) -> None:
    assert choose_dtypes(name, CPU) == (getattr(torch, name),)


@pytest.mark.parametrize(
    ("units", "expected"),
    [(True, (torch.bfloat16, torch.float32)), (False, (torch.float32,))],
)
def test_auto_tries_bfloat16_where_the_processor_multiplies_it(
    units: bool, expected: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: units, raising=False)
    assert has_matrix_units(CPU) == units
    assert choose_dtypes("auto", CPU) == expected


def test_a_torch_that_cannot_say_has_no_matrix_units(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(torch.cpu, "_is_amx_tile_supported", raising=False)
    assert choose_dtypes("auto", CPU) == (torch.float32,)
    assert not has_matrix_units(torch.device("meta"))


@pytest.mark.parametrize(("capability", "units"), [((7, 5), False), ((8, 0), True), ((9, 0), True)])
def test_a_gpu_is_asked_for_its_generation(
    capability: tuple[int, int], units: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert has_matrix_units(torch.device("cuda")) == units


def test_other_dtypes_are_refused_by_name() -> None:
    with pytest.raises(EngineError, match="dtype is 'int8'; expected one of auto, float32, bfl"):
        choose_dtypes("int8", CPU)


def test_fewer_bits_may_drift_further() -> None:
    limits = [tolerance(d) for d in (torch.float32, torch.float16, torch.bfloat16)]
    assert limits == sorted(limits)
    assert {*dtypes.DTYPES.values()} == {*dtypes._TOLERANCES}
