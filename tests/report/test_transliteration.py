"""Latin letters for scripts that DejaVu Sans lacks."""

import doctest

import pytest

from valence_lib.report import transliteration
from valence_lib.report.transliteration import fonts, transliterate


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("Čapek Ωmega Жук שלום مرحبا − ≥ † 😀", "Čapek Ωmega Жук שלום مرحبا − ≥ † 😀"),
        ("by 张三, first", "by ⟨ZhangSan⟩, first"),
        ("ᠮ", "⟨m⟩"),
        ("\ue000", "⟨U+E000⟩"),
        ("👨\u200d👩", "⟨man-woman⟩"),  # one sign of two joined ones
        ("", ""),
    ],
)
def test_only_what_the_font_lacks_is_in_latin_letters(text, shown):
    assert transliterate(text) == shown


def test_runs_with_the_same_letters_stay_different():
    first, second, again = transliterate("张三 章三 张三").split(" ⟨")
    assert again == first.removeprefix("⟨") != second
    # Also where a name is already written so.
    own, found = transliterate("⟨ZhangSan⟩ and 张三").split(" and ")
    assert own == "⟨ZhangSan⟩" != found


def test_the_fonts_come_with_matplotlib():
    assert fonts()[0].name == "DejaVuSans.ttf"
    assert all(font.is_file() for font in fonts())


def test_doctests():
    assert doctest.testmod(transliteration).failed == 0
