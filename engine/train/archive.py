"""Reading a .pt file that may be damaged, foreign or hostile: tensors and plain containers, nothing else.

The archive's directory is looked at first: a file that claims more bytes than it has, or unpacks to more, is refused
unread. What torch then loads, it loads with `weights_only=True`.
"""

from __future__ import annotations

import re
import zipfile
from pathlib import Path
from typing import Any

import torch

from engine.context import StageError

_ENTRY = re.compile(r"[^/\\]{1,128}/(data\.pkl|byteorder|version|\.format_version|\.storage_alignment|"
                    r"\.data/serialization_id|data/\d{1,9})")  # fmt: skip
_DAMAGE = (RuntimeError, ValueError, OSError, EOFError, KeyError, AttributeError, TypeError, ImportError, IndexError,
           AssertionError, OverflowError, RecursionError, MemoryError)  # fmt: skip


class CheckpointError(StageError):
    """No checkpoint, or one that cannot be trusted or read; the text names the file and what to do."""


def load_tensors(path: Path, device: torch.device | str = "cpu", *, mapped: bool = False) -> Any:
    """A file of tensors and plain containers. Raises CheckpointError when it is damaged or holds anything else.

    `mapped` leaves them in the file until they are looked at, for who copies them elsewhere anyway.
    """
    check_archive(path)
    try:
        return torch.load(path, map_location=device, weights_only=True, mmap=mapped)
    except _DAMAGE as error:
        raise _unreadable(path, str(error).splitlines()[0] if str(error) else type(error).__name__) from error
    except Exception as error:
        if type(error).__name__ != "UnpicklingError":  # by name: nothing here imports pickle
            raise
        raise CheckpointError(
            f"{path} holds more than tensors and was not loaded", "use a trusted checkpoint", "checkpoint"
        ) from error


def check_archive(path: Path, *, contents: bool = False) -> None:
    """Refuse what is no archive as torch.save writes it, or is cut off. `contents` also compares every entry with its
    checksum. Raises CheckpointError."""
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
            problem = _problem(entries, path.stat().st_size)
            if not problem and contents and (bad := archive.testzip()):
                problem = f"{bad} does not match its checksum"
    except FileNotFoundError as error:
        raise CheckpointError(f"{path} is missing", "use another checkpoint", "checkpoint") from error
    except (OSError, zipfile.BadZipFile, ValueError, NotImplementedError, EOFError, RuntimeError) as error:
        raise _unreadable(path, str(error) or type(error).__name__) from error
    if problem:
        raise _unreadable(path, problem)


def _problem(entries: list[zipfile.ZipInfo], size: int) -> str:
    if strange := [e.filename for e in entries if not _ENTRY.fullmatch(e.filename)]:
        return f"it has an entry {strange[0][:80]!r} that torch.save does not write"
    if any(e.compress_type != zipfile.ZIP_STORED for e in entries):
        return "it is compressed, which torch.save does not do"
    if sum(e.file_size for e in entries) > size:
        return "it claims to hold more bytes than it has"
    return "" if len({e.filename for e in entries}) == len(entries) else "it holds one name twice"


def _unreadable(path: Path, reason: str) -> CheckpointError:
    return CheckpointError(f"{path} cannot be read: {reason}", "it is damaged or not a checkpoint", "checkpoint")
