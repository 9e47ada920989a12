"""When the console itself breaks: a dump without local variables and secrets, in a file that only its owner reads.

A framework's own dump prints the variables of every frame, keys and tokens among them; this one prints none.
"""

from __future__ import annotations

import os
import re
import sys
import threading
import time
import traceback
from pathlib import Path
from types import TracebackType

from console.settings import SECRET_NAMES
from console.text import clean
from remote.secret_text import redactor

# Shorter than any real one: in a dump of our own a false alarm costs nothing.
_LOOKS_LIKE_ONE = re.compile(r"(?:hf_|rpa_|sk-)[A-Za-z0-9_-]{8,}|(?<=[Bb]earer )[^\s\"']{6,}")


def redact(text: str) -> str:
    """`text` without the values of secrets that we know or that look like one."""
    for name in SECRET_NAMES:
        value = os.environ.get(name, "")
        if len(value) >= 6:
            text = text.replace(value, f"[{name}]")
    return _LOOKS_LIKE_ONE.sub("[secret]", redactor(text))


def write_dump(home: Path, error: BaseException) -> Path:
    """Write what happened to a new 0600 file below `home`/crash; its path. Raises OSError."""
    folder = home / "crash"
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    path = folder / f"{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}.txt"
    lines = traceback.format_exception(type(error), error, error.__traceback__)
    text = f"llmconsole {sys.platform} python {sys.version.split()[0]}\n" + "".join(lines)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "w", encoding="utf-8") as f:
        f.write(clean(redact(text)))
    return path


def kind_sentence(home: Path, error: BaseException) -> str:
    """What the person reads instead of a traceback; the dump is written on the way."""
    what = redact(clean(f"{type(error).__name__}: {error}"))[:300]
    try:
        where = f"The details are in {write_dump(home, error)} (no secrets in it)."
    except OSError as refused:
        where = f"The details could not be written: {refused}."
    return (f"llmconsole had to close: {what}\n{where}\n"
            "Runs are not affected: work keeps running, and llmconsole attaches to it again.")


def guard_threads(home: Path) -> None:
    """Exceptions in background threads go to a dump, not over the screen."""

    def hook(args: threading.ExceptHookArgs) -> None:
        if args.exc_value is not None:
            kind_sentence(home, args.exc_value)

    def at_the_end(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        print(kind_sentence(home, error), file=sys.stderr)

    threading.excepthook = hook
    sys.excepthook = at_the_end
