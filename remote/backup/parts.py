"""How far an object has come that is sent in parts, kept where another start of this program finds it.

    <folder>/parts-<hash>.json   {"v", "href", "pieces": [[url, offset, length]], "etags"}

The addresses are signed: each takes one part of one object for some hours and gives nothing out. The file is its
owner's alone all the same. A book that is damaged, or of another size, is no book: then the object is sent from its
beginning.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from remote.backup.receipts import write_synced

_WORST = (OSError, ValueError, KeyError, TypeError, RecursionError)


@dataclass(frozen=True)
class Parts:
    """One upload. `href` is told when all parts are there; `etags` are the answers to those that are, in order."""

    href: str
    pieces: tuple[dict[str, Any], ...]
    etags: tuple[str, ...] = ()

    @property
    def rest(self) -> tuple[dict[str, Any], ...]:
        return self.pieces[len(self.etags):]

    @property
    def sent(self) -> int:
        """Bytes of the parts that are there."""
        return sum(piece["length"] for piece in self.pieces[:len(self.etags)])

    @property
    def bytes(self) -> int:
        return sum(piece["length"] for piece in self.pieces)


class PartBook:
    """The uploads under way to one destination, in a folder of this machine."""

    def __init__(self, folder: Path, destination: str) -> None:
        self._folder, self._destination = folder, destination

    def find(self, sha256: str, size: int) -> Parts | None:
        """An upload of this content that was begun; None when nothing of use is known."""
        try:
            found = json.loads(self._path(sha256).read_bytes())
            pieces = tuple({"url": str(url), "offset": int(offset), "length": int(length)}
                           for url, offset, length in found["pieces"])
            parts = Parts(str(found["href"]), pieces, tuple(str(etag) for etag in found["etags"]))
        except _WORST:
            return None
        return parts if parts.etags and parts.bytes == size else None

    def keep(self, sha256: str, parts: Parts) -> None:
        pieces = [[piece["url"], piece["offset"], piece["length"]] for piece in parts.pieces]
        text = json.dumps({"v": 1, "href": parts.href, "pieces": pieces, "etags": list(parts.etags)})
        write_synced(self._path(sha256), text.encode(), mode=0o600)

    def forget(self, sha256: str) -> None:
        self._path(sha256).unlink(missing_ok=True)

    def _path(self, sha256: str) -> Path:
        name = hashlib.sha256(f"{self._destination}\0{sha256}".encode()).hexdigest()[:24]
        return self._folder / f"parts-{name}.json"
