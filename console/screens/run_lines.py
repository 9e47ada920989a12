"""The lines of the run screen as pure functions: how the run is and what to press, and its checkpoints."""

from __future__ import annotations

import time
from collections.abc import Sequence

from textual.content import Content

from console.glance import RunDetail
from console.runlog.queries import Eval, RunEvent
from console.text import clean_line
from console.widgets.numbers import ago, grouped, short, size
from console.widgets.states import LEVEL, RUN, run_state


def state_line(detail: RunDetail, machine: str, alert: RunEvent | None) -> Content:
    """One row: what happened, since when, and the next key; while all is well, the newest alert or the machine."""
    line = _state_words(detail, machine, alert)
    if not detail.run.attached:
        return line
    return Content.assemble(" ", ("attached (not ours)", "bold $text-accent"), line)


def _state_words(detail: RunDetail, machine: str, alert: RunEvent | None) -> Content:
    state, word = detail.state, str(detail.state.word)
    if word not in ("running", "starting", "finished", "queued"):
        return Content.assemble(" ", *_sentence(word, state.text), *_next(state.next))
    beat = detail.pulse(time.time())
    if beat.word:
        return Content.assemble(" ", run_state(beat.word), f"  {beat.text}", *_next(beat.next))
    if alert is not None and word != "finished":
        glyph, colour = LEVEL.get(str(alert.data.get("level")), LEVEL["info"])
        told = clean_line(str(alert.data.get("text", "")), 300)
        way_out = _next(str(alert.data.get("next", "")))
        return Content.assemble(" ", (f"{glyph} {told}", colour), f"  {ago(alert.t)}", *way_out)
    if word == "finished":
        return Content.assemble(" ", *_sentence(word, state.text), *_next(state.next))
    newest = max(state.last_sign or 0.0, detail.run.last_event or 0.0)
    sign = f"last sign of life {ago(newest)}" if newest else clean_line(state.text, 200)
    attempt = f" · attempt {state.attempt}" if state.attempt > 1 else ""
    tail = f" · {machine}" if machine else ""
    return Content.assemble(" ", (RUN[word][0], RUN[word][1]), (f" {sign}{attempt}{tail}", "$foreground-muted"))


def _sentence(word: str, text: str) -> list[Content | str]:
    """The state and what happened; a sentence that begins with the word says it once."""
    text = clean_line(text, 300)
    if text.lower().startswith(word):
        text = text[len(word):].lstrip(" ;:,")
    return [run_state(word), f"  {text}"]


def _next(text: str) -> list[Content | str]:
    return ["  ", Content.styled(clean_line(text, 200), "bold")] if text else []


def checkpoint_lines(detail: RunDetail, width: int) -> list[Content]:
    """Newest first: which stage, step, size, and bits per byte if measured then."""
    if not detail.checkpoints:
        told = "the first one is saved soon" if detail.state.alive else "none were saved"
        return [Content.styled(told, "$foreground-muted")]
    now = time.time()
    lines = []
    for saved in detail.checkpoints:
        bpb = bpb_at(detail.evals, saved.stage, saved.step)
        words = f"{clean_line(saved.source, 6):<5} step {grouped(saved.step):>6}  {size(saved.bytes or None):>8}"
        extra = f"  bpb {short(bpb, 4)}" if bpb is not None and width >= 44 else f"  {ago(saved.t, now)}"
        lines.append(Content.assemble(words, (extra, "$foreground-muted")))
    return lines


def bpb_at(evals: Sequence[Eval], stage: str | None, step: int) -> float | None:
    """The newest validation bits per byte of this stage at or before this step."""
    found = [e.values.get("val_bpb") for e in evals if e.stage == stage and e.step is not None and e.step <= step]
    numbers = [float(value) for value in found if isinstance(value, (int, float))]
    return numbers[-1] if numbers else None
