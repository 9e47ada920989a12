"""Models as the chat screen shows them: their names, the lines of the picker, the words before the first question."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence

from textual.content import Content

from console.screens.picker import Choice
from console.text import clean_line
from console.widgets.numbers import ago, compact, grouped, short, size
from engine.catalog import ModelInfo
from engine.fit import Place, bytes_needed

_ON = {"cuda": " the GPU", "mps": " the GPU"}


def model_name(model: ModelInfo | None) -> str:
    """Short enough for a title: the run, the stage, the step."""
    if model is None:
        return ""
    return f"{clean_line(model.run_id or model.tag, 40)} {model.source} @{grouped(model.step)}"


def speaker_name(model: ModelInfo | None) -> str:
    """The same without the date that runs are named with: it stands above every answer."""
    return re.sub(r"-\d{8}-\d{6} ", " ", model_name(model))


def choices(models: Sequence[ModelInfo], place: Place) -> list[Choice]:
    """Newest first; what cannot be used, or does not fit into what is free there, stays listed with its reason."""
    now = time.time()
    return [Choice(m.ref, _line(m, place, now), f"{m.ref} {m.name}", _problem(m, place)) for m in models]


def _problem(model: ModelInfo, place: Place) -> str:
    if model.problem:
        return clean_line(model.problem, 200)
    need = bytes_needed(model, place.kind)
    if need is None or need <= place.free:
        return ""
    gpu = f" on {clean_line(place.name, 30)}" if place.kind == "cuda" else ""
    return f"does not fit: needs {size(need)}, {size(place.free)} are free{gpu}"


def _line(model: ModelInfo, place: Place, now: float) -> Content:
    """What tells it from others; its problem takes the room of its figures."""
    if _problem(model, place):
        return _where(model)
    bpb = f"bpb {short(model.val_bpb, 4)}" if model.val_bpb is not None else ""
    weights, need = compact(model.n_params) if model.n_params else "–", bytes_needed(model, place.kind)
    fits = f"fits{_ON.get(place.kind, '')}" if need is not None and place.kind else ""
    facts = f"{weights:>7}  {size(need):<8} {fits:<12} {bpb:<10} "
    return Content.assemble(_where(model), (facts + ago(model.created, now), "$foreground-muted"))


def _where(model: ModelInfo) -> Content:
    where = clean_line(model.run_id or "nanochat folder", 30)
    return Content.assemble(f"{where:<31}", (f"{model.source:<5}", "bold"), f"@{grouped(model.step):<8}")


def welcome(model: ModelInfo | None) -> Content:
    """What stands where the turns will be."""
    if model is None:
        way_out = "Press esc, then 1 and enter: the first row trains one in some minutes,\nand it answers here."
        return Content.assemble(("No model here yet\n\n", "bold"), way_out)
    hint = "Ask it who it is, to add two numbers, to spell a word, or to tell a story."
    return Content.assemble((f"{model_name(model)} is ready to talk\n\n", "bold"), (hint, "$foreground-muted"))
