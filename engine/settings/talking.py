"""Settings of `python -m engine chat`: which model to load at once, if any."""

from __future__ import annotations

from dataclasses import dataclass

from engine.config import opt
from engine.settings.choices import BACKENDS, DEVICES, SOURCES, STORED


@dataclass(frozen=True)
class Talk:
    """Without source, tag and step nothing is loaded until a client asks for it."""

    json: bool = opt(True, "speak JSON lines, the only way it speaks")
    source: str | None = opt(None, "load the newest model of this stage", choices=SOURCES)
    model_tag: str | None = opt(None, "load the model of this tag")
    step: int | None = opt(None, "load the checkpoint of this step", low=0)
    device: str = opt("auto", "where to compute", choices=DEVICES)
    dtype: str = opt("auto", "precision of the weights", choices=STORED)
    backend: str = opt("auto", "what computes on a CPU", choices=BACKENDS)
