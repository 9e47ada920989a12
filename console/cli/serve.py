"""`serve`: a model behind a web page and OpenAI's API. This process becomes the server, which alone imports tensors;
with --target it stays, and holds the way to the server on another machine."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NoReturn

import click

from console.chat.model_choice import choose, models_there, pick
from console.cli.output import line, note
from console.errors import UsageProblem
from console.machines.targets import LOCAL
from engine.config import to_argv
from engine.settings.choices import BACKENDS, DEVICES, SOURCES, STORED
from engine.settings.serving import Serve

if TYPE_CHECKING:
    from engine.catalog import ModelInfo
from remote.secret_text import child_environment


@click.command()
@click.option("--model", "-m", "wanted", multiple=True, help="Serve only this model; may be given several times.  "
              "[default: all, beginning with the most trained of the newest run]")
@click.option("--source", "-i", type=click.Choice(SOURCES), help="The newest model of this stage.")
@click.option("--model-tag", "-g", "tag", help="The model of this tag, such as d20.")
@click.option("--step", "-s", type=int, help="The checkpoint of this step.")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on; one that others can reach "
              "needs a token in LLMCONSOLE_SERVE_TOKEN or in --token-file.")
@click.option("--port", "-p", type=click.IntRange(0, 65535), default=8000, show_default=True, help="0: a free one.")
@click.option("--token-file", default="", help="A file with the token that only you can read.")
@click.option("--allow-host", default="", help="Further names of this server, joined by commas.")
@click.option("--device", "--device-type", default="auto", show_default=True, type=click.Choice(DEVICES))
@click.option("--dtype", "-d", default="auto", show_default=True, type=click.Choice(STORED))
@click.option("--backend", default="auto", show_default=True, type=click.Choice(BACKENDS),
              help="What computes on a CPU: our own step, or PyTorch.")
@click.option("--num-gpus", "-n", type=click.IntRange(1, 64), default=1, help="Copies of the model, one per GPU.")
@click.option("--rows", type=click.IntRange(1, 256), default=8, show_default=True, help="Answers written side by side.")
@click.option("--queue", type=click.IntRange(0, 10_000), default=32, show_default=True, help="Requests that may wait.")
@click.option("--keep", type=click.IntRange(1, 64), default=2, show_default=True, help="Models in memory at once.")
@click.option("--temperature", "-t", type=click.FloatRange(0, 2), default=0.8, show_default=True,
              help="Where a request does not say.")
@click.option("--top-k", "-k", type=click.IntRange(1, 200), default=50, show_default=True,
              help="Where a request does not say.")
@click.option("--max-tokens", type=click.IntRange(1, 4096), default=512, show_default=True,
              help="Longest answer where a request does not say.")
@click.option("--target", default=LOCAL, show_default=True, help="The machine that the models are on: the server runs "
              "there, its page and API are reached here.")
def serve(wanted: Sequence[str], source: str | None, tag: str | None, step: int | None, target: str,
          **flags: Any) -> None:
    """Serve trained models over HTTP until ctrl-c: GET / is a page to chat, /v1 speaks OpenAI's API."""
    if target == LOCAL:
        _become([sys.executable, "-m", "engine", "serve", *argv(wanted, lambda name: choose(name, source, tag, step),
                                                                 (source, tag, step), flags)])
    else:
        _serve_there(target, wanted, (source, tag, step), flags)


def argv(wanted: Sequence[str], named: Callable[[str | None], ModelInfo], asked: Sequence[object],
         flags: dict[str, Any]) -> list[str]:
    """The server's settings, the models by their whole names. `named` finds one; it raises NotFound, ConsoleError."""
    names: list[str | None] = [*wanted] or ([None] if any(value is not None for value in asked) else [])
    refs = [named(name).ref for name in names]
    if not refs:
        named(None)  # says what to do when there is no model at all
    return to_argv(Serve(model=",".join(refs), **flags))


def _serve_there(name: str, wanted: Sequence[str], asked: tuple[str | None, str | None, int | None],
                 flags: dict[str, Any]) -> None:
    """The server on another machine, bound to its loopback, and a port here that leads to it."""
    from console.chat.launch import launcher
    from console.chat.model_server import ModelServer
    from console.chat.pipe import ChatPipe
    from console.machines.hosts import Hosts

    if flags["host"] != "127.0.0.1" or flags["token_file"] or flags["allow_host"]:
        raise UsageProblem("with --target the server is reached on this machine's loopback alone, so --host, "
                           "--token-file and --allow-host mean nothing", "leave them out")
    hosts = Hosts()
    with ChatPipe(launcher(name, hosts)) as pipe:
        known = models_there(pipe)
    port = flags.pop("port")
    words = argv(wanted, lambda model: pick(known, model, *asked), asked, flags)
    server = ModelServer(hosts, name, words, port)
    try:
        server.start()
        line(f"{server.about}\n{server.url}  a page to chat; /v1 speaks OpenAI's API; computed on {name}")
        note("ctrl-c ends the server there, too")
        sys.stdout.flush()
        server.wait()
    except KeyboardInterrupt:
        note(f"ending the server on {name}")
    finally:
        server.close()
        hosts.close()


def _become(words: list[str]) -> NoReturn:
    """Replace this process, so that signals and the exit code are the server's own."""
    sys.stdout.flush()
    os.execve(words[0], words, child_environment())
