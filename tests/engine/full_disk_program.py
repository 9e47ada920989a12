"""python full_disk_program.py DISK: what becomes of checkpoints on a full disk, as JSON. DISK is a small one."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import torch

from engine.context import StageError
from engine.model.config import GPTConfig
from engine.model.gpt import GPT
from engine.train import checkpoint

_PAGE = 4096


def leave(disk: Path, pages: int) -> None:
    """Fill the disk up to so many free pages."""
    ballast = disk / "ballast"
    ballast.unlink(missing_ok=True)
    room = os.statvfs(disk)
    with open(ballast, "wb") as f:
        f.write(b"x" * max(0, room.f_bavail * room.f_frsize - pages * _PAGE))


def sweep(disk: Path) -> dict[str, Any]:
    """Save with room for 0, 1, 2, ... pages until it works; what was newest each time, and what was left lying."""
    model = GPT(GPTConfig(16, 64, 1, 2, 2, 32))
    model.init_weights(torch.Generator().manual_seed(0))
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.zeros(1, 4, dtype=torch.long), torch.zeros(1, 4, dtype=torch.long)).backward()
    optimizer.step()

    def save(step: int) -> None:
        checkpoint.save_checkpoint(
            disk / "d1", step, source="base", model=model.state_dict(), optimizers={0: [optimizer.state_dict()]},
            meta={"step": step, "model_config": model.config.to_dict()},
        )  # fmt: skip

    save(1)
    whole = {path.name for path in (disk / "d1").iterdir()}
    newest, left, texts = set(), set(), set()
    for pages in range(200):
        leave(disk, pages)
        try:
            save(2)
            break
        except StageError as error:
            newest.add(checkpoint.newest_valid(disk / "d1"))
            left |= {path.name for path in (disk / "d1").iterdir()} - whole
            texts.add((str(error), error.next, error.code))
    return {"tries": pages, "newest": sorted(newest), "left": sorted(left), "texts": sorted(texts),
            "then": checkpoint.newest_valid(disk / "d1")}


if __name__ == "__main__":
    print(json.dumps(sweep(Path(sys.argv[1]))))
