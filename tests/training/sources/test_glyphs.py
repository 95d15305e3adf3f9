from __future__ import annotations

import numpy as np
import pytest

from gatehub.errors import DataError
from gatehub.training.sources.glyphs import SCRIPTS, available_fonts, render_glyphs


def test_fonts_are_found_and_placeholder_fonts_are_not() -> None:
    fonts = available_fonts()
    assert "DejaVuSans" in fonts
    assert len(fonts) >= 12
    assert all(path.is_file() for path in fonts.values())
    assert not [name for name in fonts if name.startswith(("LastResort", "cmsy", "cmex"))]


def test_pictures_have_the_stated_shape_and_balanced_labels() -> None:
    images, labels = render_glyphs(("A", "B", "C"), count=10, size=24, seed=0)
    assert images.shape == (10, 24, 24, 3)
    assert images.dtype == np.uint8
    assert labels.dtype == np.int64
    assert sorted(np.bincount(labels, minlength=3)) == [3, 3, 4]


def test_a_seed_decides_every_picture() -> None:
    first, labels = render_glyphs(SCRIPTS["greek"], count=24, size=32, seed=5)
    again, same_labels = render_glyphs(SCRIPTS["greek"], count=24, size=32, seed=5)
    other, _ = render_glyphs(SCRIPTS["greek"], count=24, size=32, seed=6)
    np.testing.assert_array_equal(first, again)
    np.testing.assert_array_equal(labels, same_labels)
    assert not np.array_equal(first, other)


@pytest.mark.parametrize("script", sorted(SCRIPTS))
def test_every_class_draws_ink(script: str) -> None:
    characters = SCRIPTS[script]
    images, labels = render_glyphs(characters, count=3 * len(characters), size=32, seed=1)
    assert set(labels.tolist()) == set(range(len(characters)))
    contrast = np.ptp(images.astype(int).mean(axis=3), axis=(1, 2))
    assert contrast.min() > 30


@pytest.mark.parametrize("script", sorted(SCRIPTS))
def test_classes_look_different(script: str) -> None:
    # One font and one seed for each: only the character differs.
    drawn = {
        render_glyphs((character,), count=1, size=32, seed=3, fonts=["DejaVuSans"])[0].tobytes()
        for character in SCRIPTS[script]
    }
    assert len(drawn) == len(SCRIPTS[script])


def test_unseen_scripts_share_no_character_with_pretraining() -> None:
    seen = set(SCRIPTS["latin"])
    assert not any(character.isdigit() for character in seen)
    for script, characters in SCRIPTS.items():
        assert script == "latin" or seen.isdisjoint(characters)


def test_a_font_without_the_character_is_skipped() -> None:
    # DejaVu Serif has no Hebrew and draws a box for it; only DejaVu Sans can have drawn these.
    both, _ = render_glyphs(("ש",), count=6, size=24, seed=2, fonts=["DejaVuSerif", "DejaVuSans"])
    alone, _ = render_glyphs(("ש",), count=6, size=24, seed=2, fonts=["DejaVuSans"])
    np.testing.assert_array_equal(both, alone)


def test_a_character_that_no_font_has_is_refused() -> None:
    with pytest.raises(DataError, match=r"No font among \['DejaVuSerif'\] draws .*'ש'"):
        render_glyphs(("A", "ש"), count=4, size=24, seed=0, fonts=["DejaVuSerif"])


def test_a_blank_character_is_refused() -> None:
    with pytest.raises(DataError, match=r"draws the characters \[' '\]"):
        render_glyphs((" ",), count=1, size=24, seed=0)


def test_unusable_settings_are_refused() -> None:
    with pytest.raises(DataError, match="distinct characters"):
        render_glyphs(("A", "A"), count=2, size=24, seed=0)
    with pytest.raises(DataError, match="distinct characters"):
        render_glyphs((), count=2, size=24, seed=0)
    with pytest.raises(DataError, match="one single character, got 'AB'"):
        render_glyphs(("AB",), count=2, size=24, seed=0)
    with pytest.raises(DataError, match="count=0"):
        render_glyphs(("A",), count=0, size=24, seed=0)
    with pytest.raises(DataError, match=r"fonts \['Comic'\]") as caught:
        render_glyphs(("A",), count=1, size=24, seed=0, fonts=["Comic"])
    assert "DejaVuSans" in str(caught.value.hint)
    with pytest.raises(DataError, match=r"fonts \[\]"):
        render_glyphs(("A",), count=1, size=24, seed=0, fonts=[])
