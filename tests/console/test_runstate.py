"""The eight words, each from the facts that lead to it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from console.runstate import Facts, Word, derive, explain

ALIVE = Facts(pending=False, job="running", exit_code=None, stopping=False, never_launched=None, reported="started",
              reported_exit=None, last_sign=995.0, now=1000.0)


@pytest.mark.parametrize(("word", "code", "changes"), [
    (Word.RUNNING, None, {}),
    (Word.QUEUED, None, {"pending": True}),
    (Word.STARTING, None, {"reported": None}),
    (Word.SILENT, None, {"last_sign": 300.0}),
    (Word.SILENT, None, {"paused": True}),
    (Word.FAILED, 1, {"paused": True, "job": "exited", "exit_code": 1}),
    (Word.FINISHED, 0, {"job": "exited", "exit_code": 0}),
    (Word.FAILED, 1, {"job": "exited", "exit_code": 1}),
    (Word.FAILED, -9, {"job": "exited", "exit_code": -9}),
    (Word.STOPPED, -9, {"job": "exited", "exit_code": -9, "stopping": True}),
    (Word.FAILED, 1, {"job": "exited", "exit_code": 1, "stopping": True}),
    (Word.STOPPED, 75, {"job": "exited", "exit_code": 75}),
    (Word.LOST, None, {"job": "lost"}),
    (Word.LOST, None, {"job": "absent"}),
    (Word.FAILED, None, {"never_launched": "failed: no python", "job": "unknown"}),
    (Word.STOPPED, None, {"never_launched": "cancelled before the launch", "job": "unknown"}),
    (Word.FINISHED, 0, {"job": "unknown", "reported": "finished", "reported_exit": 0}),
    (Word.FAILED, 2, {"job": "unknown", "reported": "failed", "reported_exit": 2}),
    (Word.RUNNING, None, {"job": "unknown"}),
    (Word.LOST, None, {"job": "unknown", "last_sign": 300.0}),
    (Word.LOST, None, {"job": "unknown", "last_sign": None}),
])
def test_the_word_follows_from_the_facts(word: Word, code: int | None, changes: dict[str, object]) -> None:
    assert derive(replace(ALIVE, **changes)) == (word, code)


@pytest.mark.parametrize("word", list(Word))
def test_every_word_has_a_sentence_and_trouble_has_a_next_step(word: Word) -> None:
    text, hint = explain(word, 1, "04-base_train", 900.0, "loss is NaN", 2, 1000.0)
    assert text
    if word in (Word.FAILED, Word.LOST, Word.STOPPED, Word.SILENT):
        assert hint
    if word is Word.SILENT:
        assert text == "SILENT: loss is NaN"
        assert "wrote nothing since 100 s" in explain(word, None, "04-base_train", 900.0, None, 2, 1000.0)[0]
    if word is Word.FAILED:
        assert text == "FAILED exit 1 in 04-base_train: loss is NaN"
