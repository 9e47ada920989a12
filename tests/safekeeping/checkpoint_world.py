"""Base directories with checkpoints as trainers leave them, small and without torch: a zip is what a tensor file is."""

from __future__ import annotations

import hashlib
import io
import json
import os
import random
import zipfile
from pathlib import Path

PAST = 1_700_000_000  # seconds; files of these tests have been still since then


def tensor_file(seed: int, size: int = 3000) -> bytes:
    """A stored zip with random bytes inside, such as torch writes."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr("archive/data.pkl", b"\x80\x02}q\x00.")
        archive.writestr("archive/data/0", random.Random(seed).randbytes(size))
    return buffer.getvalue()


def write(path: Path, data: bytes, when: float = PAST) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    os.utime(path, (when, when))


def add_checkpoint(base: Path, folder: str = "base_checkpoints/d4", step: int = 300, *, ranks: int = 2,
                   manifest: bool = True, size: int = 3000, when: float = PAST, val_bpb: float = 0.9) -> Path:
    """Model, meta, optimizer state of `ranks` processes, and our manifest unless nanochat wrote it."""
    place = base / folder
    seed = step * 10 + len(folder)
    meta = json.dumps({"step": step, "val_bpb": val_bpb, "model_config": {"n_layer": 4}}, indent=2).encode()
    files = {f"model_{step:06d}.pt": tensor_file(seed, size), f"meta_{step:06d}.json": meta}
    files |= {f"optim_{step:06d}_rank{r}.pt": tensor_file(seed + r + 1, size * 2) for r in range(ranks)}
    for name, data in files.items():
        write(place / name, data, when)
    if manifest:
        entries = {n: {"bytes": len(d), "sha256": hashlib.sha256(d).hexdigest()} for n, d in files.items()}
        text = {"v": 1, "step": step, "source": "base", "files": entries, "tokenizer_sha256": "", "created": when}
        write(place / f"manifest_{step:06d}.json", json.dumps(text, indent=2).encode(), when)
    add_tokenizer(base)
    return place


def add_tokenizer(base: Path, text: bytes = b"tokens") -> None:
    write(base / "tokenizer" / "tokenizer.pkl", text)
    write(base / "tokenizer" / "token_bytes.pt", tensor_file(1, 100))


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below a folder by its relative name."""
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}
