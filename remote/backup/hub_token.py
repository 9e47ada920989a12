"""Where the token for the Hub comes from when nobody hands one over: the environment, or the Hub tools' own login.

It is read when it is needed, goes into a header and nowhere else: no command line, no log, no file of ours.
"""

from __future__ import annotations

import os
from pathlib import Path

VARIABLES = ("HF_TOKEN", "HUGGINGFACE_TOKEN", "HUGGING_FACE_HUB_TOKEN")


def find_token() -> str | None:
    """The first token there is, or None."""
    for name in VARIABLES:
        if value := os.environ.get(name, "").strip():
            return value
    return _from_login()


def _from_login() -> str | None:
    """`hf auth login` leaves it in $HF_HOME/token."""
    home = Path(os.environ.get("HF_HOME") or Path.home() / ".cache" / "huggingface").expanduser()
    try:
        return (home / "token").read_text().strip() or None
    except (OSError, UnicodeDecodeError):
        return None
