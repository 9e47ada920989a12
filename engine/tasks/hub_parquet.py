"""Parquet files of a dataset on the Hub: listed at a revision, downloaded once, verified, read from disk ever after.

    <base>/task_data/<owner>--<name>/<subset>/<split>/0000.parquet ... manifest.json

The manifest is written last: a split that has one is complete, and is used without asking the network again. It records
the commit and each file's sha256. The Hub converts every public dataset to parquet on a branch of its own, which is
where we look. What the rows mean is not known here.
"""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from engine.context import StageError
from engine.data.download import DownloadError, Known, Line, Log, explained, open_line
from engine.data.hub import endpoint, headers_for, token
from engine.rundir import file_sha256, write_atomic

if TYPE_CHECKING:
    import pyarrow as pa

FOLDER = "task_data"
REVISION = "refs/convert/parquet"  # the branch that the Hub's own conversion fills
_FILE = re.compile(r"\d+\.parquet")


@dataclass(frozen=True)
class HubSplit:
    """One split of one dataset. `gate` names the licence page's condition where the Hub asks for one."""

    repo: str
    subset: str
    split: str
    gate: str = ""
    revision: str = REVISION

    def folder(self, base: Path) -> Path:
        return base / FOLDER / self.repo.replace("/", "--") / self.subset / self.split

    def __str__(self) -> str:
        return f"{self.repo} {self.subset}/{self.split}"


@dataclass(frozen=True)
class RemoteFile:
    """A file as the Hub lists it; sha256 and size are known for large files, that is, for all parquet files."""

    path: str
    size: int | None
    sha256: str | None


def table(split: HubSplit, base: Path, columns: list[str] | None = None, *, log: Log = print) -> pa.Table:
    """The rows of a split, downloading it first if this machine has none. Raises StageError saying what is missing."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    files = local_files(split, base) or download(split, base, log=log)
    try:
        names = pq.read_schema(files[0]).names
        missing = [name for name in columns or () if name not in names]
        if missing:
            raise StageError(f"{split} has no column {', '.join(missing)}; it has {', '.join(names)}",
                             "the dataset may have changed", "data")
        return pa.concat_tables([pq.read_table(file, columns=columns) for file in files])
    except (pa.ArrowInvalid, pa.ArrowKeyError, KeyError, OSError) as error:
        raise StageError(f"{split}: {files[0].parent} cannot be read: {error}",
                         f"remove {files[0].parent} and start again", "data") from error


def local_files(split: HubSplit, base: Path) -> list[Path]:
    """The files of a complete split on disk, in order; [] when there is none. Sizes are compared, hashes are not."""
    folder = split.folder(base)
    try:
        listed = json.loads((folder / "manifest.json").read_bytes())["files"]
        files = [(folder / name, int(entry["bytes"])) for name, entry in listed.items() if _FILE.fullmatch(name)]
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return []
    whole = files and all(path.is_file() and path.stat().st_size == size for path, size in files)
    return sorted(path for path, _ in files) if whole else []


def download(split: HubSplit, base: Path, *, log: Log = print) -> list[Path]:
    """Fetch every file of a split and commit its manifest. Goes on with what an earlier attempt left."""
    folder = split.folder(base)
    with explained(folder, lambda cause: _missing(split, cause)):
        folder.mkdir(parents=True, exist_ok=True)
        with _locked(folder), open_line(log, headers=headers_for(endpoint())) as line:
            if files := local_files(split, base):  # another process fetched it while we waited
                return files
            log(f"fetching {split} from {endpoint()}")
            return _fetch(split, folder, line, log)


def _fetch(split: HubSplit, folder: Path, line: Line, log: Log) -> list[Path]:
    entries = {}
    try:
        commit, remote = _listing(line, split)
        for number, file in enumerate(remote):
            target = folder / f"{number:04d}.parquet"
            # Pinned by its commit, so what was cut off is gone on with days later.
            url = f"{endpoint()}/datasets/{split.repo}/resolve/{commit}/{quote(file.path)}"
            got = line.fetch(url, target, known=Known(file.size, file.sha256))
            entries[target.name] = {"path": file.path, "bytes": got.size, "sha256": got.sha256 or file_sha256(target)}
            log(f"  {file.path}: {got.size:,} bytes")
    except DownloadError as error:
        raise _refused(split, error) or error from error
    manifest = {"v": 1, "repo": split.repo, "subset": split.subset, "split": split.split,
                "revision": split.revision, "commit": commit, "fetched": time.time(), "files": entries}
    write_atomic(folder / "manifest.json", json.dumps(manifest, indent=2).encode() + b"\n")
    return [folder / name for name in entries]


def _listing(line: Line, split: HubSplit) -> tuple[str, list[RemoteFile]]:
    """The commit behind the revision, and the split's parquet files at it."""
    url = f"{endpoint()}/api/datasets/{split.repo}/revision/{quote(split.revision, safe='')}"

    def understand(answer: bytes) -> tuple[str, list[RemoteFile]]:
        body = json.loads(answer)
        listed = [entry for entry in body["siblings"] if _belongs(str(entry["rfilename"]), split)]
        return str(body["sha"]), [_remote_file(entry) for entry in listed]

    commit, found = line.read(url, {"blobs": "true"}, understand)
    if not found:
        raise StageError(f"{split}: the Hub has no such parquet files at {split.revision}",
                         "the dataset may have moved; see its page on the Hub", "data")
    return commit, sorted(found, key=lambda file: file.path)


def _remote_file(entry: dict[str, Any]) -> RemoteFile:
    lfs = entry.get("lfs") or {}
    size = lfs.get("size", entry.get("size"))
    return RemoteFile(str(entry["rfilename"]), None if size is None else int(size), lfs.get("sha256") or lfs.get("oid"))


def _belongs(path: str, split: HubSplit) -> bool:
    """Whether a file is part of the split; of very large datasets the Hub converts a part, `partial-<split>`."""
    folder, _, name = path.rpartition("/")
    return bool(_FILE.fullmatch(name)) and folder in (f"{split.subset}/{split.split}",
                                                     f"{split.subset}/partial-{split.split}")


def _refused(split: HubSplit, error: DownloadError) -> StageError | None:
    """What the Hub's answer means where trying again cannot help."""
    if error.status in (401, 403):
        gate = split.gate or "the dataset is private or gated"
        return StageError(f"{split} needs permission (HTTP {error.status}): {gate}",
                          f"accept its terms at {endpoint()}/datasets/{split.repo} and set HF_TOKEN to a token of that "
                          f"account" + (" (a token was sent)" if token() else " (no token was found here)"), "gated")
    if error.status == 404:
        return StageError(f"{split}: not on the Hub ({error})", "see if the dataset has moved", "data")
    return None


def _missing(split: HubSplit, reason: str) -> StageError:
    return StageError(
        f"{split} is not on this machine and cannot be fetched: {reason}",
        "with a network: start again, it goes on where it stopped. Without one: python -m engine fetch on another "
        f"machine, and copy its {FOLDER}/{split.repo.replace('/', '--')} here; or leave the task out", "data")


class _locked:
    """One process at a time fetches into a folder; the others of a torchrun wait and find it there."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / ".lock"

    def __enter__(self) -> None:
        import fcntl

        self.fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        fcntl.flock(self.fd, fcntl.LOCK_EX)

    def __exit__(self, *_: object) -> None:
        os.close(self.fd)


def manifests(base: Path) -> Iterator[dict[str, Any]]:
    """What has been fetched below `base`: repo, split, commit and files of every complete split."""
    for path in sorted((base / FOLDER).glob("*/*/*/manifest.json")):
        yield json.loads(path.read_bytes())
