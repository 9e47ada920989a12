"""Shards of a public data set into base_data/, several at a time, going on where an earlier attempt ended.

A shard that is here whole is not asked for again. The manifest names what was asked for and is written last.
"""

from __future__ import annotations

import json
import shutil
import time
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from threading import Event, Lock
from typing import Any

from engine.context import StageContext, StageError
from engine.data.download import FIRST_WAIT_S, DownloadError, Fetched, Line, new_client
from engine.data.hub import endpoint, headers_for
from engine.data.shards import FOLDER, claim, problem_of
from engine.data.sources import ShardSource, shard_name
from engine.rundir import write_atomic

ROOM = 1.05  # of the bytes still to come, before anything is fetched


@dataclass(frozen=True)
class Order:
    """What to fetch and how."""

    source: ShardSource
    num_files: int | None
    base_url: str | None
    workers: int
    first_wait_s: float = FIRST_WAIT_S


def fetch(order: Order, context: StageContext) -> dict[str, Any]:
    """Bring the shards; returns facts for the report. Raises StageError, or Stopped with everything kept."""
    folder = context.base_dir / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    names = [shard_name(number) for number in order.source.numbers(order.num_files)]
    least = 0 if claim(folder, order.source.name) else order.source.shard_bytes // 100
    here = [name for name in names if _whole(folder / name, least, context)]
    missing = [name for name in names if name not in set(here)]
    context.log(f"{order.source.name}: {len(names):,} shards wanted, {len(here):,} already here")
    if missing:
        _check_room(folder, missing, order.source)
    started = time.monotonic()
    fetched = _Fetching(order, context, folder, missing, len(names)).run() if missing else {}
    seconds = time.monotonic() - started
    files = {f"{FOLDER}/{name}": _entry(folder / name, fetched.get(name)) for name in names}
    settings = {"source": order.source.name, "num_files": order.num_files}
    write_atomic(folder / "manifest.json",
                 json.dumps({"v": 1, "settings": settings, "files": files}, indent=2).encode() + b"\n")
    context.progress(len(names), len(names), "shards")
    total = sum(int(entry["bytes"]) for entry in files.values())
    arrived = sum(one.size for one in fetched.values())
    return {"Source": order.source.name, "Shards": len(names), "Bytes on disk": total, "Fetched now": len(fetched),
            "MB/s": round(arrived / 1e6 / seconds, 1) if fetched and seconds else 0.0}


def _entry(path: Path, fetched: Fetched | None) -> dict[str, Any]:
    told = {"sha256": fetched.sha256} if fetched and fetched.sha256 else {}
    return {"bytes": path.stat().st_size, **told}


class _Fetching:
    """Threads that each fetch a shard, and one count of what has arrived."""

    def __init__(self, order: Order, context: StageContext, folder: Path, missing: list[str], total: int) -> None:
        self.order, self.context, self.folder, self.missing, self.total = order, context, folder, missing, total
        self._bytes, self._lock, self._given_up, self._started = 0, Lock(), Event(), time.monotonic()

    def run(self) -> dict[str, Fetched]:
        with new_client() as client, ThreadPoolExecutor(self.order.workers) as pool:
            line = Line(client, headers_for(self._url("")), self.order.first_wait_s, self._arrived, self._again)
            futures = {name: pool.submit(self._one, line, name) for name in self.missing}
            try:
                self._watch(set(futures.values()))
                return {name: future.result() for name, future in futures.items()}
            except DownloadError as error:
                raise self._unreachable(error) from error
            finally:  # the others end at their next piece; what they have stays
                self._given_up.set()
                pool.shutdown(cancel_futures=True)

    def _one(self, line: Line, name: str) -> Fetched:
        return line.fetch(self._url(name), self.folder / name, problem_of)

    def _url(self, name: str) -> str:
        return self.order.source.url(self.order.base_url, name, endpoint())

    def _arrived(self, count: int) -> None:
        if self._given_up.is_set():
            raise DownloadError("another shard failed", retry=False)
        with self._lock:
            self._bytes += count

    def _again(self, problem: str, seconds: float) -> None:
        self.context.log(f"{problem}; again in {seconds:.0f} s")
        self._given_up.wait(seconds)
        self._arrived(0)

    def _watch(self, running: set[Future[Fetched]]) -> None:
        """Tell how far it is until all are done; the first error and a wish to stop come up from here."""
        while running:
            done, running = wait(running, timeout=0.5, return_when=FIRST_EXCEPTION)
            for future in done:
                future.result()
            self.context.checkpoint_stop()
            self._say(len(running))

    def _say(self, left: int) -> None:
        nominal = self.order.source.shard_bytes
        whole = self.total - left
        seconds = max(time.monotonic() - self._started, 1e-3)
        to_come = max(len(self.missing) * nominal - self._bytes, 0)
        eta = to_come / (self._bytes / seconds) if self._bytes else None
        self.context.progress(whole, self.total, "shards", eta if left else None)

    def _unreachable(self, error: DownloadError) -> StageError:
        still = [name for name in self.missing if not (self.folder / name).exists()]
        here = self.total - len(still)
        return StageError(
            f"{len(still)} of {self.total} shards of {self.order.source.name} are missing ({', '.join(still[:3])}"
            f"{', …' if len(still) > 3 else ''}), and fetching failed: {error}",
            f"{here} shards and all parts so far are kept: start the stage again when the network is there, or name a "
            f"mirror with --base-url, or copy the files into {self.folder} from elsewhere, or use "
            "--source=folder --path=YOUR_TEXT", "network")


def _whole(path: Path, least: int, context: StageContext) -> bool:
    """Whether a shard is here and readable; one that is torn, or of some other text, goes."""
    if not path.exists():
        return False
    size = path.stat().st_size
    problem = problem_of(path) if size >= least else f"{size:,} bytes are too few for a shard of this text"
    if problem:
        context.log(f"{path.name} is fetched again: {problem}")
        path.unlink()
    return problem is None


def _check_room(folder: Path, missing: list[str], source: ShardSource) -> None:
    parts = sum(part.stat().st_size for part in folder.glob("*.part"))
    need = max(len(missing) * source.shard_bytes - parts, 0) * ROOM
    free = shutil.disk_usage(folder).free
    if need > free:
        raise StageError(f"{len(missing)} shards need about {need / 1e9:.1f} GB, and {folder} has {free / 1e9:.1f} GB",
                         "free some space, set a smaller --num-files, or put NANOCHAT_BASE_DIR on a larger disk",
                         "disk-full")
