"""Quiet and stalled are told by the stage's own steps; a stage without steps is only ever quiet."""

from __future__ import annotations

import pytest

from console.pulse import Signs, pulse

NOW = 10_000.0


@pytest.mark.parametrize(
    ("per_step", "age", "word"),
    [(0.5, 14, ""), (0.5, 16, "quiet"), (0.5, 119, "quiet"), (0.5, 121, "stalled"), (8.0, 79, ""), (8.0, 81, "quiet"),
     (8.0, 799, "quiet"), (8.0, 801, "stalled")],
)
def test_by_how_long_a_step_takes(per_step: float, age: float, word: str) -> None:
    found = pulse(Signs(NOW - 9000, 4880, NOW - age, per_step, NOW - age - 50), NOW)
    assert found.word == word
    assert not word or f"since step 4,880; one takes {per_step:g} s" in found.text


def test_a_line_in_the_log_is_a_sign_too() -> None:
    assert pulse(Signs(NOW - 9000, 4880, NOW - 500, 0.5, NOW - 1), NOW).word == ""


@pytest.mark.parametrize(("age", "word"), [(60, ""), (100, "quiet"), (5000, "quiet")])
def test_a_stage_without_steps(age: float, word: str) -> None:
    assert pulse(Signs(NOW - age, None, None, None, None), NOW).word == word


def test_nothing_known_is_no_reason_to_worry() -> None:
    assert pulse(Signs(None, None, None, None, None), NOW).word == ""
