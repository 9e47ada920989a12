"""Whether a stage that is said to run still steps: quiet for a while, or stalled, by how long its own steps take.

A stopped process (SIGSTOP), a hanging kernel or a dead disk leave the run's job alive, and its supervisor goes on
measuring the machine; only the steps stop. Pure: it is given times and decides.
"""

from __future__ import annotations

from dataclasses import dataclass

from console.widgets.numbers import grouped, span

QUIET, STALLED = "quiet", "stalled"
_QUIET_STEPS, _QUIET_S = 10, 15.0  # an evaluation or a save takes some steps' time
_STALLED_STEPS, _STALLED_S = 100, 120.0
_QUIET_WITHOUT_STEPS_S = 90.0  # a stage that does not step says less


@dataclass(frozen=True)
class Signs:
    """What is known of the stage that runs. `t` of `step` and `log_changed` are this machine's wall time."""

    started: float | None
    step: int | None
    t: float | None
    per_step: float | None  # seconds
    log_changed: float | None


@dataclass(frozen=True)
class Pulse:
    """`word` is '' while all is well."""

    word: str = ""
    text: str = ""
    next: str = ""


def pulse(signs: Signs, now: float) -> Pulse:
    """How the stage's heart beats."""
    newest = max((t for t in (signs.started, signs.t, signs.log_changed) if t is not None), default=None)
    if newest is None:
        return Pulse()
    age, per_step = now - newest, signs.per_step
    if signs.step is None or per_step is None:
        return Pulse(QUIET, f"no line for {span(age)}") if age > _QUIET_WITHOUT_STEPS_S else Pulse()
    told = f"no step for {span(age)} since step {grouped(signs.step)}; one takes {span(per_step)}"
    if age > max(_STALLED_S, _STALLED_STEPS * per_step):
        return Pulse(STALLED, f"{told}. Stopped, hanging, or waiting for a disk",
                     "x stops it, s then goes on from the newest checkpoint")
    if age > max(_QUIET_S, _QUIET_STEPS * per_step):
        return Pulse(QUIET, f"{told}. It may be evaluating or saving")
    return Pulse()
