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
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from engine.context import StageError
from engine.rundir import file_sha256, write_atomic

if TYPE_CHECKING:
    import httpx
    import pyarrow as pa

FOLDER = "task_data"
REVISION = "refs/convert/parquet"  # the branch that the Hub's own conversion fills
DEFAULT_ENDPOINT = "https://huggingface.co"
ATTEMPTS = 6
TIMEOUT_S = 30.0
_FILE = re.compile(r"\d+\.parquet")
_TOKEN_VARIABLES = ("HF_TOKEN", "HUGGINGFACE_TOKEN", "HUGGING_FACE_HUB_TOKEN")

Log = Callable[[str], object]


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


class _Again(Exception):
    """This attempt failed in a way that another one may not: network, server, or bytes that are not the file."""


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


def download(split: HubSplit, base: Path, *, log: Log = print, wait: Callable[[float], object] = time.sleep,
             attempts: int = ATTEMPTS) -> list[Path]:
    """Fetch every file of a split and commit its manifest. Resumes what an earlier attempt left."""
    folder = split.folder(base)
    folder.mkdir(parents=True, exist_ok=True)
    with _locked(folder), _client() as client:
        if files := local_files(split, base):  # another process fetched it while we waited
            return files
        if not offline():
            log(f"fetching {split} from {endpoint()}")
        commit, remote = _retrying(split, wait, attempts, lambda: _listing(client, split))
        entries = {}
        for number, file in enumerate(remote):
            target = folder / f"{number:04d}.parquet"
            fetch = _fetcher(client, split, commit, file, target)
            entries[target.name] = _retrying(split, wait, attempts, fetch)
            log(f"  {file.path}: {entries[target.name]['bytes']:,} bytes")
        manifest = {"v": 1, "repo": split.repo, "subset": split.subset, "split": split.split,
                    "revision": split.revision, "commit": commit, "fetched": time.time(), "files": entries}
        write_atomic(folder / "manifest.json", json.dumps(manifest, indent=2).encode() + b"\n")
    return [folder / name for name in entries]


def endpoint() -> str:
    return (os.environ.get("HF_ENDPOINT") or DEFAULT_ENDPOINT).rstrip("/")


def token() -> str | None:
    """The Hub token: from the environment, else where the Hub's own login left it."""
    for name in _TOKEN_VARIABLES:
        if os.environ.get(name, "").strip():
            return os.environ[name].strip()
    home = Path(os.environ.get("HF_HOME") or Path.home() / ".cache" / "huggingface")
    path = Path(os.environ.get("HF_TOKEN_PATH") or home / "token")
    try:
        return path.read_text().strip() or None
    except OSError:
        return None


def offline() -> bool:
    return os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE")


def _client() -> httpx.Client:
    import httpx

    return httpx.Client(timeout=httpx.Timeout(TIMEOUT_S, connect=10.0), follow_redirects=True)


def _headers(**more: str) -> dict[str, str]:
    """`identity`: a compressed answer could not be gone on with in the middle."""
    secret = token()
    return {"Accept-Encoding": "identity", **({"Authorization": f"Bearer {secret}"} if secret else {}), **more}


def _listing(client: httpx.Client, split: HubSplit) -> tuple[str, list[RemoteFile]]:
    """The commit behind the revision, and the split's parquet files at it."""
    url = f"{endpoint()}/api/datasets/{split.repo}/revision/{quote(split.revision, safe='')}"
    reply = _get(client, url, split, params={"blobs": "true"})
    try:
        body = reply.json()
        commit, siblings = str(body["sha"]), list(body["siblings"])
        found = [_remote_file(entry) for entry in siblings if _belongs(str(entry["rfilename"]), split)]
    except (ValueError, KeyError, TypeError) as error:
        raise _Again(f"the Hub's answer for {split} makes no sense: {error}") from error
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


