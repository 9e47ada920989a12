"""`chat`: one answer or a conversation, from a model in a process of its own. Tokens go to stdout, figures to stderr."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import click

from console.cli_output import emit_json, json_option, note
from console.errors import ConsoleError, NotFound, UsageProblem
from console.exit_codes import Exit
from console.text import clean

if TYPE_CHECKING:
    from engine.catalog import ModelInfo


@click.command()
@click.argument("prompt", nargs=-1)
@click.option("--model", "-m", "wanted", help="A model from `model list`, or part of its name.  [default: the newest run's "
              "most trained]")
@click.option("--prompt", "-p", "prompt_option", help="The prompt, as nanochat's chat has it; the same as the argument.")
@click.option("--temperature", "-t", type=float, help="0 takes the likeliest token.")
@click.option("--top-k", "-k", type=int, help="Sample among this many likeliest tokens.")
@click.option("--top-p", type=float, default=1.0, show_default=True, help="Sample among the likeliest that sum to this.")
@click.option("--seed", type=int, help="The same seed gives the same answer.")
@click.option("--max-tokens", type=int, help="Longest answer in tokens.")
@click.option("--system", help="Put before the first message.")
@click.option("--device", default="auto", show_default=True, type=click.Choice(["auto", "cpu", "cuda", "mps"]))
@json_option
def chat(prompt: tuple[str, ...], wanted: str | None, prompt_option: str | None, as_json: bool, device: str,
         **sampling: Any) -> int:
    """Ask a trained model. PROMPT `-` reads stdin; without a prompt on a terminal a conversation begins."""
    if prompt and prompt_option:
        raise UsageProblem("the prompt was given twice, as an argument and with -p", "give it once")
    text = " ".join(prompt) or prompt_option
    interactive = text is None and sys.stdin.isatty() and not as_json
    if text == "-" or (text is None and not interactive):
        text = sys.stdin.read().strip()
    if not interactive and not text:
        raise UsageProblem("there is no prompt", 'llmconsole chat "Why is the sky blue?"')
    options = _options(sampling)
    system = options.pop("system")
    model = _model(wanted)
    with Worker() as worker:
        facts = worker.load(model, device)
        note(f"{model.ref}: {facts.get('n_params', 0):,} parameters, {facts.get('device')} {facts.get('dtype')}, loaded in "
             f"{facts.get('seconds', 0):.1f} s")
        conversation = Conversation(worker, options, system)
        if interactive:
            return _talk(conversation)
        return _answer_once(conversation, str(text), model.ref, as_json)


def _options(given: dict[str, Any]) -> dict[str, Any]:
    """Sampling as the flags say, else as config.toml says."""
    from console.paths import Home, home
    from console.settings import load

    defaults = load(Home(home()).config).chat
    found = {name: getattr(defaults, name) if value is None and hasattr(defaults, name) else value for name, value in given.items()}
    return found


def _model(wanted: str | None) -> ModelInfo:
    from engine.catalog import default_model, find, list_models
    from engine.config import ConfigError
    from engine.rundir import base_dir

    models = list_models(base_dir())
    try:
        model = find(models, wanted) if wanted else default_model(models)
    except ConfigError as error:
        raise NotFound(str(error), "llmconsole model list shows all") from None
    if model is None:
        raise NotFound(f"there is no trained model below {base_dir()} yet", "llmconsole run start tiny --wait makes one in a few minutes")
    if model.problem:
        raise ConsoleError(f"{model.ref} cannot be used: {model.problem}", "llmconsole model list shows the others")
    return model


class Worker:
    """The chat process: JSON lines in, JSON lines out. Ends with its stdin."""

    def __init__(self, argv: list[str] | None = None) -> None:
        self._process = subprocess.Popen(argv or [sys.executable, "-m", "engine", "chat", "--json"], stdin=subprocess.PIPE,
                                         stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True)
        import threading

        self._last_words: list[str] = []
        self._drain = threading.Thread(target=self._read_stderr, daemon=True)
        self._drain.start()

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *exception: object) -> None:
        if self._process.stdin and not self._process.stdin.closed:
            self._process.stdin.close()
        try:
            self._process.wait(timeout=2)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _read_stderr(self) -> None:
        assert self._process.stderr
        for raw in self._process.stderr:
            self._last_words = [*self._last_words[-19:], raw.decode("utf-8", "replace").rstrip("\n")]

    def send(self, **message: Any) -> None:
        assert self._process.stdin
        try:
            self._process.stdin.write(json.dumps(message).encode() + b"\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            self._died()

    def events(self) -> Iterator[dict[str, Any]]:
        """What the process says. Raises ConsoleError when it ends, or says that something is wrong."""
        assert self._process.stdout
        for raw in self._process.stdout:
            event = json.loads(raw)
            if event.get("event") == "error":
                raise ConsoleError(clean(str(event.get("message", "the model's process reported an error"))),
                                   clean(str(event.get("next") or "")))
            yield event
        self._died()

    def _died(self) -> None:
        self._process.wait()
        self._drain.join(timeout=1)
        words = " | ".join(line for line in self._last_words if line.strip())
        raise ConsoleError(f"the model's process ended unexpectedly (exit {self._process.returncode}): {words[-600:]}",
                           "llmconsole doctor")

    def load(self, model: ModelInfo, device: str) -> dict[str, Any]:
        """Load a model and return what the process says of it."""
        self.send(op="load", path=str(model.path), step=model.step, tokenizer=str(model.tokenizer_dir), device=device, dtype="auto")
        for event in self.events():
            if event.get("event") == "loaded":
                return dict(event["model"])
        raise AssertionError("events() ends only by raising")


class Conversation:
    """Turns so far, and how to ask for the next one."""

    def __init__(self, worker: Worker, options: dict[str, Any], system: str | None) -> None:
        self._worker, self._options = worker, {k: v for k, v in options.items() if v is not None or k == "seed"}
        self.messages: list[dict[str, Any]] = [{"role": "system", "content": system}] if system else []
        self._turn = 0

    def ask(self, text: str, on_event: Callable[[dict[str, Any]], None]) -> tuple[str, dict[str, Any]]:
        """The answer's text and the closing event. Ctrl-C stops the answer, not the conversation."""
        self._turn += 1
        turn = f"g{self._turn}"
        self.messages.append({"role": "user", "content": text})
        self._worker.send(op="generate", id=turn, messages=self.messages, **self._options)
        parts: list[dict[str, str]] = []
        while True:
            try:
                for event in self._worker.events():
                    on_event(event)
                    if event.get("event") == "done":
                        self.messages.append({"role": "assistant", "content": parts or ""})
                        return "".join(part["text"] for part in parts if part["type"] == "text"), event
                    _collect(parts, event)
            except KeyboardInterrupt:
                self._worker.send(op="stop", id=turn)


