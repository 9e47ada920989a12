"""Settings of the stage that copies checkpoints away from the machine: backup."""

from __future__ import annotations

from dataclasses import dataclass

from engine.config import opt


@dataclass(frozen=True)
class Backup:
    """Copy every whole checkpoint of the run elsewhere and read every byte back."""

    to: str = opt("", "hub:OWNER/NAME (made private; HF_TOKEN in the environment), or a folder on another disk",
                  required=True)
    strict: bool = opt(True, "fail the run when a copy is not proven; false: say so and go on")
