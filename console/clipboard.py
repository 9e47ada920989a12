"""Copying out of a terminal: a native tool if there is one, else the terminal's own way, else a file; it says which.

The terminal's way (OSC 52) silently does nothing in tmux's default mode, so tmux is asked first.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import Protocol

_TOOLS = (("wl-copy",), ("xclip", "-selection", "clipboard"), ("xsel", "-ib"), ("pbcopy",))
_WAIT_S = 1.0


class Terminal(Protocol):
    def copy_to_clipboard(self, text: str) -> None: ...


def put(terminal: Terminal, text: str, what: str, home: Path) -> str:
    """Copy, and return a sentence saying where it went."""
    for tool in _TOOLS:
        if _has_display(tool[0]) and shutil.which(tool[0]) and _run(list(tool), text):
            return f"{what} copied ({tool[0]})"
    if not os.environ.get("TMUX"):
        terminal.copy_to_clipboard(text)
        return f"{what} sent to the terminal's clipboard"
    if shutil.which("tmux") and _run(["tmux", "load-buffer", "-w", "-"], text):
        return f"{what} copied into tmux's buffer (paste with prefix ])"
    path = home / "copied.txt"
    path.write_text(text, encoding="utf-8")
    return f"{what} written to {path}: no clipboard can be reached from here"


def _has_display(tool: str) -> bool:
    if tool == "wl-copy":
        return bool(os.environ.get("WAYLAND_DISPLAY"))
    return tool == "pbcopy" or bool(os.environ.get("DISPLAY"))


def _run(argv: list[str], text: str) -> bool:
    try:
        done = subprocess.run(argv, input=text.encode(), capture_output=True, timeout=_WAIT_S, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0
