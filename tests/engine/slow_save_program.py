"""python slow_save_program.py STAGE --flags: a stage whose every save takes SLOW_SAVE_S seconds longer."""

from __future__ import annotations

import os
import sys
import time
from typing import Any

from engine.__main__ import main
from engine.train import checkpoint

_save = checkpoint.save_checkpoint


def _slowly(*args: Any, **settings: Any) -> checkpoint.Saved:
    print("saving", flush=True)
    time.sleep(float(os.environ["SLOW_SAVE_S"]))
    return _save(*args, **settings)


if __name__ == "__main__":
    checkpoint.save_checkpoint = _slowly
    sys.exit(main())
