"""The way in: without a verb the screen opens at once, and nothing that only verbs need is imported for it."""

from __future__ import annotations

import gc
import io
import sys


def main() -> None:
    """The `llmconsole` script."""
    words = sys.argv[1:]
    if words in ([], ["--read-only"], ["--demo"]) and sys.stdin.isatty() and sys.stdout.isatty():
        try:
            sys.exit(open_screen(read_only="--read-only" in words, demo="--demo" in words))
        except Exception as error:  # noqa: BLE001 - the process ends here
            from console.cli.main import explain

            sys.exit(explain(error))
    from console.cli.main import main as run_verb

    run_verb(words)


def open_screen(read_only: bool, demo: bool = False) -> int:
    """Run the app until the person leaves; the exit code. A `demo` rents from a pretended provider.

    Raises UsageProblem where there is no terminal.
    """
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        from console.errors import UsageProblem

        raise UsageProblem("the screen needs a terminal, and this is none", "llmconsole --help: what works without")
    for stream in (sys.__stdout__, sys.__stderr__):  # a locale without it would show boxes and curves as \u2502
        if isinstance(stream, io.TextIOWrapper) and stream.encoding.lower() != "utf-8":
            stream.reconfigure(encoding="utf-8")
    gc.disable()  # nothing becomes garbage while it starts; the app switches it on again after its first frame
    if demo:
        from console.demo import enter

        enter()
    from console.app import main as run_app

    return run_app(read_only=read_only, demo=demo)
