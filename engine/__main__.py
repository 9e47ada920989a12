"""`python -m engine STAGE --name=value ...` runs one stage in this process; `run` drives a recipe, `chat` talks.

Here what a stage raises becomes an exit code and words for a person. It refuses to know what any stage does, and it
imports no tensor library itself: `--help` and a mistyped flag answer at once.
"""

from __future__ import annotations

import importlib
import os
import sys
import traceback
from collections.abc import Sequence
from typing import Any

from engine import stage as stages
from engine.config import ConfigError, Option, from_argv, nearest, options
from engine.context import EXIT_STOPPED, StageContext, StageError, Stopped, from_environment, obey_sigterm
from engine.rundir import DISK_ADVICE, disk_full

EXIT_FAILED, EXIT_BAD_SETTINGS = 1, 2

_COMMANDS = {
    "run": ("engine.pipeline:main", "run the stages of a recipe, each in a process of its own"),
    "export": ("engine.interchange.command:export_main", "write a model in transformers' format"),
    "import": ("engine.interchange.command:import_main", "make a checkpoint of a model in transformers' format"),
    "fetch": ("engine.tasks.fetch:main", "get the data of tasks and evaluations ahead of time; alone: list them"),
    "chat": ("engine.inference.chat_worker:main", "load a model and answer over JSON lines on stdin and stdout"),
    "serve": ("engine.serving.server:main", "answer over HTTP: a web page, nanochat's API and OpenAI's"),
}


def main(argv: Sequence[str] | None = None) -> int:
    """The exit code: 0 done, 1 failed, 2 bad settings, 75 stopped on request and resumable."""
    # Read by OpenMP when torch loads it: idle threads sleep instead of spinning. Free on a quiet machine, and on a busy
    # one (a console, a browser) several times faster, since a spinning thread steals the core of the one it waits for.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    # Read by torch too: GPU memory in segments that grow, so that little of it is lost between blocks.
    os.environ.setdefault("PYTORCH_ALLOC_CONF", "expandable_segments:True")
    words = list(sys.argv[1:] if argv is None else argv)
    if not words or words[0] in ("-h", "--help"):
        print(usage())
        return 0
    name, rest = words[0], words[1:]
    try:
        if name in _COMMANDS:
            return _command(name, rest)
        return run_stage(_find(name), rest)
    except ConfigError as error:
        print(f"python -m engine {name}: {error}", file=sys.stderr)
        return EXIT_BAD_SETTINGS


def _command(name: str, argv: list[str]) -> int:
    module, _, function = _COMMANDS[name][0].partition(":")
    return int(getattr(importlib.import_module(module), function)(argv) or 0)


def _find(name: str) -> stages.StageSpec:
    key = name.replace("-", "_")
    if key not in stages.STAGES:
        raise ConfigError(f"unknown stage or command {name!r}{nearest(key, [*stages.STAGES, *_COMMANDS])}")
    return stages.find(key)


def run_stage(spec: stages.StageSpec, argv: Sequence[str]) -> int:
    """Run one stage here. Raises ConfigError when its settings cannot be used; every other end is an exit code."""
    if any(word in ("-h", "--help") for word in argv):
        print(stage_usage(spec))
        return 0
    config: Any = from_argv(spec.config, argv)
    context = from_environment(spec.name, getattr(config, "run", None))
    obey_sigterm(context)
    try:
        spec.load()(config, context)
    except Stopped:
        return EXIT_STOPPED
    except ConfigError:
        raise
    except StageError as error:
        return _failed(context, error.code, str(error), error.next)
    except Exception as error:  # noqa: BLE001 - the process ends here: say everything, in the log and in the events
        if disk_full(error):
            return _failed(context, "disk", f"the disk is full: {error}", DISK_ADVICE)
        traceback.print_exc()
        return _failed(context, "crash", f"{type(error).__name__}: {error}", "the log has the traceback")
    finally:
        sys.stdout.flush()
    return 0


def _failed(context: StageContext, code: str, text: str, next: str) -> int:
    print(f"{context.stage}: {text}" + (f"\n{next}" if next else ""), file=sys.stderr, flush=True)
    try:
        context.events.alert("error", code, text, next)
    except OSError as error:  # a full disk: it is said above
        print(f"this could not be written into the run's events: {error}", file=sys.stderr, flush=True)
    return EXIT_FAILED


def usage() -> str:
    """What can follow `python -m engine`."""
    rows = [(name, summary) for name, (_, summary) in _COMMANDS.items()]
    rows += [(spec.name, spec.summary) for spec in stages.STAGES.values()]
    listing = "\n".join(f"  {name:<12}{summary}" for name, summary in rows)
    return f"usage: python -m engine NAME [--setting=value ...]\n       python -m engine NAME --help\n\n{listing}"


def stage_usage(spec: stages.StageSpec) -> str:
    """Every setting of one stage with its default."""
    listing = "\n".join(map(_option_line, options(spec.config).values())) or "  no settings"
    return f"usage: python -m engine {spec.name} [--setting=value ...]\n\n{spec.summary}\n\n{listing}"


def _option_line(option: Option) -> str:
    choices = f" ({', '.join(option.choices)})" if option.choices else ""
    default = "none" if option.default is None else str(option.default).lower()
    names = [option.flag, f"-{option.short}" if option.short else "", option.also and f"--{option.also}"]
    flag = ", ".join(filter(None, names)).replace("_", "-")
    return f"  {flag:<28}{option.help}{choices} [{default}]"


if __name__ == "__main__":
    sys.exit(main())