def _collect(parts: list[dict[str, str]], event: dict[str, Any]) -> None:
    """Add a token or a tool use to an answer's parts, as the conversation format has them."""
    kind = event.get("event")
    if kind == "tool":
        parts.append({"type": "python" if event["phase"] == "input" else "python_output", "text": event["text"]})
    elif kind == "token" and parts and parts[-1]["type"] == "text":
        parts[-1]["text"] += event["text"]
    elif kind == "token":
        parts.append({"type": "text", "text": event["text"]})


def _stream(event: dict[str, Any]) -> None:
    """Answer text to stdout as it comes; tool use as its own lines on stderr."""
    if event.get("event") == "token":
        sys.stdout.write(clean(event["text"]))
        sys.stdout.flush()
    elif event.get("event") == "tool":
        mark = "python>" if event.get("phase") == "input" else "result>"
        click.echo(f"[{mark} {clean(str(event.get('text', '')))}]", err=True)


def figures(done: dict[str, Any]) -> str:
    """The closing line: time to first token, speed, tokens, why it ended."""
    stats = done.get("stats", {})
    ending = {"stop": "", "length": ", cut at the longest allowed", "cancelled": ", stopped", "context": ", context full"}
    dropped = f", {stats['dropped_turns']} old turns left out" if stats.get("dropped_turns") else ""
    return (f"{stats.get('ttft_ms', 0):.0f} ms to the first token · {stats.get('tok_per_s', 0):.1f} tok/s · "
            f"{stats.get('completion_tokens', 0)} tokens{ending.get(done.get('finish', ''), '')}{dropped}")


def _answer_once(conversation: Conversation, text: str, ref: str, as_json: bool) -> int:
    tools: list[dict[str, Any]] = []

    def collect(event: dict[str, Any]) -> None:
        if event.get("event") == "tool":
            tools.append({"phase": event.get("phase"), "text": event.get("text")})

    answer, done = conversation.ask(text, collect if as_json else _stream)
    if as_json:
        emit_json({"model": ref, "prompt": text, "text": answer, "finish": done.get("finish"), "tools": tools,
                   "stats": done.get("stats", {})})
    else:
        click.echo()
        note(figures(done))
    return Exit.INTERRUPTED if done.get("finish") == "cancelled" else Exit.OK


def _talk(conversation: Conversation) -> int:
    """Turns until end of input; ctrl-c stops an answer, ctrl-d leaves."""
    note("ctrl-c stops an answer, ctrl-d leaves")
    while True:
        try:
            text = input("> ").strip()
        except (EOFError, KeyboardInterrupt):
            click.echo(err=True)
            return Exit.OK
        if text:
            _, done = conversation.ask(text, _stream)
            click.echo()
            note(figures(done))
