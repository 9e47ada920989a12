"""Where a run of nanochat is, as far as its log has told: the stage, its step, its settings, what waits for a decision.

The log names no stage: that one has begun is known from lines that only it prints, that one is over from its last
words or the next one's first. Which line means what is the business of `engine.nanochat_log`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

TITLES = {"dataset": "Data", "tok_train": "Tokenizer", "tok_eval": "Tokenizer eval", "base_train": "Base",
          "base_eval": "Base eval", "mid_train": "Mid", "chat_sft": "SFT", "chat_eval": "Chat eval", "chat_rl": "RL"}
SOURCES = {"base_checkpoints": ("base", "base_train"), "mid_checkpoints": ("mid", "mid_train"),
           "chatsft_checkpoints": ("sft", "chat_sft"), "chatrl_checkpoints": ("rl", "chat_rl")}


@dataclass(frozen=True)
class Found:
    """One event in a log: `kind` and `data` as in `engine.events`. `t` is wall time in seconds where the log has it."""

    kind: str
    stage: str | None
    step: int | None
    data: dict[str, Any]
    t: float | None = None


class LogState:
    """The present stage; every change of it is told as events."""

    def __init__(self) -> None:
        self.stage: str | None = None
        self.step: int | None = None
        self._t: float | None = None     # wall time of the line at hand
        self._config: dict[str, Any] = {}
        self._percent = -1
        self._ended = False              # the stage has said its last words; what comes next belongs to another
        self._undecided: list[Found] = []

    def _begin(self, stage: str, *, anew: bool = False) -> list[Found]:
        """We are in this stage from now on; `anew` begins it again after its end."""
        if self.stage == stage and not (anew and self._ended):
            return []
        found = self._finish()
        self.stage, self._ended, self._percent = stage, False, -1
        title = TITLES.get(stage, stage)
        found.append(self._event("stage", {"state": "started", "title": title}))
        held, self._undecided = self._undecided, []
        return [*found, *(Found(each.kind, stage, each.step, each.data, each.t) for each in held)]

    def _finish(self, **data: Any) -> list[Found]:
        """The present stage is over. Said once."""
        if self.stage is None or (self._ended and not data):
            return []
        already, self._ended = self._ended, True
        return [self._event("stage", {"state": "finished", "title": TITLES.get(self.stage, self.stage), **data})
                ] if not already else []

    def _event(self, kind: str, data: dict[str, Any], step: int | None = None) -> Found:
        return Found(kind, self.stage, step, data, self._t)

    def _settle(self) -> list[Found]:
        """The settings that were printed before the first step, as one event."""
        config, self._config = self._config, {}
        return [self._event("config", config)] if config else []

    def _advance(self, done: float, total: float, unit: str, step: int | None = None) -> list[Found]:
        """How far the stage is, told once per percent."""
        percent = int(100 * done / total) if total else -1
        if percent == self._percent:
            return []
        self._percent = percent
        return [self._event("stage", {"state": "progress", "done": done, "total": total, "unit": unit, "eta_s": None},
                            step)]
