"""The one cleaning function: nothing that a terminal would obey leaves it, in linear time."""

from __future__ import annotations

import time
import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from console.text import clean, clean_line

NASTY = st.text(
    st.one_of(
        st.characters(),
        st.sampled_from("\x1b\x9b\x9d\x90\x07\x9c\\[]()PX^_;0123456789mHJK\r\n\t\u202e\u200b\U000e0041\ud800"),
    ),
    max_size=200,
)

UNSEEN = "\u200b\u200d\u202a\u202b\u202d\u202e\u2066\u2067\u2069\ufeff"


def harmful(char: str) -> bool:
    """Would a terminal obey this character, or a reader not see it?"""
    if char in "\n\t":
        return False
    return unicodedata.category(char) in ("Cc", "Cs") or char in UNSEEN


@settings(max_examples=500, deadline=None)
@given(NASTY)
def test_nothing_harmful_leaves_and_a_second_pass_changes_nothing(text: str) -> None:
    once = clean(text)
    assert not [c for c in once if harmful(c)]
    assert clean(once) == once
    once.encode("utf-8")


@given(st.text(st.characters(min_codepoint=32, max_codepoint=126) | st.sampled_from("\n\täöü漢字🙂éß—│▸")))
def test_readable_text_is_untouched(text: str) -> None:
    assert clean(text) == text


@pytest.mark.parametrize(
    ("raw", "shown"),
    [
        ("\x1b[31mred\x1b[0m", "red"),
        ("\x1b]52;c;ZXZpbA==\x07copied", "copied"),
        ("\x1b]8;;http://x\x1b\\link\x1b]8;;\x1b\\", "link"),
        ("\x9b31mred", "red"),
        ("a\x1bPq#0\x1b\\b", "ab"),
        ("10%\r50%\r100%\nnext", "100%\nnext"),
        ("dos line\r\nnext", "dos line\nnext"),
        ("\x1b]0;never closed\nnext line stays", "\nnext line stays"),
        ("abc\u202egnp.exe", "abcgnp.exe"),
        ("half \ud83d char", "half \ufffd char"),
        ("ta\tb", "ta\tb"),
        ("\x1b[", ""),
        ("[red]not markup[/] [/foo]", "[red]not markup[/] [/foo]"),
    ],
)
def test_known_attacks(raw: str, shown: str) -> None:
    assert clean(raw) == shown


@pytest.mark.parametrize("piece", ["\x1b]", "\x1b[", "\x1b[0;", "\r", "\x1b]x\x1b", "a\x9d", "\x1bP\n"])
def test_cost_is_linear(piece: str) -> None:
    def seconds(n: int) -> float:
        text = piece * n
        start = time.perf_counter()
        clean(text)
        return time.perf_counter() - start

    small = min(seconds(20_000) for _ in range(3))
    large = min(seconds(200_000) for _ in range(3))
    assert large < 40 * small + 0.02  # 10 times the text; quadratic would be 100 times


def test_an_ordinary_log_line_costs_two_microseconds_at_most() -> None:
    line = "step 04869/08000 | loss 2.4267 | lrm 0.84 | dt 479ms | tok/s 1,097,642 | mfu 48.3 | gn 0.48"

    def per_line() -> float:
        start = time.perf_counter()
        for _ in range(2000):
            clean(line)
        return (time.perf_counter() - start) / 2000

    assert min(per_line() for _ in range(5)) < 2e-6


def test_clean_line_is_one_line_of_limited_length() -> None:
    assert clean_line("a\nb\tc  d\x07") == "a b c d"
    assert clean_line("x" * 50, 10) == "x" * 9 + "…"
    start = time.perf_counter()
    assert len(clean_line("\x1b[1m" + "y" * 10_000_000, 80)) == 80
    assert time.perf_counter() - start < 0.05
