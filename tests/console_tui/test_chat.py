"""Chat against a worker process that speaks the real protocol: streaming, tools, stop, again, death and recovery."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from textual import events

from console.chat.commands import CommandProblem, Taste, hint, parse, tuned
from console.chat.conversation import Conversation
from console.chat.session import ChatSession
from console.chat.store import ChatStore, export_line
from console.settings import ChatSettings
from console.widgets.chat_stats import spark
from console.widgets.marked import marked
from console.widgets.prompt import Prompt
from console.widgets.turns import Transcript
from engine.data.conversations import read_conversations


@pytest.fixture
def trained(world: Any) -> Any:
    world.run(end="finished")
    return world


async def test_a_question_is_answered_with_stats_and_tool_use(drive: Any, trained: Any) -> None:
    async with drive() as driver:
        await driver.press("5")
        await driver.sees("is ready to talk")
        await driver.write("use the tool")
        await driver.press("enter")
        await driver.sees("I heard 1 messages.")
        for text in ("calculator", "12*34", "408", "112 tok/s", "84 ms", "1,265 / 2,048", "3.4M weights"):
            await driver.sees(text)


async def test_figures_and_gaps_are_live_while_it_writes(drive: Any, trained: Any) -> None:
    async with drive() as driver:
        await driver.press("5")
        await driver.sees("is ready to talk")
        await driver.write("slowly overflow")
        await driver.press("enter")
        for text in ("20.0 tok/s", "84 ms", "50.0 ms", "1,204 /", "██", "2 oldest turns left out",
                     "without the 2 oldest turns"):
            await driver.sees(text)
        turn = driver.app.screen.session.conversation.writing
        assert turn is not None and turn.figures["completion_tokens"] == len(turn.times) > 1
        await driver.press("escape")
        await driver.sees("112 tok/s")


async def test_keys_are_text_in_the_prompt_and_screens_after_esc(drive: Any, trained: Any) -> None:
    async with drive() as driver:
        await driver.press("5")
        await driver.sees("is ready to talk")
        await driver.write("12q?")
        assert driver.app.screen.query_one(Prompt).text == "12q?" and driver.app.current_mode == "chat"
        await driver.press("escape", "2")
        await driver.until(lambda: driver.app.current_mode == "run", "the run screen")


async def test_stop_again_edit_and_new(drive: Any, trained: Any) -> None:
    async with drive() as driver:
        await driver.press("5")
        await driver.sees("is ready to talk")
        await driver.write("slowly")
        await driver.press("enter")
        await driver.sees("writing · esc stops")
        await driver.sees("said slowly")
        await driver.press("escape")
        await driver.sees("stopped")
        await driver.press("ctrl+r")
        await driver.sees("writing · esc stops")
        await driver.press("escape")
        conversation = driver.app.screen.session.conversation
        await driver.until(lambda: conversation.writing is None, "the stop")
        await driver.press("up")
        await driver.until(lambda: driver.app.screen.query_one(Prompt).text == "slowly", "the question back")
        assert conversation.turns == []
        await driver.press("ctrl+n")
        await driver.sees("is ready to talk")


async def test_a_worker_that_dies_is_told_in_the_turn_and_replaced_on_retry(drive: Any, trained: Any) -> None:
    async with drive() as driver:
        await driver.press("5")
        await driver.sees("is ready to talk")
        await driver.write("die")
        await driver.press("enter")
        await driver.sees("process ended: Killed: out of [/memory]")
        await driver.sees("ctrl+r")
        conversation = driver.app.screen.session.conversation
        conversation.turns[0].parts[0].text = "live"
        await driver.press("ctrl+r")
        await driver.sees("You said live")


async def test_a_question_that_does_not_fit_is_shown_kindly(drive: Any, trained: Any) -> None:
    async with drive((80, 24)) as driver:
        await driver.press("5")
        await driver.sees("is ready to talk")
        await driver.write("too long")
        await driver.press("enter")
        await driver.sees("the question has 900 tokens")
        await driver.sees("ask in fewer words")


async def test_hostile_answers_are_plain_text(drive: Any, trained: Any) -> None:
    async with drive() as driver:
        await driver.press("5")
        await driver.sees("is ready to talk")
        await driver.write("hostile")
        await driver.press("enter")
        await driver.sees("[red] [/foo] evil")
        await driver.sees("漢字")
        assert "\x1b" not in driver.text() and "\u202e" not in driver.text()


async def test_the_model_picker_filters_and_keeps_what_cannot_be_used(drive: Any, trained: Any) -> None:
    other = trained.run("other-2")
    trained.model(other, "base", 7)
    (other.base / "base_checkpoints" / "d4" / "model_000007.pt").unlink()
    async with drive() as driver:
        await driver.press("5")
        await driver.sees("is ready to talk")
        await driver.press("ctrl+o")
        await driver.sees("its model file is missing")
        await driver.write("sft")
        await driver.until(lambda: "other-2" not in driver.text().split("Choose a model")[1], "the filter")
        await driver.press("enter")
        await driver.sees("is ready to talk")


def said(conversation: Conversation, text: str, **done: Any) -> None:
    turn = conversation.writing
    assert turn is not None
    conversation.hear({"event": "token", "id": turn.id, "text": text})
    conversation.hear({"event": "done", "id": turn.id, "finish": "stop", "stats": done})


def test_messages_leave_broken_answers_and_their_questions_out() -> None:
    conversation = Conversation()
    conversation.ask("one")
    said(conversation, "eins", completion_tokens=1)
    conversation.ask("two")
    conversation.fail("worker", "gone", "")
    conversation.ask("sum")
    conversation.hear({"event": "tool", "phase": "input", "text": "1+2"})
    conversation.hear({"event": "tool", "phase": "output", "text": "3"})
    said(conversation, "three")
    conversation.ask("four")
    assert conversation.messages() == [
        {"role": "user", "content": "one"},
        {"role": "assistant", "content": "eins"},
        {"role": "user", "content": "sum"},
        {
            "role": "assistant",
            "content": [
                {"type": "python", "text": "1+2"},
                {"type": "python_output", "text": "3"},
                {"type": "text", "text": "three"},
            ],
        },
        {"role": "user", "content": "four"},
    ]


def test_a_new_chat_takes_the_newest_model_unless_one_was_picked(world: Any) -> None:
    from engine.catalog import list_models

    run = world.run()
    world.model(run, "base", 7)
    session = ChatSession(ChatSettings(), lambda: None, lambda operation: None)
    session.know(list_models(world.base))
    assert session.chosen is not None and session.chosen.source == "base"
    session.hear({"event": "ready"})
    session.hear({"event": "loaded", "model": {"name": "x"}})
    session.ask("hello")
    world.model(run, "sft", 9)
    session.know(list_models(world.base))
    assert session.chosen.source == "base"
    session.conversation.fail("x", "", "")
    session.begin_anew()
    assert session.chosen.source == "sft"
    session.use(next(model.ref for model in session.models if model.source == "base"))
    session.begin_anew()
    assert session.chosen.source == "base"


def test_words_about_an_old_answer_belong_to_nobody() -> None:
    sent: list[dict[str, Any]] = []
    session = ChatSession(ChatSettings(), lambda: None, sent.append)
    session.conversation.ask("old")
    old = session.conversation.writing
    session.begin_anew()
    assert sent == [{"op": "stop", "id": old.id}]
    session.conversation.ask("new")
    session.hear({"event": "token", "id": old.id, "text": "late"})
    assert session.conversation.writing.text == ""


async def test_a_smaller_terminal_still_shows_the_end_of_the_talk(drive: Any, trained: Any) -> None:
    async with drive() as driver:
        await driver.press("5")
        await driver.sees("is ready to talk")
        for number in range(1, 7):
            await driver.write("tell me")
            await driver.press("enter")
            await driver.sees(f"I heard {2 * number - 1} messages.")
        await driver.resize(80, 24)
        await driver.sees("I heard 11 messages.")
        await driver.resize(120, 36)
        await driver.sees("I heard 11 messages.")


async def burst(driver: Any, text: str) -> None:
    """As a terminal sends what was pasted or typed ahead: all at once, enter included."""
    for char in text:
        driver.app.post_message(events.Key({" ": "space", "/": "slash"}.get(char, char), char))
    driver.app.post_message(events.Key("enter", "\r"))


async def test_typing_ahead_loses_nothing(drive: Any, trained: Any) -> None:
    async with drive() as driver:
        await driver.press("5")
        await driver.sees("is ready to talk")
        await burst(driver, "first words")
        await driver.sees("said first words and I heard 1")
        await burst(driver, "/temp 0")
        await driver.sees("temp 0 ·")
        await burst(driver, "/help")
        await driver.sees("/topk N")
        await burst(driver, "second")
        await driver.sees("said second and I heard 3")


async def test_commands_say_what_is_wrong(drive: Any, trained: Any) -> None:
    async with drive() as driver:
        await driver.press("5")
        await driver.sees("is ready to talk")
        for line, told in (("/topk many", "a whole number"), ("/tmep 1", "did you mean temp"), ("/seed 7", "seed 7"),
                           ("/save", "nothing to keep"), ("/export", "no answered question"),
                           ("/model nope", "no model 'nope'"), ("/topk 7", "top-k 7")):
            await burst(driver, line)
            await driver.sees(told)
        await burst(driver, "//literally")
        await driver.sees("said /literally")


async def test_a_chat_is_kept_reopened_and_exported(drive: Any, trained: Any, tmp_path: Any) -> None:
    async with drive() as driver:
        await driver.press("5")
        await driver.sees("is ready to talk")
        await burst(driver, "use the tool")
        await driver.sees("I heard 1")
        await driver.press("ctrl+s")
        await driver.sees("kept as")
        await burst(driver, "more")
        await driver.sees("I heard 3")
        store = ChatStore(tmp_path / "home" / "chats" / "chats.db")
        await driver.until(lambda: [c.replies for c in store.all()] == [2], "the second answer kept")
        assert (tmp_path / "home" / "chats" / "chats.db").stat().st_mode & 0o077 == 0
        await driver.press("f6")  # also while the prompt has the focus, where it would select a line
        await driver.sees("written to")
        await burst(driver, "/export ../talk")
        await driver.sees("talk.jsonl")
        [line] = (tmp_path / "home" / "chats" / "talk.jsonl").read_text().splitlines()
        assert [m["role"] for m in json.loads(line)] == ["user", "assistant"] * 2
        assert all(isinstance(m["content"], str) for m in json.loads(line))
        await driver.press("ctrl+n")
        await driver.sees("is ready to talk")
        await driver.press("ctrl+b")
        await driver.sees("Kept chats")
        await driver.press("enter")
        await driver.sees("I heard 3")
        await driver.sees("12*34")
        await burst(driver, "and on")
        await driver.sees("I heard 5")
        await burst(driver, "/forget")
        await driver.until(lambda: store.all() == [], "the kept copy gone")


async def test_two_models_answer_one_question(drive: Any, trained: Any) -> None:
    other = trained.run("other-2")
    trained.model(other, "base", 7)
    async with drive((150, 36)) as driver:
        await driver.press("5")
        await driver.sees("is ready to talk")
        await burst(driver, "/compare other-2")
        await driver.sees("other-2 base @7 is ready")
        await burst(driver, "slowly both")
        await driver.sees("said slowly")
        second = driver.app.screen._second.conversation
        assert second.turns == []  # it waits for its turn
        await driver.press("escape")
        await driver.until(lambda: driver.app.screen.session.conversation.writing is None, "the stop")
        await burst(driver, "both")
        await driver.until(lambda: driver.text().count("said both") == 2, "two answers")
        await driver.press("ctrl+r")
        await driver.until(lambda: second.replies == 2, "the second one again")
        await burst(driver, "/compare off")
        await driver.until(lambda: driver.text().count("said both") == 1, "one pane")
        await burst(driver, "alone")
        await driver.sees("said alone")


async def test_what_does_not_fit_is_listed_with_the_reason(drive: Any, trained: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr("engine.fit.memory_free", lambda: 1_000_000)
    async with drive() as driver:
        await driver.press("5")
        await driver.sees("is ready to talk")
        await driver.press("ctrl+o")
        await driver.sees("does not fit: needs")
        await driver.sees("1.0 MB are free")
        await driver.press("enter")
        await driver.sees("needs")


async def test_reading_further_up_is_left_alone(drive: Any, trained: Any) -> None:
    async with drive((100, 24)) as driver:
        await driver.press("5")
        await driver.sees("is ready to talk")
        await burst(driver, "slowly " + "x" * 600)
        await driver.until(lambda: driver.app.screen.query_one(Transcript).max_scroll_y > 5, "a long answer")
        await driver.press("pageup")
        await driver.sees("more below")
        place = driver.app.screen.query_one(Transcript).scroll_y
        await asyncio.sleep(0.5)
        assert driver.app.screen.query_one(Transcript).scroll_y == place
        await driver.press("escape", "ctrl+end")
        await driver.until(lambda: driver.app.screen.query_one(Transcript).following, "the end")


def test_marks_are_styles_and_never_markup() -> None:
    text = "# Head\n- **bold** and `code`\n2. two *x*\n```py\n[red]**raw**[/]\n```\n[bold]no[/bold] 2*3*4 ** `"
    content = marked(text)
    assert "[red]**raw**[/]" in content.plain and "[bold]no[/bold] 2*3*4 ** `" in content.plain
    assert "• bold and code" in content.plain and "Head\n" in content.plain
    assert {"bold", "italic"} <= {str(span.style) for span in content.spans}


def test_sparks() -> None:
    assert spark([1, 2, 4, 8], 10) == "▂▃▅█" and spark([1] * 100, 10) == "█" * 10 and spark([0, 0], 4) == "▁▁"


def test_kept_rows_survive_damage() -> None:
    rows: list[Any] = [{"role": "user", "parts": [["text", "a\x1b[31mb"]]}, {"role": "robot", "parts": [["text", "x"]]},
                       {"role": "assistant", "parts": [["text", "c"]], "stats": 5}, {"role": "user"}]
    conversation = Conversation.of(rows)
    assert [(t.role, t.text) for t in conversation.turns] == [("user", "ab"), ("assistant", "c")]
    assert Conversation.of(conversation.rows()).rows() == conversation.rows()


def test_export_is_what_custom_data_reads(tmp_path: Any) -> None:
    tool = [{"type": "python", "text": "1+1"}, {"type": "text", "text": "two"}]
    line = export_line([{"role": "user", "content": "q"}, {"role": "assistant", "content": tool},
                        {"role": "user", "content": "open"}], "Be brief.")
    assert json.loads(line) == [{"role": "user", "content": "Be brief.\n\nq"}, {"role": "assistant", "content": "two"}]
    (tmp_path / "chat.jsonl").write_text(line * 2)
    assert read_conversations(tmp_path / "chat.jsonl") == [json.loads(line)] * 2


async def test_tokens_are_counted_by_the_models_process(drive: Any, trained: Any) -> None:
    async with drive() as driver:
        await driver.press("5")
        await driver.sees("temp 0.6")
        await burst(driver, "/tokens")
        await driver.sees("nothing to count yet")
        await burst(driver, "/tokens one two three")
        await driver.sees("3 tokens, 13 characters; the context holds 256")


async def test_a_slash_shows_what_can_follow(drive: Any, trained: Any) -> None:
    async with drive((140, 36)) as driver:
        await driver.press("5")
        await driver.sees("is ready to talk")
        await driver.write("/s")
        await driver.sees("/system  /seed  /save")
        await driver.write("eed 3")
        await driver.sees("/seed [N] · the same seed")
        await driver.press("enter")
        await driver.sees("─ seed: 3 ─")
        await driver.write("x")
        await driver.sees("enter sends")


def test_commands_say_what_would_do() -> None:
    taste = Taste.of(ChatSettings())
    for line, said in (("/topk x", "whole number from 0 to 1,000,000"), ("/temp 9", "from 0 to 5; it is"),
                       ("/temp nan", "from 0 to 5"), ("/sead 3", "did you mean seed"), ("/zzz", "/help lists them")):
        with pytest.raises(CommandProblem, match=said):
            tuned(taste, parse(line))
    changed, told = tuned(taste, parse("/topk 0"))
    assert changed.top_k == 0 and told == "top-k: 0" and "top-k off" in changed.words()


def test_hints() -> None:
    assert hint("hello") == hint("//x") == "" and hint("/zz").startswith("no command")
    assert hint("/new") == "/new · begin another chat" and hint("/mod") == "/model"
