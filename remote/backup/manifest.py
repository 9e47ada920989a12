"""What a copy of a checkpoint says about itself: manifest.json and SHA256SUMS, written by us and read with suspicion.

    <place>/manifest.json   {"v", "kind", "run", "folder", "step", "files": {name: {"bytes", "sha256"}}, ...}
    <place>/SHA256SUMS      for sha256sum -c
    <place>/model_000300.pt  meta_000300.json  optim_000300_rank0.pt  tokenizer/tokenizer.pkl ...

Pure: texts and names in, texts and names out. Every byte of a copy is covered: the files by the manifest, the manifest
by its own sha256 in whatever receipt speaks of it.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata
from typing import Any

from remote.backup.checkpoint_files import STAGE_FOLDERS, STAGE_OF, CheckpointFiles, stored_file
from remote.errors import DamagedCopy
from remote.safekeeping import CheckpointId, StoredFile

MANIFEST, SUMS = "manifest.json", "SHA256SUMS"
KIND = "llmconsole checkpoint"
TOKENIZER = "tokenizer/tokenizer.pkl"
MAX_BYTES = 8 << 20  # of a manifest

_FOLDER = re.compile(r"(?:runs/[A-Za-z0-9][A-Za-z0-9._-]{0,79}/base/)?(?:" + "|".join(STAGE_OF)
                     + r")/[A-Za-z0-9][A-Za-z0-9._-]{0,79}")
_FILE = re.compile(r"(?:model|optim)_[0-9]{6,9}(?:_rank[0-9]{1,4})?\.pt|meta_[0-9]{6,9}\.json"
                   r"|tokenizer/[A-Za-z0-9][A-Za-z0-9._-]{0,79}")
_LABEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,79}")


@dataclass(frozen=True)
class Manifest:
    """One copy. `run` is where it came from, `source_manifest` the text of the trainer's own manifest, if any."""

    run: str
    checkpoint: CheckpointId
    files: Mapping[str, StoredFile]
    world_size: int = 0
    val_bpb: float | None = None
    created: float | None = None
    source_manifest: str | None = None
    tool: str = ""

    @property
    def stage(self) -> str:
        return STAGE_OF[self.checkpoint.folder.split("/")[-2]]

    @property
    def tag(self) -> str:
        return self.checkpoint.folder.split("/")[-1]

    @property
    def content(self) -> str:
        """The same for the same bytes under the same names, whoever copied them and when."""
        return content_id(self.files)

    @property
    def bytes(self) -> int:
        return sum(file.bytes for file in self.files.values())


def content_id(files: Mapping[str, StoredFile]) -> str:
    lines = "".join(f"{name}\0{file.bytes}\0{file.sha256}\n" for name, file in sorted(files.items()))
    return hashlib.sha256(lines.encode()).hexdigest()


def of_checkpoint(found: CheckpointFiles, files: Mapping[str, StoredFile], label: str) -> Manifest:
    """The manifest of a checkpoint whose files were hashed."""
    return Manifest(label, found.id, dict(files), found.world_size, found.val_bpb, found.created, found.manifest_text,
                    tool_version())


def tool_version() -> str:
    """Which program makes a copy, for whoever has to read it years later."""
    try:
        return f"llmconsole {metadata.version('llmconsole')}"
    except metadata.PackageNotFoundError:  # a bare copy of this folder on some machine
        return "llmconsole"


def run_label(base: str, folder: str) -> str:
    """A name for where checkpoints came from: the run when its folder says it, else the base directory's own name."""
    parts = [part for part in (*base.split("/"), *folder.split("/")[:-2]) if part]
    if len(parts) >= 3 and parts[-1] == "base" and parts[-3] == "runs":
        name = parts[-2]
    else:
        name = base.rstrip("/").rpartition("/")[2]
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-.")[:80]
    return name if _LABEL.fullmatch(name) else "nanochat"


def place_of(manifest: Manifest) -> str:
    """The readable place of a copy: runs/<run>/<stage>/<tag>/<step>; a second content under it gets another one."""
    return f"runs/{manifest.run}/{manifest.stage}/{manifest.tag}/{manifest.checkpoint.step:06d}"


def second_place(manifest: Manifest) -> str:
    return f"{place_of(manifest)}-{manifest.content[:12]}"


def dump(manifest: Manifest) -> bytes:
    """manifest.json; the same manifest gives the same bytes."""
    fields = {"v": 1, "kind": KIND, "run": manifest.run, "folder": manifest.checkpoint.folder,
              "stage": manifest.stage, "tag": manifest.tag, "step": manifest.checkpoint.step,
              "world_size": manifest.world_size, "val_bpb": manifest.val_bpb, "created": manifest.created,
              "source_manifest": manifest.source_manifest, "tool": manifest.tool, "content": manifest.content,
              "files": {name: {"bytes": file.bytes, "sha256": file.sha256}
                        for name, file in sorted(manifest.files.items())}}
    return json.dumps(fields, indent=2, sort_keys=True).encode() + b"\n"


def sums(manifest: Manifest, manifest_bytes: bytes) -> bytes:
    """SHA256SUMS of the files and of the manifest."""
    rows = {name: file.sha256 for name, file in manifest.files.items()}
    rows[MANIFEST] = hashlib.sha256(manifest_bytes).hexdigest()
    return "".join(f"{sha256}  {name}\n" for name, sha256 in sorted(rows.items())).encode()


def load(data: bytes, sha256: str | None = None) -> Manifest:
    """Read a manifest from anywhere. Raises DamagedCopy unless it is exactly what `dump` wrote.

    `sha256` is what a receipt says of it; without one a change is still noticed by the content id inside.
    """
    if sha256 is not None and hashlib.sha256(data).hexdigest() != sha256:
        raise DamagedCopy(f"{MANIFEST} is not the one that the receipt speaks of")
    try:
        if len(data) > MAX_BYTES:
            raise ValueError("it is too large")
        fields = json.loads(data)
        manifest = _manifest(fields)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise DamagedCopy(f"{MANIFEST} is damaged: {error}") from None
    if dump(manifest) != data:
        raise DamagedCopy(f"{MANIFEST} is damaged: something in it was changed or added")
    return manifest


def _manifest(fields: Mapping[str, Any]) -> Manifest:
    if fields["v"] != 1 or fields["kind"] != KIND:
        raise ValueError("it is of another kind or version")
    files = {str(name): stored_file(entry) for name, entry in fields["files"].items()}
    folder, step, run = fields["folder"], fields["step"], fields["run"]
    if not _FOLDER.fullmatch(folder) or not _LABEL.fullmatch(run) or type(step) is not int or step < 0:
        raise ValueError("it names no checkpoint")
    strange = [name for name in files if not _FILE.fullmatch(name)]
    if strange or f"model_{step:06d}.pt" not in files or f"meta_{step:06d}.json" not in files:
        raise ValueError(f"its files are not those of a checkpoint of step {step}")
    manifest = Manifest(run, CheckpointId(folder, step), files, int(fields["world_size"]), fields["val_bpb"],
                        fields["created"], fields["source_manifest"], str(fields.get("tool", "")))
    if fields["content"] != manifest.content:
        raise ValueError("its files are not those that it was written for")
    return manifest


def stage_folder(stage: str) -> str:
    return STAGE_FOLDERS[stage]
