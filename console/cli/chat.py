"""`chat`: one answer or a conversation, from a model in a process of its own. Text to stdout, figures to stderr."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

import click

from console.chat.conversation import Conversation, Turn
from console.chat.launch import launcher
from console.chat.model_choice import choose, model_options, models_there, pick
from console.chat.pipe import ChatPipe
from console.cli.output import emit_json, json_option, note
from console.errors import ConsoleError, UsageProblem
from console.exit_codes import Exit
from console.machines.targets import LOCAL
from console.text import clean
from engine.settings.choices import BACKENDS, DEVICES, STORED

_FINISH = {"length": ", cut at the longest allowed", "cancelled": ", stopped", "context": ", the context is full"}


@click.command()
@click.argument("prompt", nargs=-1)
@model_options
@click.option("--prompt", "-p", "given", help="The prompt, as nanochat's chat takes it.")
@click.option("--temperature", "-t", type=click.FloatRange(0, 5), help="0 takes the likeliest token.")
@click.option("--top-k", "-k", type=click.IntRange(0), help="Sample among this many likeliest tokens; 0: among all.")
@click.option("--top-p", type=click.FloatRange(0, 1), help="Sample among the likeliest tokens that make up this share.")
@click.option("--seed", type=click.IntRange(0, 2**63 - 1), help="The same seed gives the same answer.")
@click.option("--max-tokens", type=click.IntRange(1), help="Longest answer in tokens.")
@click.option("--system", help="Put before the first message.")
@click.option("--device", "--device-type", default="auto", show_default=True, type=click.Choice(DEVICES))
@click.option("--dtype", "-d", default="auto", show_default=True, type=click.Choice(STORED), help="Precision.")
@click.option("--backend", default="auto", show_default=True, type=click.Choice(BACKENDS),
              help="What computes on a CPU: our own step, or PyTorch.")
@click.option("--target", default=LOCAL, show_default=True, help="The machine that the model is on.")
@json_option
def chat(prompt: tuple[str, ...], wanted: str | None, source: str | None, tag: str | None, step: int | None,
         given: str | None, device: str, dtype: str, backend: str, as_json: bool,
         target: str, **flags: Any) -> int:
    """Ask a trained model. PROMPT `-` reads stdin; without a prompt, on a terminal, a conversation begins."""
    text = _prompt(" ".join(prompt), given, as_json)
    options = _options(flags)
    asked = (wanted, source, tag, step)
    here = choose(*asked) if target == LOCAL else None
    with ChatPipe(launcher(target)) as pipe:
        model = here or pick(models_there(pipe), *asked)
        pipe.send(op="load", path=str(model.path), step=model.step, tokenizer=str(model.tokenizer_dir), device=device,
                  dtype=dtype, backend=backend, name=model.ref)
        loaded = pipe.wait_for("loaded")["model"]
        by = f" by {loaded['backend']}" if loaded.get("backend") else ""
        note(f"{model.ref}: {loaded['n_params']:,} parameters on {loaded['device']} in {loaded['dtype']}{by}, "
             f"loaded in {loaded['seconds']:.1f} s")
        talk = Talk(pipe, options)
        return _converse(talk) if text is None else _once(talk, text, model.ref, as_json)


def _prompt(argument: str, option: str | None, as_json: bool) -> str | None:
    """The one prompt, from the argument, -p or stdin; None for a conversation."""
    if argument and option:
        raise UsageProblem("the prompt was given twice, as an argument and with -p", "give it once")
    text = argument or option or ""
    if not text and sys.stdin.isatty() and not as_json:
        return None
    if text in ("", "-"):
        text = sys.stdin.read()
    if not text.strip():
        raise UsageProblem("there is no prompt", 'llmconsole chat "Why is the sky blue?"')
    return text.strip()


def _options(flags: Mapping[str, Any]) -> dict[str, Any]:
    """Sampling as the flags say, else as config.toml says; what neither says is left to the chat process."""
    from console.paths import Home, home
    from console.settings import load

    taste = load(Home(home()).config).chat
    chosen = {name: getattr(taste, name, None) if value is None else value for name, value in flags.items()}
    return {name: value for name, value in chosen.items() if value is not None}


class Talk:
    """A conversation over a pipe. Ctrl-C stops the answer under way, not the conversation."""

    def __init__(self, pipe: ChatPipe, options: dict[str, Any]) -> None:
        system = options.pop("system", "")
        self._pipe, self._options = pipe, options
        self._opening = [{"role": "system", "content": system}] if system else []
        self._turns = Conversation()

    def clear(self) -> None:
        """Forget what was said."""
        count, self._turns = self._turns.count, Conversation()
        self._turns.count = count  # numbers of answers are never used twice

    def ask(self, text: str, show: Callable[[Mapping[str, Any]], None]) -> Turn:
        """The complete answer; `show` gets every event on the way."""
        turn = self._turns.ask(text)
        self._pipe.send(op="generate", id=turn.id, messages=[*self._opening, *self._turns.messages()], **self._options)
        while not turn.complete:
            self._listen(turn, show)
        return turn

    def _listen(self, turn: Turn, show: Callable[[Mapping[str, Any]], None]) -> None:
        try:
            for event in self._pipe.events():
                self._turns.hear(event)
                show(event)
                if turn.complete:
                    return
        except KeyboardInterrupt:
            self._pipe.send(op="stop", id=turn.id)


def _stream(event: Mapping[str, Any]) -> None:
    """Answer text to stdout as it comes; tool use as lines of its own on stderr."""
    if event.get("event") == "token":
        click.echo(clean(str(event["text"])), nl=False)
        sys.stdout.flush()
    elif event.get("event") == "tool":
        mark = "python" if event.get("phase") == "input" else "result"
        note(f"[{mark}: {event.get('text', '')}]")


def _once(talk: Talk, text: str, ref: str, as_json: bool) -> int:
    turn = talk.ask(text, (lambda event: None) if as_json else _stream)
    if turn.trouble and turn.trouble.code == "bad_request":
        raise UsageProblem(turn.trouble.text, "llmconsole chat --help")
    if turn.trouble:
        raise ConsoleError(turn.trouble.text, turn.trouble.next)
    if as_json:
        tools = [{"phase": part.kind, "text": part.text} for part in turn.parts if part.kind != "text"]
        emit_json({"model": ref, "prompt": text, "text": turn.text, "finish": turn.finish, "tools": tools,
                   "stats": turn.stats})
    else:
        click.echo()
        note(figures(turn))
    return Exit.INTERRUPTED if turn.finish == "cancelled" else Exit.OK


def figures(turn: Turn) -> str:
    """Time to the first token, speed, length, and why it ended when that was not by itself."""
    stats = turn.stats
    dropped = f", {stats['dropped_turns']} old messages left out" if stats.get("dropped_turns") else ""
    return (f"{stats.get('ttft_ms', 0):.0f} ms to the first token · {stats.get('tok_per_s', 0):.1f} tok/s · "
            f"{stats.get('completion_tokens', 0)} tokens{_FINISH.get(turn.finish, '')}{dropped}")


def _converse(talk: Talk) -> int:
    """Turns until the end of input. What goes wrong with one turn is said, and the conversation goes on."""
    with suppress(ImportError):
        import readline  # noqa: F401 - gives `input` arrow keys and what was said before
    note("ctrl-c stops an answer, clear forgets, ctrl-d leaves")
    while True:
        try:
            text = input("> ").strip()
        except (EOFError, KeyboardInterrupt):
            click.echo(err=True)
            return Exit.OK
        if text in ("quit", "exit"):
            return Exit.OK
        if text == "clear":
            talk.clear()
            note("forgotten; a new conversation")
        elif text:
            turn = talk.ask(text, _stream)
            click.echo()
            note(f"{turn.trouble.text}; {turn.trouble.next}" if turn.trouble else figures(turn))
