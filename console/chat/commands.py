"""Slash commands of the chat: what there is, what a line means, how it changes the way answers are sampled.

Pure: a line in, a command or a sentence out. What needs a screen, a file or a process is done by whoever asked.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from console.settings import ChatSettings
from engine.config import nearest


class CommandProblem(ValueError):
    """The line is no command, or its argument cannot be used; the message says what would do."""


@dataclass(frozen=True)
class Taste:
    """How the next answers are sampled."""

    temperature: float
    top_k: int
    max_tokens: int
    system: str
    top_p: float = 1.0
    seed: int | None = None

    @classmethod
    def of(cls, settings: ChatSettings) -> Taste:
        return cls(settings.temperature, settings.top_k, settings.max_tokens, settings.system)

    def words(self) -> str:
        """For a title: temp 0.8 · top-k 50 · seed 7."""
        said = [f"temp {self.temperature:g}", f"top-k {self.top_k or 'off'}"]
        said += [f"top-p {self.top_p:g}"] if self.top_p < 1 else []
        said += [f"seed {self.seed}"] if self.seed is not None else []
        return " · ".join(said)


@dataclass(frozen=True)
class Command:
    name: str
    argument: str


# name -> (what may follow, what it does)
COMMANDS: dict[str, tuple[str, str]] = {
    "model": ("[NAME]", "talk to another model; without a name: choose"),
    "compare": ("[NAME]", "a second model answers, too; /compare off ends that"),
    "system": ("[TEXT]", "put this before the first message; without a text: nothing"),
    "temp": ("V", "0 takes the likeliest token, up to 5"),
    "topk": ("N", "sample among this many likeliest tokens; 0: among all"),
    "topp": ("V", "sample among the likeliest tokens that make up this share"),
    "seed": ("[N]", "the same seed gives the same answer; without a number: any"),
    "max": ("N", "longest answer in tokens"),
    "retry": ("", "answer the newest question again"),
    "new": ("", "begin another chat"),
    "save": ("[TITLE]", "keep this chat; what follows is kept as well"),
    "open": ("", "go back to a kept chat"),
    "forget": ("", "delete the kept copy of this chat"),
    "export": ("[FILE]", "write the chat as JSONL that custom-data training reads"),
    "tokens": ("[TEXT]", "how many tokens a text takes; without a text: this chat"),
    "page": ("", "these models in a browser; again: closes that page"),
    "help": ("", "this list"),
}
_ALIASES = {"temperature": "temp", "top_k": "topk", "top_p": "topp", "max_tokens": "max", "clear": "new",
            "again": "retry"}


def parse(line: str) -> Command | None:
    """The command in a line; None when it is a message. Raises CommandProblem for a name that is none."""
    if not line.startswith("/") or line.startswith("//"):
        return None
    name, _, argument = line[1:].partition(" ")
    key = _ALIASES.get(name.lower(), name.lower())
    if key not in COMMANDS:
        near = nearest(key, list(COMMANDS))
        raise CommandProblem(f"there is no /{name}" + (near if "did you mean" in near else "; /help lists them"))
    return Command(key, argument.strip())


def message_of(line: str) -> str:
    """What is sent: `//x` is a message that begins with a slash."""
    return line[1:] if line.startswith("//") else line


def tuned(taste: Taste, command: Command) -> tuple[Taste, str] | None:
    """The taste after a command that changes it, and what to say; None for other commands. Raises CommandProblem."""
    text = command.argument
    if command.name == "system":
        return replace(taste, system=text), f"system: {text}" if text else "no system text"
    if command.name == "seed" and not text:
        return replace(taste, seed=None), "seed: any"
    field, low, high, whole = _NUMBERS.get(command.name, ("", 0, 0, False))
    if not field:
        return None
    value: Any = _number(f"/{command.name}", text, low, high, whole, getattr(taste, field))
    return replace(taste, **{field: value}), f"{field.replace('_', '-')}: {value}"


_NUMBERS: dict[str, tuple[str, float, float, bool]] = {
    "temp": ("temperature", 0, 5, False), "topk": ("top_k", 0, 1_000_000, True), "topp": ("top_p", 0, 1, False),
    "seed": ("seed", 0, 2**63 - 1, True), "max": ("max_tokens", 1, 1_000_000, True),
}


def _number(name: str, text: str, low: float, high: float, whole: bool, now: object) -> float:
    try:
        value = int(text) if whole else float(text)
    except ValueError:
        value = float("nan")
    if not low <= value <= high:
        bounds = f"from {low:g} to {high:,.0f}" if high < 1e9 else f"of at least {low:g}"
        raise CommandProblem(f"{name} takes a {'whole ' if whole else ''}number {bounds}; it is {now}")
    return value


def hint(line: str) -> str:
    """What a line that begins with a slash could become: the commands that fit, or what the one it is takes."""
    if not line.startswith("/") or line.startswith("//") or "\n" in line:
        return ""
    name, blank, _ = line[1:].partition(" ")
    if blank or name in COMMANDS:
        usage, what = COMMANDS.get(_ALIASES.get(name, name), ("", "no command; /help lists them"))
        return f"/{name} {usage} · {what}".replace("  ", " ")
    fitting = [f"/{known}" for known in COMMANDS if known.startswith(name)]
    return "  ".join(fitting) or "no command; /help lists them"


def help_text() -> str:
    """Every command with what it does."""
    return "\n".join(f"/{name + ' ' + usage:<16} {what}" for name, (usage, what) in COMMANDS.items())
