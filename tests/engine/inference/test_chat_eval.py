"""Chat evaluation by a model whose answer is known: 4+5 by calculator, whatever is asked."""

from __future__ import annotations

import json

import pytest

from engine.config import ConfigError
from engine.context import StageContext, Stopped
from engine.data.conversations import ConversationError, write_json_lines
from engine.events import EventWriter, parse_line
from engine.settings.evaluation import ChatEval
from engine.stages import chat_eval

NINE = {"rule": "number", "value": "9", "tool": "9"}


def question(kind, text, accept, answer="x"):
    return {"kind": kind, "messages": [{"role": "user", "content": text}], "accept": accept, "answer": answer}


QUESTIONS = [question("add", "4+5?", NINE, "4 + 5 = 9."), question("add", "How much is 4 + 5?", NINE, "4 + 5 = 9."),
             question("country", "The capital of France?", {"rule": "words", "all": ["Paris"]}, "It is Paris."),
             question("add", "4+6?", {"rule": "number", "value": "10", "tool": "10"}, "4 + 6 = 10.")]


@pytest.fixture
def context(tmp_path, save_chain, byte_tokenizer):
    tok = byte_tokenizer()
    special = tok.encode_special
    base = tmp_path / "b"
    save_chain(base, 7, [special("<|python_start|>"), *tok.encode("4+5"), special("<|python_end|>"),
                         special("<|output_end|>"), *tok.encode("= 9."), special("<|assistant_end|>")])
    write_json_lines(base / "conversations" / "questions.jsonl", QUESTIONS)
    return StageContext(base, EventWriter(tmp_path / "events.jsonl", stage="08-chat_eval"), "chat_eval")


def events(tmp_path):
    return [parse_line(line) for line in (tmp_path / "events.jsonl").read_bytes().splitlines()]


def test_scores_per_kind_go_to_events_report_and_log(context, tmp_path, capsys):
    chat_eval.run(ChatEval(device_type="cpu", dtype="float32"), context)
    [evaluation] = [e for e in events(tmp_path) if e.kind == "eval"]
    assert evaluation.step == 7
    assert evaluation.data == {"chat/all": 0.5, "chat/add": 2 / 3, "chat/country": 0.0}
    progress = [e.data for e in events(tmp_path) if e.data.get("state") == "progress"]
    assert progress[-1]["done"] == progress[-1]["total"] == 4
    part = json.loads((context.base_dir / "report" / "chat-evaluation-sft.json").read_text())
    assert part["title"] == "Chat evaluation SFT"
    assert part["data"]["Questions"] == 4 and part["data"]["Right answers"] == 2
    assert part["data"]["Scores"] == {"add": 2 / 3, "country": 0.0}
    assert part["data"]["Kinds below 95%"] == "add, country"
    printed = capsys.readouterr().out
    assert "The capital of France?" in printed and "= 9." in printed and "It is Paris." in printed
    assert "below 95%: add, country" in printed


def test_some_kinds_and_at_most_some_questions(context, tmp_path):
    chat_eval.run(ChatEval(device_type="cpu", dtype="float32", task_name="add", max_problems=2), context)
    assert [e.data for e in events(tmp_path) if e.kind == "eval"] == [{"chat/all": 1.0, "chat/add": 1.0}]


def test_an_unknown_kind_names_the_nearest(context):
    with pytest.raises(ConfigError, match="did you mean country"):
        chat_eval.run(ChatEval(task_name="contry"), context)


def test_a_request_to_stop_leaves_no_scores(context, tmp_path):
    context.stop_requested = True
    with pytest.raises(Stopped):
        chat_eval.run(ChatEval(device_type="cpu", dtype="float32"), context)
    assert not (context.base_dir / "report").exists()
    assert not [e for e in events(tmp_path) if e.kind == "eval"]


@pytest.mark.parametrize(("row", "problem"), [
    ([], "object"),
    ({"kind": "add"}, "object"),
    (question("add", "x", {"rule": "guess"}), "no rule"),
    (question("add", "x", []), "no rule"),
    ({**QUESTIONS[0], "messages": []}, "at least 2"),
    ({**QUESTIONS[0], "messages": "hi"}, "not a list"),
    ({**QUESTIONS[0], "messages": [{"role": "assistant", "content": "x"}]}, "message 1"),
])
def test_a_bad_question_is_named_by_line(tmp_path, row, problem):
    path = tmp_path / "questions.jsonl"
    write_json_lines(path, [QUESTIONS[0], row])
    with pytest.raises(ConversationError, match=problem) as error:
        chat_eval.read_questions(path)
    assert f"{path}:2:" in str(error.value)
