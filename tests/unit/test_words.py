"""Text from outside is one bounded line that moves no cursor and hides nothing; times and lengths as a person reads them."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ecgnat_stream.words import as_text, cell, cleaned

ODD = "\N{REPLACEMENT CHARACTER}"

NASTY = {
    "clear the screen": ("a\x1b[2J\x1b[Hb", f"a{ODD}b"),
    "colour": ("\x1b[31mred\x1b[0m", f"{ODD}red{ODD}"),
    "8 bit colour": ("\x9b31mred", f"{ODD}red"),
    "title": ("x\x1b]0;owned\x07y", f"x{ODD}y"),
    "link": ("\x1b]8;;http://evil\x1b\\here\x1b]8;;\x1b\\", f"{ODD}here{ODD}"),
    "8 bit title": ("x\x9d0;owned\x9cy", f"x{ODD}y"),
    "device control": ("\x1bP1$r\x1b\\ok", f"{ODD}ok"),
    "title without an end": ("\x1b]0;all that follows", f"{ODD}0;all that follows"),
    "reset": ("\x1bcgone", f"{ODD}gone"),
    "escape alone": ("end\x1b", f"end{ODD}"),
    "bell and backspace": ("abc\x07\x08\x08", f"abc{ODD}"),
    "lines": ("one\r\ntwo\n\n three\tfour\u2028five\x85six", "one two three four five six"),
    "direction": ("\u202egnp.exe\u2066x\u2069", f"{ODD}gnp.exe{ODD}x{ODD}"),
    "zero width": ("b\u200be\u200d\ufeffd\u00ad", f"b{ODD}e{ODD}d{ODD}"),
    "fillers": ("bed\u3164\u115f1\ufe0f", f"bed{ODD}1{ODD}"),
    "tags": ("bed\U000e0041", f"bed{ODD}"),
    "half a pair": ("x\ud800y", f"x{ODD}y"),
    "private and unassigned": ("\ue000\U000fffff\U0003fffe", ODD),
    "blanks": ("  a\u00a0\u3000b  ", "a b"),
    "marks": ("e" + "\u0301" * 40, "e" + "\u0301" * 4),
    "null": ("a\x00b", f"a{ODD}b"),
}


@pytest.mark.parametrize("name", NASTY)
def test_what_a_terminal_obeys_or_hides_becomes_a_visible_mark(name: str) -> None:
    text, expected = NASTY[name]
    assert cleaned(text) == expected


@pytest.mark.parametrize(
    "text", ["Dr. Müller", "患者 7", "ضغط الدم", "V1, 0.5 mV", "[red]bed[/] [@click=app.quit]", "…", "", "é"]
)
def test_what_people_write_stays(text: str) -> None:
    assert cleaned(text) == text


def test_a_long_text_ends_with_an_ellipsis() -> None:
    assert cleaned("x" * 301) == "x" * 299 + "…"
    assert cleaned("name", 3) == "na…"
    assert cleaned("\x1b[m" * 10_000 + "late", 10).endswith("…")
    assert cleaned(ValueError("what\nwent wrong")) == "what went wrong"


@given(st.text(st.characters() | st.sampled_from("\x1b\x9b\x9d[]();0\\\x07\x9cPmHJ\u202e\u200b \n\u0301")), st.integers(1, 400))
def test_any_text_is_one_bounded_line_and_stays_so(text: str, limit: int) -> None:
    shown = cleaned(text, limit)
    assert len(shown) <= limit
    assert shown.isprintable()
    assert not {unicodedata.category(c) for c in shown} & {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}
    assert cleaned(shown, limit) == shown
    shown.encode()


@pytest.mark.parametrize(
    "text",
    [
        *('=HYPERLINK("http://x","nurse")', "+cmd|' /C calc'!A0", "-2+3", "@SUM(A1)", "\tx", "\rx", "\n=1+1", " =1+1", "\uff1d1"),
        *("-inf()", "+1e", "--1", "-", "+49 30 1", "1\r=2"[1:]),
    ],
)
def test_text_that_a_spreadsheet_would_take_for_a_formula_is_text(text: str) -> None:
    assert cell(text) == f"'{text}"


@pytest.mark.parametrize("value", [-1, -1.5, True, None, "-1.5", "+2", "-.5e-3", "nurse 7", "a=b", "", "1-2", "''", "home/icu/1"])
def test_numbers_and_ordinary_text_are_cells_as_they_are(value: object) -> None:
    assert cell(value) == value


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a b.csv", "a b.csv"),
        ("café", "café"),
        ("caf\udce9", "caf\ufffd"),
        ("caf\udcc3\udca9", "café"),  # where names are ASCII for Python, their bytes are still UTF-8
        ("\ud83d", "\ufffd"),
        ("", ""),
    ],
)
def test_the_name_of_a_file_is_text_that_can_be_written(name: str, text: str) -> None:
    assert as_text(name) == text
    assert as_text(name).encode().decode() == text
    assert cleaned(name) == text
