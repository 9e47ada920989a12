"""`llmconsole --demo`: the whole rented evening on this machine, for nothing.

A pretended RunPod runs beside the console as a process of its own, so it bills on when the console is killed, as the
real one would; its pods are real shells in a folder, and the recipe is the real pipeline with little data. State and
artifacts live in a folder of their own, so nothing here touches a person's runs, keys or settings.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

RECIPE = """\
# The tiny recipe cut down to about a minute: every stage runs for real, and the model stays a beginner.
title = "Demo"
summary = "Every stage of the real pipeline in about a minute, on a pretended pod; the model stays a beginner."
disk_gb = 1.0
memory_gb = 2.0

[minutes]
cpu = 1.5
gpu = 1.5
8xh100 = 1.5

[[stage]]
stage = "dataset"
documents = 3_000
conversations = 4_000

[[stage]]
stage = "tok_train"
vocab_size = 1024

[[stage]]
stage = "base_train"
depth = 4
head_dim = 64
max_seq_len = 256
device_batch_size = 4
total_batch_size = 1024
num_iterations = 100
eval_every = 25
eval_tokens = 8192
save_every = 50

[[stage]]
stage = "mid_train"
max_seq_len = 256
device_batch_size = 4
total_batch_size = 1024
num_iterations = 40
eval_every = 20
eval_tokens = 8192
save_every = 20

[[stage]]
stage = "chat_sft"
max_seq_len = 256
device_batch_size = 4
total_batch_size = 1024
num_iterations = 80
eval_every = 40
eval_tokens = 8192
save_every = 40

[[stage]]
stage = "report"
"""
CONFIG = """\
[run]
recipe = "demo"
target = "runpod"

[rent]
ready_minutes = 5
"""
CLOUD_HOURS = 3.0


def folder() -> Path:
    """Where the demo lives: the same for one person at every start, so that a killed console is found again."""
    return Path(tempfile.gettempdir()) / f"llmconsole-demo-{os.getuid()}"


def enter() -> Path:
    """Point this process at the demo's own world and have the pretended provider running; the console's folder.

    Raises OSError when it does not start.
    """
    from remote.fake_runpod.process import demo

    place = folder()
    place.mkdir(mode=0o700, exist_ok=True)
    if place.stat().st_uid != os.getuid() or place.is_symlink():
        raise PermissionError(f"{place} belongs to somebody else")
    home = place / "home"
    (home / "recipes").mkdir(parents=True, exist_ok=True)
    for path, text in ((home / "recipes" / "demo.toml", RECIPE), (home / "config.toml", CONFIG)):
        if not path.exists():
            path.write_text(text, encoding="utf-8")
    base, key = demo(place / "cloud", hours=CLOUD_HOURS)
    os.environ.update(LLMCONSOLE_HOME=str(home), NANOCHAT_BASE_DIR=str(place / "base"), RUNPOD_API_KEY=key,
                      LLMCONSOLE_RUNPOD_API=base)
    return home
