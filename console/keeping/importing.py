"""Brings somebody else's model here, however they arranged it, and sends one of ours out in transformers' format.

A source is a folder, `OWNER/NAME[@revision]`, or a bundle `OWNER/NAME::folder::pattern,pattern`; several together make
one. What arrives becomes a run of its own, so that it keeps its own tokenizer and the catalogue finds it. Tensors are
only touched in a process of the engine.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from console.errors import ConsoleError, NotFound, Refused
from console.keeping.backups import Progress, base_for, in_our_words, same_vocabulary, token_if_any
from console.paths import Home
from remote.secret_text import child_environment

if TYPE_CHECKING:
    from engine.catalog import ModelInfo
    from remote.backup.layouts import Found, Gathered
    from remote.backup.sources import Source

_CONVERT_S = 3600.0
_TRANSFORMERS = "config.json"
_TAKEN = re.compile(r"config\.json|generation_config\.json|tokenizer\.json|tokenizer\.pkl|[\w-]+\.safetensors"
                    r"|model-[0-9]+-of-[0-9]+\.safetensors|model\.safetensors\.index\.json"
                    r"|nanochat/(?:meta\.json|tokenizer\.pkl|token_bytes\.pt|padding\.safetensors)")


@dataclass(frozen=True)
class Arrived:
    """One checkpoint that is here now."""

    folder: Path
    stage: str
    step: int
    bytes: int


def open_sources(home: Home, specs: Sequence[str], revision: str | None = None) -> Gathered:
    """All that the specs name, as one. Raises NotFound, BadToken, NoAnswer."""
    from remote.backup.layouts import Gathered, parse_spec
    from remote.backup.sources import FolderSource, HubSource

    parts: list[tuple[Source, tuple[str, ...]]] = []
    with in_our_words():
        for text in specs:
            folder = Path(text).expanduser()
            if text and folder.is_dir():
                parts.append((FolderSource(folder.absolute()), ()))
                continue
            if text.startswith(("/", ".", "~")):
                raise NotFound(f"there is no folder {text}")
            from remote.backup.hub_wire import HubWire

            spec = parse_spec(text.removeprefix("hub:"))
            wire = HubWire(spec.repo, token_if_any(home))
            parts.append((HubSource(wire, spec.folder, spec.revision or revision), spec.patterns))
        return Gathered(parts)


def label_for(specs: Sequence[str]) -> str:
    """The run's name that the last source suggests."""
    name = re.sub(r"(::.*|@.*)", "", specs[-1]).rstrip("/").rpartition("/")[2]
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-.")[:60] or "imported"


def bring(home: Home, specs: Sequence[str], base: Path, label: str, progress: Progress, stop: threading.Event, *,
          stage: str | None = None, tag: str | None = None, step: int | None = None, optimizer: bool = True,
          revision: str | None = None) -> list[Arrived]:
    """Import everything that the sources hold below the run `label`; what is damaged or ambiguous ends it."""
    source = open_sources(home, specs, revision)
    target = base_for(base, label)
    from remote.backup import layouts

    with in_our_words():
        ours = layouts.copies(source)
        if ours:
            return [_copy(source, place, target, progress, stop, optimizer) for place in ours
                    if step is None or f"/{step:06d}" in f"/{place}"]
        found = [item for item in layouts.checkpoints(source, stage, tag) if step in (None, item.step)]
        if found:
            return [_foreign(source, item, target, label, progress, stop, optimizer) for item in found]
        names = {entry.path for entry in source.files()}
    if _TRANSFORMERS in names:
        return [_transformers(home, source, target, stage, tag, progress, stop)]
    raise NotFound(f"{source.name} holds no checkpoint: no model_<step>.pt with its meta, and no config.json",
                   "name a folder in it, such as OWNER/NAME::base/d20")