def _fetcher(client: httpx.Client, split: HubSplit, commit: str, file: RemoteFile,
             target: Path) -> Callable[[], dict[str, Any]]:
    return lambda: _fetch(client, split, commit, file, target)


def _fetch(client: httpx.Client, split: HubSplit, commit: str, file: RemoteFile, target: Path) -> dict[str, Any]:
    """One file whole and verified at `target`; a torn one stays beside it as .part and is gone on with."""
    import httpx

    part = target.with_suffix(".part")
    have = part.stat().st_size if part.exists() else 0
    url = f"{endpoint()}/datasets/{split.repo}/resolve/{commit}/{quote(file.path)}"
    try:
        with client.stream("GET", url, headers=_headers(**({"Range": f"bytes={have}-"} if have else {}))) as reply:
            if reply.status_code == 416:  # there is nothing behind what we have: judge it as it is
                have_all = True
            else:
                _refuse(reply, split, url)
                have_all = False
                with open(part, "ab" if reply.status_code == 206 else "wb") as f:
                    for chunk in reply.iter_raw():  # as it comes: what arrived before a cut is kept
                        f.write(chunk)
    except httpx.HTTPError as error:
        raise _Again(f"{url}: {type(error).__name__}: {error}") from error
    except OSError as error:
        raise StageError(f"cannot write {part}: {error.strerror}", "free some disk space and start again",
                         "disk") from error
    return _verified(file, part, target, finished=have_all)


def _verified(file: RemoteFile, part: Path, target: Path, *, finished: bool) -> dict[str, Any]:
    """Size and hash agree: the file gets its name. Raises _Again, after dropping bytes that can not become the file."""
    size = part.stat().st_size if part.exists() else 0
    if file.size is not None and size < file.size and not finished:
        raise _Again(f"{file.path} ended after {size:,} of {file.size:,} bytes")
    digest = file_sha256(part) if part.exists() else ""
    if (file.size is not None and size != file.size) or (file.sha256 and digest != file.sha256):
        part.unlink(missing_ok=True)
        raise _Again(f"{file.path} arrived damaged (sha256 {digest[:12]}, expected {str(file.sha256)[:12]})")
    with open(part, "rb+") as f:
        os.fsync(f.fileno())
    os.replace(part, target)
    return {"path": file.path, "bytes": size, "sha256": digest}


def _get(client: httpx.Client, url: str, split: HubSplit, params: dict[str, str]) -> httpx.Response:
    import httpx

    try:
        reply = client.get(url, params=params, headers=_headers())
    except httpx.HTTPError as error:
        raise _Again(f"{url}: {type(error).__name__}: {error}") from error
    _refuse(reply, split, url)
    return reply


def _refuse(reply: httpx.Response, split: HubSplit, url: str) -> None:
    """Raise what a reply other than success means: _Again, or StageError when trying again cannot help."""
    status = reply.status_code
    if status < 400:
        return
    if status in (401, 403):
        raise StageError(f"{split} needs permission (HTTP {status}): {split.gate or 'the dataset is private or gated'}",
                         f"accept its terms at {endpoint()}/datasets/{split.repo} and set HF_TOKEN to a token of that "
                         f"account" + (" (a token was sent)" if token() else " (no token was found here)"), "gated")
    if status == 404:
        raise StageError(f"{split}: not on the Hub ({url} answers 404)", "see if the dataset has moved", "data")
    raise _Again(f"{url} answers HTTP {status}")


def _retrying(split: HubSplit, wait: Callable[[float], object], attempts: int, attempt: Callable[[], Any]) -> Any:
    if offline():
        raise _missing(split, "HF_HUB_OFFLINE forbids the network")
    for number in range(attempts):
        try:
            return attempt()
        except _Again as error:  # noqa: PERF203 - a network call each time
            if number + 1 == attempts:
                raise _missing(split, str(error)) from error
            wait(min(2.0**number, 30.0))
    raise AssertionError("unreachable")


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
