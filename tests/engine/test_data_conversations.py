"""Conversation files: what is written is read, and what is wrong is named by file and line."""

from __future__ import annotations

import json

import pytest

from engine.context import StageError
from engine.data.conversations import ConversationError, check, read_conversations, write_json_lines

HELLO = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "Hello!"}]
SUM = [{"role": "user", "content": "1+1?"}, {"role": "assistant", "content": [
    {"type": "python", "text": "1+1"}, {"type": "python_output", "text": "2"}, {"type": "text", "text": "It is 2."}]}]


def test_round_trip(tmp_path):
    path = tmp_path / "conversations" / "mid_train.jsonl"
    assert write_json_lines(path, [HELLO, SUM, HELLO + SUM]) == 3
    assert read_conversations(path) == [HELLO, SUM, HELLO + SUM]
    assert all(isinstance(json.loads(line), list) for line in path.read_text().splitlines())


def test_empty_lines_are_skipped(tmp_path):
    path = tmp_path / "c.jsonl"
    path.write_text(json.dumps(HELLO) + "\n\n  \n" + json.dumps(SUM))
    assert read_conversations(path) == [HELLO, SUM]


@pytest.mark.parametrize(("row", "problem"), [
    ("{", "not JSON"),
    ('{"messages": []}', "array of messages"),
    ("[]", "at least 2 messages"),
    ('[{"role": "user", "content": "hi"}]', "at least 2 messages"),
    (json.dumps(HELLO[::-1]), "message 1 is from 'assistant'"),
    (json.dumps([*HELLO, HELLO[1]]), "message 3 is from 'assistant'"),
    ('[{"role": "user"}, {"role": "assistant", "content": "x"}]', "message 1"),
    ('["hi", "there"]', "message 1"),
    (json.dumps([{"role": "user", "content": [{"type": "text", "text": "x"}]}, HELLO[1]]), "not text"),
    (json.dumps([HELLO[0], {"role": "assistant", "content": [{"type": "image", "text": "x"}]}]), "part"),
    (json.dumps([HELLO[0], {"role": "assistant", "content": [{"type": "text"}]}]), "part"),
    (json.dumps([HELLO[0], {"role": "assistant", "content": 7}]), "message 2"),
    ("[" * 100_000, "not JSON"),
])
def test_what_is_wrong_is_named_by_file_and_line(tmp_path, row, problem):
    path = tmp_path / "c.jsonl"
    path.write_text(json.dumps(HELLO) + "\n" + row + "\n")
    with pytest.raises(ConversationError) as error:
        read_conversations(path)
    assert str(error.value).startswith(f"{path}:2: ") and problem in str(error.value)


def test_a_missing_file_says_what_to_run(tmp_path):
    with pytest.raises(StageError) as error:
        read_conversations(tmp_path / "none.jsonl")
    assert "dataset" in error.value.next


def test_a_good_conversation_has_no_problem():
    assert check(HELLO) is None and check(SUM + HELLO) is None
