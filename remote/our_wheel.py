"""This very program as one file that another machine can install: a wheel where its Rust part fits, else its sources.

The wheel is made from what is running here, a source tree or an installed package alike, so that both ends always run
the same code; the same code gives the same bytes, and their hash names the version. Nothing is built here.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import importlib.metadata
import importlib.util
import io
import platform
import re
import tarfile
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

NAME = "llmconsole"
PACKAGES = ("console", "engine", "remote")
NATIVE = "rustbpe"
_SOURCES = (*PACKAGES, "rustbpe", "pyproject.toml", "README.md", "LICENSE")
_LEFT_OUT = {"__pycache__", "target", ".mypy_cache", ".ruff_cache", ".pytest_cache"}
_MOMENT = (2020, 1, 1, 0, 0, 0)  # of every entry, so that the same code gives the same bytes


@dataclass(frozen=True)
class Packed:
    """A file to send: its name as an installer wants it, its bytes, and the packages that must be there beside it."""

    file_name: str
    data: bytes
    constraints: str = ""

    @property
    def hash(self) -> str:
        return hashlib.sha256(self.data).hexdigest()[:16]


def root() -> Path:
    """The folder that holds our packages."""
    return Path(__file__).parent.parent


def fits(system: str, machine: str) -> bool:
    """Whether compiled code from here can run on such a machine."""
    return (system, machine) == (platform.system(), platform.machine())


def has_sources() -> bool:
    return (root() / "pyproject.toml").is_file() and (root() / NATIVE / "Cargo.toml").is_file()


def wheel() -> Packed:
    """The running code and its compiled part. Raises FileNotFoundError when that part is not there."""
    about = importlib.metadata.distribution(NAME)
    info = f"{NAME}-{about.version}.dist-info"
    tag = re.search(r"^Tag: (.+)$", about.read_text("WHEEL") or "", re.MULTILINE)
    entries = dict(_python_files())
    entries.update(_native_files())
    for name in ("METADATA", "WHEEL", "entry_points.txt"):
        entries[f"{info}/{name}"] = (about.read_text(name) or "").encode()
    entries[f"{info}/RECORD"] = _record(entries, info)
    held = io.BytesIO()
    with zipfile.ZipFile(held, "w", zipfile.ZIP_DEFLATED) as box:
        for name in sorted(entries):
            box.writestr(zipfile.ZipInfo(name, _MOMENT), entries[name], zipfile.ZIP_DEFLATED)
    return Packed(f"{NAME}-{about.version}-{tag[1] if tag else 'py3-none-any'}.whl", held.getvalue(), constraints())


def sources() -> Packed:
    """The source tree, for a machine that has to compile the Rust part itself. Raises FileNotFoundError."""
    if not has_sources():
        raise FileNotFoundError("the sources of the Rust part are not installed here: run llmconsole from its source "
                                "tree to use a machine of another kind")
    version = importlib.metadata.version(NAME)
    folder, held = f"{NAME}-{version}", io.BytesIO()
    with gzip.GzipFile(fileobj=held, mode="wb", mtime=0) as zipped, tarfile.open(fileobj=zipped, mode="w") as box:
        about = importlib.metadata.distribution(NAME).read_text("METADATA") or ""
        entries = {"PKG-INFO": about.encode(), **{str(path.relative_to(root())): path.read_bytes()
                                                  for name in _SOURCES for path in _files(root() / name)}}
        for name in sorted(entries):
            entry = tarfile.TarInfo(f"{folder}/{name}")
            entry.size, entry.mtime, entry.mode = len(entries[name]), 1_577_836_800, 0o644
            box.addfile(entry, io.BytesIO(entries[name]))
    return Packed(f"{folder}.tar.gz", held.getvalue(), constraints())


def constraints() -> str:
    """The versions that this program was tested with, as pip's constraints; "" when only a wheel is installed here."""
    project = root() / "pyproject.toml"
    if not project.is_file():
        return ""
    found = re.search(r"^constraint-dependencies = \[$(.*?)^\]", project.read_text(), re.MULTILINE | re.DOTALL)
    return "\n".join(re.findall(r'^\s*"(.+)",', found[1], re.MULTILINE)) + "\n" if found else ""


def _python_files() -> Iterator[tuple[str, bytes]]:
    for package in PACKAGES:
        for path in _files(root() / package):
            yield str(path.relative_to(root())), path.read_bytes()


def _native_files() -> Iterator[tuple[str, bytes]]:
    """The compiled module, found without importing it."""
    found = importlib.util.find_spec(NATIVE)
    folder = Path(found.origin).parent if found and found.origin else None
    if folder is None or not list(folder.glob("*.so")):
        raise FileNotFoundError("the compiled Rust part is not installed here")
    for path in _files(folder):
        yield f"{NATIVE}/{path.relative_to(folder)}", path.read_bytes()


def _files(path: Path) -> Iterator[Path]:
    """Every file at or below, without what builds leave behind."""
    if path.is_file():
        yield path
    elif path.is_dir():
        for below in sorted(path.iterdir()):
            if below.name not in _LEFT_OUT and below.suffix != ".pyc" and not below.is_symlink():
                yield from _files(below)


def _record(entries: dict[str, bytes], info: str) -> bytes:
    rows = [f"{name},sha256={base64.urlsafe_b64encode(hashlib.sha256(data).digest()).decode().rstrip('=')},{len(data)}"
            for name, data in sorted(entries.items())]
    return "\n".join([*rows, f"{info}/RECORD,,", ""]).encode()
