"""One rank of a small world that runs stages one after another.

python stages_program.py '[["chat_sft", BASE, {settings}], ...]'
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

if __name__ == "__main__":
    torch.set_num_threads(1)
    rank = int(os.environ["RANK"])
    for name, base, settings in json.loads(sys.argv[1]):
        spec = find(name)
        events = EventWriter(Path(base) / "events.jsonl" if rank == 0 else None)
        spec.load()(from_mapping(spec.config, settings), StageContext(Path(base), events, name, rank=rank))
