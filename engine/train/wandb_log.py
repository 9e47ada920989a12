"""The same numbers to Weights & Biases, for who asks for it with --run=NAME; an optional library, imported only then.

Projects and names of the numbers are nanochat's. The account's key is that library's own business.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from engine.context import StageError

OFF = "dummy"  # nanochat's word for no run
PROJECTS = {"base": "nanochat", "mid": "nanochat-mid", "sft": "nanochat-sft", "rl": "nanochat-rl"}

Observe = Callable[[int, Mapping[str, Any]], None]


@contextmanager
def mirror(name: str, source: str, settings: Mapping[str, Any], rank: int) -> Iterator[Observe | None]:
    """Where to send a step's numbers while the block runs; None where nobody asked, and on all ranks but the first.

    Raises StageError when the library is not installed.
    """
    if name == OFF or rank != 0:
        yield None
        return
    try:
        wandb = importlib.import_module("wandb")
    except ImportError:
        raise StageError(
            f"--run={name} sends the curves to Weights & Biases, whose library is not installed",
            "install it with: pip install 'llmconsole[wandb]', or leave --run out",
            "wandb",
        ) from None
    run = wandb.init(project=PROJECTS[source], name=name, config=dict(settings))
    try:
        yield lambda step, values: run.log({"step": step, **values})
    finally:
        run.finish()
