"""The training stages as the supervisor runs them: real processes, real data, killed and resumed."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from engine.catalog import DIRECTORIES
from engine.context import EXIT_STOPPED, StageContext
from engine.events import EventWriter
from engine.settings.data import Dataset, TokTrain
from engine.stage import find
from engine.train import checkpoint

SMALL = [
    "--max-seq-len=64",
    "--device-batch-size=4",
    "--total-batch-size=512",
    "--eval-tokens=512",
    "--device-type=cpu",
    "--dtype=float32",
    "--eval-every=none",
]
STAGES = {
    "base_train": (
        "base",
        [
            *SMALL,
            "--depth=1",
            "--width=32",
            "--head-dim=16",
            "--num-iterations=60",
            "--save-every=4",
            "--sample-every=none",
        ],
    ),
    "mid_train": ("mid", [*SMALL, "--num-iterations=40", "--save-every=4"]),
    "chat_sft": ("sft", [*SMALL, "--num-iterations=40", "--save-every=4", "--init-lr-frac=0.5"]),
}


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base directory with a little data and a tokenizer."""
    base = tmp_path_factory.mktemp("prepared")
    for name, config in (
        ("dataset", Dataset(documents=2048, conversations=600, questions=50)),
        ("tok_train", TokTrain(vocab_size=400)),
    ):
        find(name).load()(config, StageContext(base, EventWriter(None), name))
    return base


def start(base: Path, stage: str, *more: str) -> subprocess.Popen[bytes]:
    env = {**os.environ, "NANOCHAT_BASE_DIR": str(base), "OMP_NUM_THREADS": "1", "LLMCONSOLE_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, "-m", "engine", stage, *STAGES[stage][1], *more],
        env=env,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )


def finish(process: subprocess.Popen[bytes], *also: int) -> int:
    _, error = process.communicate(timeout=100)
    assert process.returncode in (0, EXIT_STOPPED, *also), error.decode()
    return process.returncode


def weights(base: Path, source: str) -> dict[str, torch.Tensor]:
    folder, step = checkpoint.resolve(base, source)
    return checkpoint.load_tensors(folder / f"model_{step:06d}.pt")


def wait_for_checkpoint(base: Path, source: str, process: subprocess.Popen[bytes]) -> None:
    folder = base / DIRECTORIES[source]
    deadline = time.monotonic() + 60
    while process.poll() is None and time.monotonic() < deadline and not list(folder.glob("*/manifest_*.json")):
        time.sleep(0.02)


def copied(prepared: Path, target: Path) -> Path:
    subprocess.run(["cp", "-r", str(prepared), str(target)], check=True)
    return target


@pytest.mark.timeout(300)
def test_killed_at_random_and_resumed_gives_the_same_weights(prepared: Path, tmp_path: Path) -> None:
    """kill -9 in every training stage, then SIGTERM, then to the end: bit for bit what an unbroken run gives."""
    whole, broken = copied(prepared, tmp_path / "whole"), copied(prepared, tmp_path / "broken")
    generator = random.Random(5)
    for stage, (source, _) in STAGES.items():
        assert finish(start(whole, stage)) == 0

        victim = start(broken, stage, "--resume")
        wait_for_checkpoint(broken, source, victim)
        time.sleep(generator.uniform(0, 0.1))
        victim.send_signal(signal.SIGKILL)
        victim.communicate()

        stopped = start(broken, stage, "--resume")
        time.sleep(3.5)
        stopped.send_signal(signal.SIGTERM)
        finish(stopped, -signal.SIGTERM)  # on a busy machine it may not have got as far as to listen

        assert finish(start(broken, stage, "--resume")) == 0
        ours, theirs = weights(broken, source), weights(whole, source)
        assert all(torch.equal(ours[key], theirs[key]) for key in theirs), stage


def test_a_stage_without_its_input_says_what_to_run(tmp_path: Path) -> None:
    process = start(tmp_path, "base_train")
    _, error = process.communicate(timeout=60)
    assert process.returncode == 1
    assert b"run tok_train first" in error and b"Traceback" not in error


def test_batch_sizes_that_do_not_divide_are_refused_with_a_number_that_works(prepared: Path, tmp_path: Path) -> None:
    process = start(copied(prepared, tmp_path / "b"), "base_train", "--total-batch-size=300")
    _, error = process.communicate(timeout=60)
    assert process.returncode == 1 and b"--total-batch-size=256" in error and b"Traceback" not in error


def test_another_tokenizer_is_refused(prepared: Path, tmp_path: Path) -> None:
    base = copied(prepared, tmp_path / "b")
    assert finish(start(base, "base_train", "--num-iterations=2")) == 0
    find("tok_train").load()(TokTrain(vocab_size=420), StageContext(base, EventWriter(None), "tok_train"))
    process = start(base, "mid_train")
    _, error = process.communicate(timeout=60)
    assert process.returncode == 1 and b"another tokenizer" in error
