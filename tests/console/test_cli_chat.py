"""`chat` over a stand-in for the chat process: what is sent, what is printed, how it ends."""

from __future__ import annotations

import io
import json
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from console.chat.launch import ProcessHere
from console.chat.pipe import ChatPipe
from console.cli import chat as cli_chat
from console.cli.main import call
from console.exit_codes import Exit

# Answers by the last word of the question; writes every request down.
STAND_IN = textwrap.dedent("""
    import json, sys
    def say(**event):
        print(json.dumps(event), flush=True)
    say(v=1, event="ready")
    for line in sys.stdin:
        request = json.loads(line)
        open(sys.argv[1], "a").write(line)
        id = request.get("id")
        if request["op"] == "load":
            say(event="loaded", model={"n_params": 1234567, "device": "cpu", "dtype": "float32", "seconds": 0.25})
        elif request["op"] == "stop":
            say(event="done", id=id, finish="cancelled", stats={})
        elif request["op"] == "generate":
            word = request["messages"][-1]["content"].split()[-1]
            if word == "error":
                say(event="error", id=id, code="context", message="too long", next="shorten it")
                continue
            if word == "die":
                print("segmentation fault", file=sys.stderr, flush=True)
                sys.exit(3)
            if word == "sum":
                say(event="tool", id=id, phase="input", text="2+2")
                say(event="tool", id=id, phase="output", text="4")
            say(event="token", id=id, text="The \\u001b[31mansw")
            if word == "slow":
                continue
            say(event="token", id=id, text="er")
            say(event="done", id=id, finish="stop", stats={"ttft_ms": 12.0, "tok_per_s": 99.5, "completion_tokens": 2})
""")


@pytest.fixture
def asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], list[dict[str, Any]]]:
    """Puts the stand-in in place; gives the requests that it got."""
    script, requests = tmp_path / "chat.py", tmp_path / "requests"
    script.write_text(STAND_IN)
    argv = [sys.executable, "-I", "-S", str(script), str(requests)]
    monkeypatch.setattr(cli_chat, "ChatPipe", lambda launch: ChatPipe(lambda: ProcessHere(argv)))
    model = SimpleNamespace(ref="run/sft@9", path=tmp_path / "d4", step=9, tokenizer_dir=tmp_path / "tok", problem=None)
    monkeypatch.setattr(cli_chat, "choose", lambda *wanted: model)
    return lambda: [json.loads(line) for line in requests.read_text().splitlines()]


def test_one_answer(capsys: pytest.CaptureFixture[str], asked: Callable[[], list[dict[str, Any]]]) -> None:
    assert call(["chat", "what", "is", "it", "-t", "0", "-k", "7", "--seed", "3", "--system", "Be brief."]) == 0
    out, err = capsys.readouterr()
    assert out == "The answer\n"
    assert "1,234,567 parameters" in err and "12 ms to the first token · 99.5 tok/s · 2 tokens" in err
    load, generate = asked()
    assert load["path"].endswith("d4") and load["step"] == 9
    assert generate["messages"] == [{"role": "system", "content": "Be brief."},
                                    {"role": "user", "content": "what is it"}]
    assert (generate["temperature"], generate["top_k"], generate["seed"], generate["max_tokens"]) == (0.0, 7, 3, 512)
    assert "top_p" not in generate and "system" not in generate


def test_tools_are_visible_beside_the_answer(capsys: pytest.CaptureFixture[str], asked: object) -> None:
    assert call(["chat", "-p", "a sum"]) == 0
    out, err = capsys.readouterr()
    assert out == "The answer\n" and "[python: 2+2]\n[result: 4]" in err
    assert call(["chat", "a sum", "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["text"] == "The answer" and answer["finish"] == "stop"
    assert answer["tools"] == [{"phase": "input", "text": "2+2"}, {"phase": "output", "text": "4"}]


def test_the_prompt_may_come_from_stdin(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
                                        asked: Callable[[], list[dict[str, Any]]]) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("from a pipe\n"))
    assert call(["chat", "-"]) == 0
    assert asked()[1]["messages"][-1]["content"] == "from a pipe"
    monkeypatch.setattr(sys, "stdin", io.StringIO(""))
    assert call(["chat"]) == Exit.USAGE


def test_what_goes_wrong_is_one_sentence(capsys: pytest.CaptureFixture[str], asked: object) -> None:
    assert call(["chat", "an error"]) == Exit.WORK_FAILED
    assert "too long\n  shorten it" in capsys.readouterr().err
    assert call(["chat", "please die"]) == Exit.WORK_FAILED
    assert "exit 3" in (err := capsys.readouterr().err) and "segmentation fault" in err


def test_ctrl_c_stops_the_answer(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
                                 asked: Callable[[], list[dict[str, Any]]]) -> None:
    original, pressed = cli_chat._stream, []

    def press(event: Any) -> None:
        original(event)
        if event.get("event") == "token" and not pressed:
            pressed.append(1)
            raise KeyboardInterrupt

    monkeypatch.setattr(cli_chat, "_stream", press)
    assert call(["chat", "be slow"]) == Exit.INTERRUPTED
    assert asked()[-1] == {"op": "stop", "id": "g1"}
    assert capsys.readouterr().out == "The answ\n"


def test_a_conversation_remembers(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
                                  asked: Callable[[], list[dict[str, Any]]]) -> None:
    lines = iter(["forget", "clear", "a sum", "", "an error", "and now"])

    def typed(prompt: str) -> str:
        try:
            return next(lines)
        except StopIteration:
            raise EOFError from None

    monkeypatch.setattr("builtins.input", typed)
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(isatty=lambda: True))
    assert call(["chat"]) == 0
    out, err = capsys.readouterr()
    assert out == "The answer\nThe answer\n\nThe answer\n" and "too long; shorten it" in err
    last = asked()[-1]["messages"]
    assert [m["role"] for m in last] == ["user", "assistant", "user"]  # the question that failed stays out
    assert last[1]["content"][0] == {"type": "python", "text": "2+2"}
    assert last[2]["content"] == "and now"


def test_the_screen_needs_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    assert call([]) == Exit.USAGE
    assert "needs a terminal" in capsys.readouterr().err


@pytest.mark.parametrize("flags", [["-t", "-1"], ["-t", "inf"], ["-t", "x"], ["-k", "-5"], ["--top-p", "3"],
                                   ["--seed", "-4"], ["--seed", str(2**63)], ["--max-tokens", "0"], ["-d", "int9"],
                                   ["-i", "sftt"], ["-s", "one"], ["-p", "twice"]])
def test_flags_that_cannot_be_are_refused_before_a_model_is_read(flags: list[str], tmp_path: Path,
                                                                 asked: Callable[[], list[dict[str, Any]]],
                                                                 capsys: pytest.CaptureFixture[str]) -> None:
    assert call(["chat", "hi", *flags]) == Exit.USAGE
    assert "Traceback" not in capsys.readouterr().err and not (tmp_path / "requests").exists()
