"""Gets the bytes of one checkpoint into the Hub's storage: asks for a signed URL here, lets the box send to it.

The token stays on this machine. The box hashes what it sends while it sends it; other bytes than the manifest promises
are noticed before any commit names them. What the storage has already is not sent again. Nothing is visible in the
repository until somebody commits (`remote.backup.hub`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

from remote.backup.box import Box
from remote.backup.checkpoint_files import CheckpointFiles, Stat, importance
from remote.backup.hub_http import RETRIED, Refused
from remote.backup.hub_wire import HubWire
from remote.backup.keeper import Interrupted
from remote.backup.metering import Meter, Progress
from remote.backup.parts import PartBook, Parts
from remote.backup.receipts import Examined, HashBook
from remote.errors import DamagedCopy, HubUnreachable, NoSuchCopy, TokenRefused
from remote.safekeeping import StoredFile

REGULAR_LIMIT = 8 << 20  # bytes of a file that is sent inside the commit itself
_EXPIRED = (400, 403, 404, 410)  # what a storage says of a signed URL that is too old


@dataclass(frozen=True)
class Sender:
    """How to send from one box to one repository. `streams` files travel at once."""

    wire: HubWire
    box: Box
    hashes: HashBook
    parts: PartBook
    progress: Progress
    streams: int = 3
    together: int = 1 << 30  # bytes of parts between two notes of how far it is

    def send_all(self, found: CheckpointFiles, files: Mapping[str, StoredFile], place: str) -> dict[str, bytes | None]:
        """Send every file; what the Hub wants inside the commit comes back as its bytes, the others as None.

        Raises DamagedCopy, Interrupted, HubUnreachable, and what the box raises.
        """
        parts = {name: (path, stat) for name, path, stat in found.parts()}
        heads = [(f"{place}/{name}", stat.bytes, self._head(path, stat)) for name, (path, stat) in parts.items()]
        modes = self.wire.upload_modes(heads)
        inside: dict[str, bytes | None] = {}
        large = []
        for name, (path, stat) in parts.items():
            if stat.bytes == 0 or (modes.get(f"{place}/{name}") == "regular" and stat.bytes <= REGULAR_LIMIT):
                inside[name] = self._small(name, path, stat, files[name])
            else:
                inside[name] = None
                large.append((name, path, stat))
        for rank in sorted({importance(name) for name, _, _ in large}):  # what one can talk to before what resumes
            self._send_together(found, [part for part in large if importance(part[0]) == rank], files)
        return inside

    def _head(self, path: str, stat: Stat) -> bytes:
        return self.box.host.read(path, 0, 512) if stat.bytes else b""

    def _small(self, name: str, path: str, stat: Stat, file: StoredFile) -> bytes:
        import hashlib

        data = self.box.host.read(path, 0, stat.bytes + 1)
        if len(data) != file.bytes or hashlib.sha256(data).hexdigest() != file.sha256:
            raise DamagedCopy(f"{name} is not what its manifest says")
        return data

    def _send_together(self, found: CheckpointFiles, parts: list[tuple[str, str, Stat]],
                       files: Mapping[str, StoredFile]) -> None:
        with ThreadPoolExecutor(max_workers=self.streams) as pool:
            jobs = [pool.submit(self._send_file, path, stat, files[name],
                                Meter(self.progress, found.id, name, "send", stat.bytes))
                    for name, path, stat in parts]
            for job in jobs:
                job.result()

    def _send_file(self, path: str, stat: Stat, file: StoredFile, meter: Meter) -> None:
        """One object, until the storage has it; the reasons of retries go to the meter."""
        number = 0
        while True:
            number += 1
            if self.box.stop.is_set():
                raise Interrupted
            actions = self.wire.upload_actions(file.sha256, file.bytes)
            if "upload" not in actions:
                meter.say("the Hub has it already", file.bytes)
                return
            meter.start()
            reply = self._put(path, file, actions["upload"], meter)
            if reply["ok"]:
                self._compare(path, stat, file, reply, meter)
                if "verify" in actions:
                    self.wire.verify_upload(actions["verify"]["href"], file.sha256, file.bytes)
                return
            self._consider(reply, number, meter)

    def _put(self, path: str, file: StoredFile, action: Mapping[str, Any], meter: Meter) -> dict[str, Any]:
        """Send by one PUT, or by one per part where the Hub asks for that."""
        begun = self.parts.find(file.sha256, file.bytes)
        if begun is not None:
            return self._put_parts(path, file, begun, meter)
        header = {str(key): str(value) for key, value in (action.get("header") or {}).items()}
        chunk = int(header.pop("chunk_size", 0))
        if not chunk:
            piece = {"url": action["href"], "headers": header, "offset": 0, "length": file.bytes}
            return self.box.send({"path": path, "pieces": [piece], "timeout": self.wire.timeout}, meter)
        urls = [header[key] for key in sorted((key for key in header if key.isdigit()), key=int)]
        if len(urls) != math.ceil(file.bytes / chunk):
            raise HubUnreachable(f"the Hub gives {len(urls)} places for {math.ceil(file.bytes / chunk)} parts")
        pieces = tuple({"url": url, "offset": i * chunk, "length": min(chunk, file.bytes - i * chunk)}
                       for i, url in enumerate(urls))
        return self._put_parts(path, file, Parts(str(action["href"]), pieces), meter)

    def _put_parts(self, path: str, file: StoredFile, parts: Parts, meter: Meter) -> dict[str, Any]:
        """Parts in order; one that fails is sent again without those before it, while its URL is still good.

        What is there is written down each time, for another start to go on from.
        """
        reply: dict[str, Any] = {"ok": True, "sha256": None, "stat": None}
        resumed, tries = bool(parts.etags), 0
        while parts.rest:
            had, group = parts.sent, _some(parts.rest, self.together)
            reply = self.box.send({"path": path, "pieces": group, "timeout": self.wire.timeout},
                                  lambda done, had=had: meter(had + done))  # type: ignore[misc]
            if reply["etags"]:
                parts = replace(parts, etags=(*parts.etags, *(etag or "" for etag in reply["etags"])))
                self.parts.keep(file.sha256, parts)
            if not reply["ok"]:
                tries += 1
                refused = bool(reply["status"]) and reply["status"] not in RETRIED
                if refused:
                    self.parts.forget(file.sha256)
                if refused or tries >= self.wire.attempts:
                    return reply
                self._consider(reply, tries, meter)
        return self._complete(file, parts, reply, resumed)

    def _complete(self, file: StoredFile, parts: Parts, reply: dict[str, Any], resumed: bool) -> dict[str, Any]:
        """All parts are there: have them made one object. What an earlier start began may be too old for that."""
        try:
            self.wire.complete_upload(parts.href, file.sha256, parts.etags)
        except (Refused, NoSuchCopy, TokenRefused) as error:
            if not resumed:
                raise
            reply = {"ok": False, "status": _EXPIRED[-1], "reason": f"the parts sent earlier are of no use: {error}"}
        self.parts.forget(file.sha256)
        return reply

    def _consider(self, reply: Mapping[str, Any], number: int, meter: Meter) -> None:
        """After a failed try: raise, or wait with the reason on show."""
        if reply.get("stopped"):
            raise Interrupted
        if reply.get("changed"):
            raise DamagedCopy(str(reply["reason"]))
        status = reply["status"]
        if status and status not in RETRIED and status not in _EXPIRED:
            raise HubUnreachable(f"the storage refused the file: {reply['reason']}")
        self.wire.wait(number, f"{reply['reason']} while sending", reply.get("retry_after"), meter.say)

    def _compare(self, path: str, stat: Stat, file: StoredFile, reply: Mapping[str, Any], meter: Meter) -> None:
        """What was sent must be what the manifest promises."""
        sha256, now = reply["sha256"], reply["stat"]
        if sha256 is None:  # sent in several tries: read it once more
            again = self.box.examine(path, lambda done: None)
            sha256, now = again.get("sha256"), again.get("stat")
        if sha256 != file.sha256 or now != [stat.bytes, stat.mtime, stat.ctime, stat.inode]:
            raise DamagedCopy(f"{path.rpartition('/')[2]} is not what its manifest says: it is damaged on "
                              f"{self.box.host.name}, or was changed")
        self.hashes.remember(self.box.host.name, path, stat, Examined(file.sha256, None))
        meter(file.bytes)


def _some(pieces: Sequence[dict[str, Any]], most: int) -> list[dict[str, Any]]:
    """The first pieces, of about `most` bytes together and one at least."""
    chosen: list[dict[str, Any]] = []
    for piece in pieces:
        if chosen and sum(c["length"] for c in chosen) + piece["length"] > most:
            break
        chosen.append(piece)
    return chosen
