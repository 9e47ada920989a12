"""One rank of a small world that runs stages one after another.

python stages_program.py '[["chat_sft", BASE, {settings}], ...]'

An answer to a sum is right when its bytes add up to an even number: a model that knows nothing is right half the time.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import torch

from engine.config import from_mapping
from engine.context import StageContext
from engine.events import EventWriter
from engine.stage import find
from engine.tasks.gsm8k import Gsm8kFile
from engine.tasks.task import Problem


def even(task: Gsm8kFile, problem: Problem, answer: str) -> bool:
    return sum(answer.encode()) % 2 == 0


if __name__ == "__main__":
    Gsm8kFile.mark = even  # type: ignore[method-assign]
    torch.set_num_threads(1)
    rank = int(os.environ["RANK"])
    for name, base, settings in json.loads(sys.argv[1]):
        spec = find(name)
        events = EventWriter(Path(base) / "events.jsonl" if rank == 0 else None)
        spec.load()(from_mapping(spec.config, settings), StageContext(Path(base), events, name, rank=rank))