def _copy(source: Source, place: str, target: Path, progress: Progress, stop: threading.Event,
          optimizer: bool) -> Arrived:
    """One of our own copies, with its manifest."""
    from remote.backup import layouts
    from remote.backup.restore import read_manifest, restore

    before = f"{place}/" if place else ""
    paths = {entry.path[len(before):]: entry.path for entry in source.files() if entry.path.startswith(before)}
    renamed = layouts.Renamed(source, paths)
    done = restore(renamed, read_manifest(renamed), target, progress, stop, optimizer=optimizer,
                   same_tokenizer=same_vocabulary)
    return Arrived(done.folder, read_manifest(renamed).stage, done.step, sum(v.bytes for v in done.verdicts))


def _foreign(source: Source, found: Found, target: Path, label: str, progress: Progress, stop: threading.Event,
             optimizer: bool) -> Arrived:
    from remote.backup import layouts
    from remote.backup.restore import restore

    if not found.has_tokenizer and not (target / "tokenizer" / "tokenizer.pkl").exists():
        raise Refused(f"{source.name} has no tokenizer for {found.folder} step {found.step}, and one of another model "
                      "would make it talk nonsense", "name where its own tokenizer is as a further source")
    paths = {name: path for name, path in found.paths.items() if optimizer or not name.startswith("optim_")}
    renamed = layouts.Renamed(source, paths)
    manifest = layouts.manifest_of(source, type(found)(found.stage, found.tag, found.step, paths), label)
    done = restore(renamed, manifest, target, progress, stop, optimizer=optimizer, same_tokenizer=same_vocabulary)
    return Arrived(done.folder, found.stage, done.step, sum(v.bytes for v in done.verdicts))


def _transformers(home: Home, source: Source, target: Path, stage: str | None, tag: str | None, progress: Progress,
                  stop: threading.Event) -> Arrived:
    """A repository in transformers' format: fetched whole, converted by the engine, the fetched files removed."""
    work = target / ".restoring" / "transformers"
    with in_our_words():
        _fetch(source, work, progress, stop)
    words = ["import", "--from", str(work), "--base", str(target)]
    words += ["--source", stage] if stage else []
    words += ["--tag", tag] if tag else []
    reply = _engine(words)
    shutil.rmtree(work, ignore_errors=True)
    folder = Path(reply["folder"])
    size = (folder / f"model_{reply['step']:06d}.pt").stat().st_size
    return Arrived(folder, reply["source"], reply["step"], size)


def _fetch(source: Source, work: Path, progress: Progress, stop: threading.Event) -> None:
    """What the conversion reads and nothing else; each file compared with the listing's hash where it has one."""
    from remote.backup import fetching
    from remote.backup.layouts import stored_of
    from remote.backup.metering import Meter
    from remote.safekeeping import CheckpointId

    for entry in source.files():
        if not _TAKEN.fullmatch(entry.path):
            continue
        file = stored_of(source, entry)
        meter = Meter(progress, CheckpointId(source.name, 0), entry.path, "receive", file.bytes)
        if not (work / entry.path).exists():
            fetching.fetch(lambda begin, end, path=entry.path: source.open_range(path, begin, end),  # type: ignore[misc]
                           work / entry.path, file, meter, stop, source.streams)


def export(model: ModelInfo, target: Path) -> dict[str, Any]:
    """Write a model in transformers' format; folder, tensors and bytes. Raises ConsoleError with the engine's words."""
    words = ["export", "--base", str(model.tokenizer_dir.parent), "--source", model.source, "--tag", model.tag,
             "--step", str(model.step), "--out", str(target.expanduser().absolute())]
    return _engine(words)


def _engine(words: Sequence[str]) -> dict[str, Any]:
    """Run a verb of the engine that answers with one JSON line."""
    done = subprocess.run([sys.executable, "-m", "engine", *words], capture_output=True, text=True, check=False,
                          timeout=_CONVERT_S, stdin=subprocess.DEVNULL, env=child_environment())
    try:
        reply = json.loads(done.stdout.splitlines()[-1])
    except (ValueError, IndexError):
        last = done.stderr.strip().splitlines()
        raise ConsoleError(f"the conversion ended with exit code {done.returncode}: {last[-1] if last else ''}",
                           "llmconsole doctor checks the installation") from None
    if "error" in reply:
        raise ConsoleError(str(reply["error"]), str(reply.get("next", "")))
    return dict(reply)
