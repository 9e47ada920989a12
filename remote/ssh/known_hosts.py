"""Which key each machine must show: our own file in OpenSSH's known_hosts format, so that plain `ssh` can use it too.

A key is pinned by name (the alias: a target's name or a pod's id), because rented addresses and ports are handed on to
strangers. Nothing is trusted by itself: an unknown key is refused with its fingerprint until somebody pins it, and a
changed one is refused until somebody forgets the old one. The user's ~/.ssh/known_hosts is neither read nor written.
"""

from __future__ import annotations

import base64
import binascii
import fcntl
import hashlib
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from remote.errors import HostKeyChanged, HostKeyUnknown


def fingerprint(line: str) -> str:
    """`SHA256:...` of "ssh-ed25519 AAAA...", as ssh-keygen -l prints it. Raises ValueError."""
    try:
        blob = base64.b64decode(line.split()[1], validate=True)
    except (IndexError, binascii.Error):
        raise ValueError("not a public key line") from None
    return "SHA256:" + base64.b64encode(hashlib.sha256(blob).digest()).decode().rstrip("=")


class KnownHosts:
    """One file of pins; whole or unchanged after every write, also with several programs at it."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def pinned(self, alias: str) -> list[str]:
        """The key lines ("type base64") pinned for this name."""
        return [key for name, key in self._rows() if name == alias]

    def check(self, alias: str, line: str) -> None:
        """Raises HostKeyUnknown or HostKeyChanged unless exactly this key is pinned for the name."""
        shown, known = " ".join(line.split()[:2]), self.pinned(alias)
        if shown in known:
            return
        if not known:
            raise HostKeyUnknown(f"{alias} shows the key {fingerprint(shown)}, which nobody has confirmed yet",
                                 fingerprint(shown), shown)
        raise HostKeyChanged(f"{alias} shows the key {fingerprint(shown)}, but {fingerprint(known[0])} is pinned: "
                             "another machine answers there, or it was set up anew; nothing was sent")

    def pin(self, alias: str, line: str) -> None:
        """From now on this name must show this key. Raises HostKeyChanged when it had another one."""
        key = " ".join(line.split()[:2])
        fingerprint(key)
        if not alias or any(letter.isspace() or letter in ",*?!#|" for letter in alias):
            raise ValueError(f"{alias!r} cannot be the name of a machine")
        with self._locked():
            if self.pinned(alias):
                self.check(alias, key)
                return
            self._write([*self._rows(), (alias, key)])

    def forget(self, alias: str) -> bool:
        """Drop every key of this name; whether there was one."""
        with self._locked():
            rows = self._rows()
            kept = [row for row in rows if row[0] != alias]
            if len(kept) < len(rows):
                self._write(kept)
        return len(kept) < len(rows)

    def _rows(self) -> list[tuple[str, str]]:
        try:
            lines = self.path.read_text(encoding="utf-8").splitlines()
        except FileNotFoundError:
            return []
        words = [line.split() for line in lines]
        return [(word[0], f"{word[1]} {word[2]}") for word in words if len(word) >= 3 and not word[0].startswith("#")]

    def _write(self, rows: list[tuple[str, str]]) -> None:
        temporary = self.path.with_name(f".{self.path.name}.{os.getpid()}.{threading.get_ident()}.tmp")
        text = "".join(f"{alias} {key}\n" for alias, key in rows)
        with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as f:
            f.write(text)
            f.flush()
            os.fsync(f.fileno())
        os.replace(temporary, self.path)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with open(self.path.with_name(f".{self.path.name}.lock"), "ab") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
