"""The run's event stream: append-only JSON lines that survive every crash and that anything can tail.

A line is one event: `{v, seq, t, mono, run, attempt, stage, kind, step, data}`. Each is written by a single `write`
on an O_APPEND descriptor under a file lock, so the supervisor and a stage may both write and `seq` still counts
1, 2, 3, ... without a gap. A last line without newline means "not yet"; the next writer cuts it off.

Kinds and their data:
  run         state: started | finished | failed | stopped; recipe, title, stages: [{id, stage, title}], pid, host,
              exit_code, reason
  stage       state: started | progress | finished | failed | stopped | skipped; index, total_stages, title, log,
              argv, exit_code, seconds, resumed; progress carries done, total, unit, eta_s
  config      settings as given, and what follows: n_params, flops_per_token, device, dtype, peak_flops,
              total_steps, tokens_per_step, ...
  metric      one training step: loss, lrm, dt (s), tok_per_sec, mfu (percent), grad_norm, tokens, train_time (s); in
              reinforcement learning reward (mean, 0 to 1) and sequence_length (tokens) instead of speed
  eval        results at a step: val_bpb, core_metric, chatcore_metric, pass@k, or a score per task ("chat/GSM8K": 0.05,
              "core/piqa": 0.31)
  sample      prompt, text
  checkpoint  source (base | mid | sft | rl), tag, dir, files, bytes, manifest, seconds
  system      cpu_percent, rss_gb, mem_used_gb, mem_total_gb, gpus: [{index, power_w, util, mem_gb, temp_c}]
  log-mark    text: a line worth jumping to in the log
  alert       level: info | warning | error; code, text (cause and consequence), next (what to press or type)
"""

from __future__ import annotations

import fcntl
import json
import math
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

VERSION = 1
KINDS = ("run", "stage", "config", "metric", "eval", "sample", "checkpoint", "system", "log-mark", "alert")
PAUSED, CONTINUED = "paused", "continued"  # codes of alerts: the stage was stopped by a signal, and is not any more
_NON_FINITE = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}
_TAIL_BYTES = 1 << 16


@dataclass(frozen=True)
class Event:
    """One line of events.jsonl. `t` is wall time and `mono` monotonic time on the box, both in seconds."""

    v: int
    seq: int
    t: float
    mono: float
    run: str
    attempt: int
    stage: str | None
    kind: str
    step: int | None
    data: dict[str, Any]


class EventWriter:
    """Appends events to one file; safe beside other writers, processes included.

    `path=None` makes a writer that goes nowhere, for a stage run by hand outside a run folder.
    """

    def __init__(self, path: Path | None, *, run: str = "", attempt: int = 1, stage: str | None = None) -> None:
        self.run, self.attempt, self.stage = run, attempt, stage
        self._fd = -1
        self._seq, self._end = 0, -1  # last sequence number, and the file size right after we wrote it
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._fd = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)

    def emit(self, kind: str, data: Mapping[str, Any], *, step: int | None = None, stage: str | None = None) -> int:
        """Append one event and return its sequence number. Raises OSError when the disk refuses it."""
        if self._fd < 0:
            return 0
        fcntl.flock(self._fd, fcntl.LOCK_EX)
        try:
            size = os.fstat(self._fd).st_size
            if size != self._end:
                size = self._catch_up(size)
            line = self._encode(kind, data, step, stage or self.stage)
            written = os.write(self._fd, line)
            if written != len(line):  # disk full: take the torn half back, so that no reader sees it
                os.ftruncate(self._fd, size)
                raise OSError(28, "disk full while writing an event")
            self._seq, self._end = self._seq + 1, size + written
            return self._seq
        finally:
            fcntl.flock(self._fd, fcntl.LOCK_UN)

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def metric(self, step: int, **values: float) -> None:
        self.emit("metric", values, step=step)

    def evaluation(self, step: int | None, **values: Any) -> None:
        self.emit("eval", values, step=step)

    def progress(self, done: float, total: float, unit: str, eta_s: float | None = None) -> None:
        self.emit("stage", {"state": "progress", "done": done, "total": total, "unit": unit, "eta_s": eta_s})

    def alert(self, level: str, code: str, text: str, next: str = "") -> None:
        self.emit("alert", {"level": level, "code": code, "text": text, "next": next})

    def _encode(self, kind: str, data: Mapping[str, Any], step: int | None, stage: str | None) -> bytes:
        row = {"v": VERSION, "seq": self._seq + 1, "t": round(time.time(), 3), "mono": round(time.monotonic(), 3),
               "run": self.run, "attempt": self.attempt, "stage": stage, "kind": kind, "step": step, "data": data}
        try:
            text = json.dumps(row, separators=(",", ":"), allow_nan=False)
        except ValueError:
            text = json.dumps({**row, "data": _name_non_finite(data)}, separators=(",", ":"), allow_nan=False)
        return text.encode() + b"\n"

    def _catch_up(self, size: int) -> int:
        """Another writer was here: cut a torn last line off, learn the last sequence number. Returns the new size."""
        tail = b""
        start = size
        while start > 0 and tail.count(b"\n") < 2:
            step = min(start, _TAIL_BYTES)
            start -= step
            tail = os.pread(self._fd, step, start) + tail
        whole = tail[: tail.rfind(b"\n") + 1]
        if len(whole) < len(tail):
            os.ftruncate(self._fd, start + len(whole))
        last = whole[:-1].rsplit(b"\n", 1)[-1]
        event = parse_line(last) if last else None
        self._seq = event.seq if event else 0
        return start + len(whole)


def _name_non_finite(value: Any) -> Any:
    """JSON has no NaN: write the name, `parse_line` turns it back."""
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else ("Infinity" if value > 0 else "-Infinity")
    if isinstance(value, Mapping):
        return {k: _name_non_finite(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_name_non_finite(v) for v in value]
    return value


def parse_line(line: bytes) -> Event | None:
    """The event in one complete line, or None when the line is not one of ours (foreign or damaged)."""
    try:
        row = json.loads(line.decode())
        data = row["data"]
        if not isinstance(data, dict) or not isinstance(row["stage"], (str, type(None))):
            return None
        if row["kind"] in ("metric", "eval") and str in map(type, data.values()):
            data = {k: _NON_FINITE.get(v, v) if isinstance(v, str) else v for k, v in data.items()}
        step = None if row["step"] is None else _count(row["step"])
        return Event(int(row["v"]), _count(row["seq"]), float(row["t"]), float(row["mono"]), str(row["run"]),
                     _count(row["attempt"]), row["stage"], str(row["kind"]), step, data)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, OverflowError):
        return None


def _count(value: Any) -> int:
    """A number that SQLite can hold too. Raises ValueError, TypeError or OverflowError."""
    number = int(value)
    if not -(1 << 63) <= number < 1 << 63:
        raise OverflowError
    return number


def split_lines(chunk: bytes) -> tuple[list[bytes], int]:
    """The complete lines at the start of `chunk` and how many bytes they take; a torn tail is left for later."""
    end = chunk.rfind(b"\n") + 1
    return (chunk[: end - 1].split(b"\n") if end else []), end
