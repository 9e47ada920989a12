"""Where the console keeps its own state: $LLMCONSOLE_HOME, else the platform's data folder.

Artifacts (runs, checkpoints) live elsewhere: `engine.rundir`. Importing or calling anything here creates nothing.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path


def home() -> Path:
    """The console's folder, which may not exist yet."""
    chosen = os.environ.get("LLMCONSOLE_HOME")
    if chosen:
        return Path(chosen).expanduser().absolute()
    import platformdirs  # only needed without the variable, and it costs start time

    return Path(platformdirs.user_data_path("llmconsole", appauthor=False))


@dataclass(frozen=True)
class Home:
    """The files inside the console's folder."""

    path: Path

    @property
    def config(self) -> Path:
        return self.path / "config.toml"

    @property
    def keymap(self) -> Path:
        """A person's own keys."""
        return self.path / "keys.toml"

    @property
    def runlog(self) -> Path:
        return self.path / "runlog.db"

    @property
    def ledger(self) -> Path:
        return self.path / "ledger.db"

    @property
    def lock(self) -> Path:
        return self.path / "writer.lock"

    @property
    def targets(self) -> Path:
        return self.path / "targets.json"

    @property
    def mirror(self) -> Path:
        """Copies of far runs' events and logs, by run id."""
        return self.path / "mirror"

    @property
    def known_hosts(self) -> Path:
        """The key that each other machine must show, by target; OpenSSH's format, our own file."""
        return self.path / "known_hosts"

    @property
    def keys(self) -> Path:
        """Private keys of rented pods, one per rental, 0600 in a 0700 folder."""
        return self.path / "keys"

    @property
    def backups(self) -> Path:
        """Checkpoints that were copied to this machine before a rented one ends."""
        return self.path / "backups"

    @property
    def recipes(self) -> Path:
        return self.path / "recipes"

    @property
    def chats(self) -> Path:
        return self.path / "chats"
