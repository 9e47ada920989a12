"""Models as the chat screen shows them: their names, the lines of the picker, the words before the first question."""

from __future__ import annotations

import time
from collections.abc import Sequence

from textual.content import Content

from console.screens.picker import Choice
from console.text import clean_line
from console.widgets.numbers import ago, compact, grouped, short, size
from engine.catalog import ModelInfo

_FLOAT = 4  # bytes of a float32


def model_name(model: ModelInfo | None) -> str:
    """Short enough for a title: the run, the stage, the step."""
    if model is None:
        return ""
    return f"{clean_line(model.run_id or model.tag, 40)} {model.source} @{grouped(model.step)}"


def choices(models: Sequence[ModelInfo], free: float) -> list[Choice]:
    """Newest first; what cannot be used, or does not fit into `free` bytes, stays listed with its reason."""
    now = time.time()
    return [Choice(model.ref, _line(model, now), f"{model.ref} {model.name}", clean_line(_problem(model, free), 200))
            for model in models]


def memory_needed(model: ModelInfo) -> float | None:
    """Bytes that talking to it takes at most: float32 weights, the file's copy while they are read, a full context."""
    if model.n_params is None or model.config is None:
        return None
    config = model.config
    cache = 2 * config.n_layer * config.sequence_len * config.n_kv_head * config.head_dim * _FLOAT
    return model.n_params * _FLOAT + model.bytes + cache


def _problem(model: ModelInfo, free: float) -> str:
    need = memory_needed(model)
    if model.problem or need is None or need <= free:
        return model.problem or ""
    return f"needs {size(need)} of memory, {size(free)} are free"


def _line(model: ModelInfo, now: float) -> Content:
    bpb = f"bpb {short(model.val_bpb, 4)}" if model.val_bpb is not None else ""
    weights = compact(model.n_params) if model.n_params else "–"
    if model.problem:
        return _place(model)
    facts = f"{weights:>7}  takes {size(memory_needed(model)):<9} {bpb:<10} "
    return Content.assemble(_place(model), (facts + ago(model.created, now), "$foreground-muted"))


def _place(model: ModelInfo) -> Content:
    where = clean_line(model.run_id or "nanochat folder", 30)
    return Content.assemble(f"{where:<31}", (f"{model.source:<5}", "bold"), f"@{grouped(model.step):<8}")


def welcome(model: ModelInfo | None) -> Content:
    """What stands where the turns will be."""
    if model is None:
        way_out = "Press esc, then 1 and enter: the first row trains one in some minutes,\nand it answers here."
        return Content.assemble(("No model here yet\n\n", "bold"), way_out)
    hint = "Ask it who it is, to add two numbers, to spell a word, or to tell a story."
    return Content.assemble((f"{model_name(model)} is ready to talk\n\n", "bold"), (hint, "$foreground-muted"))
