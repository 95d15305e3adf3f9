from __future__ import annotations

import pytest

from gatehub.errors import ServerError
from gatehub.server import ServerSettings


def test_defaults_are_within_their_own_limits() -> None:
    settings = ServerSettings()
    assert settings.max_body_bytes == 20_000_000
    assert settings.max_pixels == 50_000_000
    assert settings.threads >= 2


@pytest.mark.parametrize("value", [0, -1, 1.5, True, "4", None])
def test_a_value_that_is_no_positive_whole_number_is_refused_by_name(value: object) -> None:
    with pytest.raises(ServerError, match=r"ServerSettings\.threads is .*at least 1"):
        ServerSettings(threads=value)  # type: ignore[arg-type]


def test_an_image_need_not_wait_for_others_but_minus_one_is_no_time() -> None:
    assert ServerSettings(max_wait_ms=0).max_wait_ms == 0
    with pytest.raises(ServerError, match=r"max_wait_ms is -1.*at least 0"):
        ServerSettings(max_wait_ms=-1)
