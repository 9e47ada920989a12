"""A scripted world for the screens: real run folders written with the real event writer, read by the real workspace."""

from __future__ import annotations

import asyncio
import hashlib
import json
import math
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from textual import events
from textual.geometry import Size

from console.app import Console
from console.settings import Settings
from console.workspace import Workspace
from engine import rundir
from engine.events import EventWriter
from engine.rundir import RunDir

STAGES = [
    ("dataset", "Data"),
    ("tok_train", "Tokenizer"),
    ("base_train", "Base"),
    ("chat_sft", "SFT"),
    ("chat_eval", "Chat eval"),
    ("report", "Report"),
]
WORKER = Path(__file__).parent / "fake_worker.py"


class World:
    """Writes runs below the test's base directory."""

    def __init__(self, base: Path) -> None:
        self.base = base

    def run(
        self,
        run_id: str = "tiny-1",
        *,
        end: str | None = None,
        steps: int = 60,
        nan_at: int | None = None,
        title: str = "Tiny",
        log: bytes = b"",
    ) -> RunDir:
        """A run that is in its third stage, or that ended: finished | failed | stopped."""
        stages = [{"id": f"{i:02d}-{s}", "stage": s, "title": t, "args": {}} for i, (s, t) in enumerate(STAGES, 1)]
        run = rundir.create(
            self.base,
            run_id,
            {
                "v": 1,
                "run": run_id,
                "recipe": "tiny",
                "title": title,
                "created": time.time(),
                "target": "local",
                "software": "test",
                "stages": stages,
            },
        )
        writer = EventWriter(run.events, run=run_id)
        writer.emit("run", {"state": "started", "recipe": "tiny", "title": title, "stages": stages})
        for stage in stages[:2]:
            self._whole_stage(writer, run, stage["id"])
        self._training(writer, run, stages[2]["id"], steps, nan_at, log)
        if end == "finished":
            writer.emit("stage", {"state": "finished", "seconds": 9.0}, stage=stages[2]["id"])
            for stage in stages[3:]:
                self._whole_stage(writer, run, stage["id"])
            writer.emit("eval", {"chat/capitals": 0.98, "chat/sums": 0.91}, stage=stages[4]["id"])
            self.model(run, "sft", 100)
        elif end is not None:
            writer.emit(
                "alert",
                {"level": "error", "code": "stage", "text": "out of [/memory] [red]", "next": "s resumes"},
                stage=stages[2]["id"],
            )
            writer.emit("stage", {"state": end, "exit_code": 1}, stage=stages[2]["id"])
        if end is not None:
            writer.emit("run", {"state": end, "exit_code": 0 if end == "finished" else 1})
        writer.close()
        return run

    def _whole_stage(self, writer: EventWriter, run: RunDir, stage: str) -> None:
        writer.emit("stage", {"state": "started", "argv": ["python", "-m", "engine", stage]}, stage=stage)
        run.stage_log(stage).write_text(f"{stage} says hello\n")
        writer.emit("stage", {"state": "finished", "seconds": 1.5}, stage=stage)

    def _training(
        self, writer: EventWriter, run: RunDir, stage: str, steps: int, nan_at: int | None, log: bytes
    ) -> None:
        writer.emit("stage", {"state": "started", "argv": ["python"]}, stage=stage)
        writer.emit("config", {"settings": {}, "tokens_per_step": 8192}, stage=stage)
        lines = []
        for step in range(1, steps + 1):
            loss = math.nan if step == nan_at else 2 + 4 * math.exp(-step / 10)
            writer.emit(
                "metric",
                {
                    "loss": loss,
                    "lrm": 1.0,
                    "dt": 0.4,
                    "tok_per_sec": 9000.0 + step,
                    "mfu": 41.0,
                    "grad_norm": 0.5,
                    "tokens": step * 8192,
                },
                step=step,
                stage=stage,
            )
            lines.append(f"step {step:05d}/00100 | loss {loss:.4f}\n")
        writer.emit("eval", {"val_bpb": 0.9}, step=steps, stage=stage)
        writer.emit(
            "stage", {"state": "progress", "done": steps, "total": 100, "unit": "step", "eta_s": 12.0}, stage=stage
        )
        writer.emit(
            "system",
            {
                "cpu_percent": 97.0,
                "mem_used_gb": 4.2,
                "mem_total_gb": 24.0,
                "rss_gb": 1.4,
                "gpus": [{"index": 0, "power_w": 690.0, "util": 99, "mem_gb": 71.6, "temp_c": 62}],
            },
            stage=stage,
        )
        writer.emit(
            "checkpoint",
            {
                "source": "base",
                "tag": "d4",
                "dir": "base_checkpoints/d4",
                "files": [],
                "bytes": 21_000_000,
                "manifest": "manifest_000050.json",
                "seconds": 0.1,
            },
            step=50,
            stage=stage,
        )
        run.stage_log(stage).write_bytes(log or "".join(lines).encode())

    def model(self, run: RunDir, source: str, step: int) -> None:
        """Files that the catalog takes for a checkpoint."""
        folder = run.base / {"base": "base_checkpoints", "sft": "chatsft_checkpoints"}[source] / "d4"
        folder.mkdir(parents=True)
        (run.base / "tokenizer").mkdir(exist_ok=True)
        (run.base / "tokenizer" / "tokenizer.pkl").write_bytes(b"x")
        shape = {"sequence_len": 256, "vocab_size": 1024, "n_layer": 4, "n_head": 2, "n_kv_head": 2, "n_embd": 256}
        meta = json.dumps({"step": step, "val_bpb": 0.5, "model_config": shape}).encode()
        (folder / f"model_{step:06d}.pt").write_bytes(b"w" * 100)
        (folder / f"meta_{step:06d}.json").write_bytes(meta)
        files = {
            f"model_{step:06d}.pt": {"bytes": 100, "sha256": hashlib.sha256(b"w" * 100).hexdigest()},
            f"meta_{step:06d}.json": {"bytes": len(meta), "sha256": hashlib.sha256(meta).hexdigest()},
        }
        (folder / f"manifest_{step:06d}.json").write_text(
            json.dumps({"v": 1, "step": step, "files": files, "source": source, "created": time.time()})
        )


