"""Other people's vocabularies, to compare with: only those that are on this disk already.

tiktoken downloads a vocabulary that it does not find in its cache, and again one whose hash is wrong. So the cache is
looked at first, by the file names and hashes that tiktoken uses, and nothing here ever asks the network.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from pathlib import Path

import tiktoken

# encoding -> its files: tiktoken's cache name (SHA-1 of the address) and the SHA-256 of the content
FILES: dict[str, dict[str, str]] = {
    "gpt2": {
        "6d1cbeee0f20b3d9449abfede4726ed8212e3aee": "1ce1664773c50f3e0cc8842619a93edc4624525b728b188a9e0be33b7726adc5",
        "6c7ea1a7e38e3a7f062df639a5b80947f075ffe6": "196139668be63f3b5d6574427317ae82f612a97c5d1cdaf36ed2256dbf636783",
    },
    "cl100k_base": {
        "9b5ad71b2ce5302211f9c61530b329a4922fc6a4": "223921b76ee99bde995b7ff738513eef100fb51d18c93597a113bcffe865b2a7",
    },
}


def cache_dir() -> Path | None:
    """Where tiktoken keeps its vocabularies; None when its cache is switched off."""
    for variable in ("TIKTOKEN_CACHE_DIR", "DATA_GYM_CACHE_DIR"):
        if variable in os.environ:
            return Path(os.environ[variable]) if os.environ[variable] else None
    return Path(tempfile.gettempdir()) / "data-gym-cache"


def on_disk(name: str) -> bool:
    """Whether every file of the encoding is in the cache with the content that tiktoken expects."""
    folder = cache_dir()
    return folder is not None and all(_has_hash(folder / file, sha256) for file, sha256 in FILES[name].items())


def _has_hash(path: Path, sha256: str) -> bool:
    return path.is_file() and hashlib.sha256(path.read_bytes()).hexdigest() == sha256


def available() -> tuple[dict[str, tiktoken.Encoding], list[str]]:
    """The encodings that can be used offline, and the names of those that cannot."""
    present = {name: tiktoken.get_encoding(name) for name in FILES if on_disk(name)}
    return present, [name for name in FILES if name not in present]
