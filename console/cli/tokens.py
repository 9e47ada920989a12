"""`tokens`: how a model's tokenizer cuts a text or a conversation, token by token."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from console.cli.output import emit_json, json_option, note
from console.errors import ConsoleError, NotFound, UsageProblem

if TYPE_CHECKING:
    from engine.tokenizer.bpe import Tokenizer

_LARGEST = 10_000_000  # bytes of a file or of stdin
# Two shades in turn show where a token ends; green is what the assistant says and training learns from.
_SHADES = {None: ("cyan", "yellow"), 1: ("green", "bright_green"), 0: ("red", "bright_red")}


@dataclass(frozen=True)
class _Token:
    """`mask`: 1 where the assistant speaks, 0 elsewhere, None outside a conversation."""

    id: int
    text: str
    bytes: str
    special: bool
    mask: int | None


@click.command()
@click.argument("text")
@click.option("--model", "-m", "wanted", help="A model from `model list`, or part of its name.  "
              "[default: the most trained of the newest run]")
@json_option
def tokens(text: str, wanted: str | None, as_json: bool) -> None:
    """Show the tokens of TEXT with ids and bytes. TEXT is a text, `-` for stdin, or the name of a file.

    A JSON array of messages is shown in the chat format, green where the assistant speaks and training learns from.
    """
    given = _given(text)
    tokenizer, where = _tokenizer(wanted)
    shown = _tokens(tokenizer, given)
    if as_json:
        emit_json({"tokenizer": where, "vocab_size": tokenizer.get_vocab_size(), "count": len(shown), "tokens": shown})
        return
    click.echo("".join(click.style(_visible(t), fg=_SHADES[t.mask][i % 2], bold=t.special)
                       for i, t in enumerate(shown)))
    for t in shown:
        click.echo(f"{t.id:7}  {t.bytes:24}  {'' if t.mask is None else f'{t.mask}  '}"
                   + click.style(_visible(t, alone=True), fg=_SHADES[t.mask][0], bold=t.special))
    size = len(given.encode(errors="replace"))
    what = "token" if len(shown) == 1 else "tokens"
    note(f"{len(shown):,} {what}, {size:,} bytes, {size / max(len(shown), 1):.2f} bytes per token; {where}")


def _given(argument: str) -> str:
    """The text itself, or what stdin or the file of that name holds."""
    if argument == "-":
        data, name = sys.stdin.buffer.read(_LARGEST + 1), "stdin"
    elif "\0" not in argument and len(argument) < 1000 and Path(argument).is_file():
        with open(argument, "rb") as f:
            data, name = f.read(_LARGEST + 1), argument
    else:
        return argument
    if len(data) > _LARGEST:
        raise UsageProblem(f"{name} is larger than {_LARGEST:,} bytes", "give a part of it")
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise ConsoleError(f"{name} is not UTF-8: byte {error.start}", "") from None


def _tokenizer(wanted: str | None) -> tuple[Tokenizer, str]:
    """The tokenizer of a model and what to call it; without any model, that of the base directory."""
    from engine.catalog import default_model, find, list_models
    from engine.config import ConfigError
    from engine.rundir import base_dir
    from engine.tokenizer.bpe import Tokenizer
    from engine.tokenizer.store import TokenizerError

    models = list_models(base_dir())
    try:
        model = find(models, wanted) if wanted else default_model(models)
    except ConfigError as error:
        raise NotFound(str(error), "llmconsole model list shows all") from None
    folder = model.tokenizer_dir if model else base_dir() / "tokenizer"
    try:
        return Tokenizer.from_directory(folder), f"tokenizer of {model.ref}" if model else f"tokenizer in {folder}"
    except FileNotFoundError:
        raise NotFound(f"there is no tokenizer in {folder}",
                       "llmconsole run start tiny --wait makes one in a few minutes") from None
    except TokenizerError as error:
        raise ConsoleError(str(error), "llmconsole model list shows the others") from None


def _tokens(tokenizer: Tokenizer, given: str) -> list[_Token]:
    from engine.tokenizer.chat_format import ConversationError, render_conversation

    messages = _messages(given)
    mask: list[int | None]
    if messages is None:
        ids = tokenizer.encode(given)
        mask = [None] * len(ids)
    else:
        try:
            ids, said = render_conversation(tokenizer, messages, max_tokens=sys.maxsize)
        except ConversationError as error:
            raise UsageProblem(f"this is no conversation: {error}",
                               'it starts with {"role": "user", "content": ...}') from None
        mask = [*said]
    specials = {tokenizer.encode_special(name) for name in tokenizer.get_special_tokens()}
    return [_Token(i, tokenizer.id_to_token(i), tokenizer.decode_bytes([i]).hex(" "), i in specials, said)
            for i, said in zip(ids, mask, strict=True)]


def _messages(given: str) -> list[dict[str, Any]] | None:
    """The messages, if `given` is a JSON array of such."""
    if not given.lstrip().startswith("["):
        return None
    try:
        value = json.loads(given)
    except (ValueError, RecursionError):
        return None
    is_conversation = isinstance(value, list) and value and all(isinstance(m, dict) and "role" in m for m in value)
    return value if is_conversation else None


def _visible(token: _Token, alone: bool = False) -> str:
    """Harmless to a terminal. Part of a character is shown by its bytes; on a line of its own also blanks are seen."""
    if "\ufffd" in token.text:
        return f"<{token.bytes}>"
    if alone:
        return token.text if token.text.isprintable() and token.text.strip() == token.text else repr(token.text)
    return "".join(c if c.isprintable() or c == "\n" else repr(c)[1:-1] for c in token.text)