class Driver:
    """The app under a pilot, with ways to wait for what background threads bring."""

    def __init__(self, app: Console, pilot: Any) -> None:
        self.app, self.pilot = app, pilot

    async def press(self, *keys: str) -> None:
        """Press keys one by one. The pilot's own `press` waits for an idle process, which live screens never are."""
        for key in keys:
            self.app.post_message(events.Key(key, " " if key == "space" else key if len(key) == 1 else None))
            await asyncio.sleep(0.02)

    async def write(self, text: str) -> None:
        await self.press(*[{" ": "space"}.get(char, char) for char in text])

    async def resize(self, width: int, height: int) -> None:
        """Resize the terminal and let the screen settle."""
        driver = self.app._driver
        assert driver is not None
        driver._size = (width, height)
        self.app.post_message(events.Resize(Size(width, height), Size(width, height)))
        await asyncio.sleep(0.06)

    async def until(self, holds: Callable[[], object], what: str, seconds: float = 8.0) -> None:
        """Wait until `holds()`; fail with what is on screen."""
        deadline = time.monotonic() + seconds
        while not holds():
            assert time.monotonic() < deadline, f"waited in vain for {what}; on screen:\n{self.text()}"
            await asyncio.sleep(0.02)

    async def sees(self, text: str, seconds: float = 8.0) -> None:
        await self.until(lambda: text in self.text(), repr(text), seconds)

    def text(self) -> str:
        """The screen as plain text."""
        strips = self.app.screen._compositor.render_strips()
        return "\n".join("".join(segment.text for segment in strip) for strip in strips)


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path / "base")


@pytest.fixture
def workspaces() -> Iterator[Callable[..., Workspace]]:
    """Opens workspaces that are closed after the test."""
    opened: list[Workspace] = []

    def make(read_only: bool = False) -> Workspace:
        opened.append(Workspace.open(read_only=read_only, patience=0.0))
        return opened[-1]

    yield make
    for workspace in reversed(opened):
        workspace.close()


@pytest.fixture
def drive(workspaces: Callable[..., Workspace]) -> Callable[..., Any]:
    """`async with drive(size) as driver`: the real app on this test's state, with the stand-in chat worker."""

    @asynccontextmanager
    async def open_app(
        size: tuple[int, int] = (120, 36), workspace: Workspace | None = None, **options: Any
    ) -> AsyncIterator[Driver]:
        workspace = workspace or workspaces()
        workspace.ingest()
        app = Console(workspace, Settings(), [sys.executable, str(WORKER)], **options)
        app.animation_level = "none"
        async with app.run_test(size=size, notifications=True) as pilot:
            driver = Driver(app, pilot)
            await driver.until(lambda: app.glance is not None, "the first look")
            yield driver
        await asyncio.sleep(0)

    return open_app
