"""Training stages on two ranks of one machine: one model and checkpoint, stopped, killed and resumed, also by one."""

from __future__ import annotations

import os
import random
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from engine.catalog import DIRECTORIES
from engine.context import StageContext
from engine.events import EventWriter
from engine.settings.data import Dataset, TokTrain
from engine.stage import find
from engine.train import checkpoint

ROOT = Path(__file__).parents[2]
COMMON = ["--max-seq-len=64", "--device-batch-size=2", "--total-batch-size=512", "--eval-tokens=512",
          "--device-type=cpu", "--dtype=float32", "--eval-every=none", "--save-every=4"]  # fmt: skip
BASE = ["base_train", *COMMON, "--depth=2", "--width=32", "--head-dim=16", "--num-iterations=24", "--sample-every=none"]
MODERN = ["base_train", *COMMON, "--depth=3", "--aspect-ratio=11", "--head-dim=16", "--architecture=modern",
          "--window-pattern=SL", "--num-iterations=16", "--sample-every=none", "--model-tag=m"]  # fmt: skip
MID = ["mid_train", *COMMON, "--num-iterations=16", "--model-tag=d2"]


@pytest.fixture(scope="module")
def world_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    base = tmp_path_factory.mktemp("prepared")
    for name, config in (
        ("dataset", Dataset(documents=2048, conversations=600, questions=50)),
        ("tok_train", TokTrain(vocab_size=400)),
    ):
        find(name).load()(config, StageContext(base, EventWriter(None), name))
    return base


class Ranks:
    """One command as several ranks, started as torchrun would."""

    def __init__(self, size: int, base: Path, *words: str) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        env = {**os.environ, "NANOCHAT_BASE_DIR": str(base), "WORLD_SIZE": str(size), "MASTER_ADDR": "127.0.0.1",
               "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1", "LLMCONSOLE_THREADS": "1"}  # fmt: skip
        self.processes = [
            subprocess.Popen(
                [sys.executable, "-m", "engine", *words],
                env={**env, "RANK": str(rank), "LOCAL_RANK": str(rank)},
                cwd=ROOT,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
            for rank in range(size)
        ]

    def finish(self, *codes: int) -> str:
        """What rank 0 said; every rank must have ended with one of `codes`."""
        said = [process.communicate(timeout=100)[0] for process in self.processes]
        assert all(process.returncode in (codes or (0,)) for process in self.processes), "\n---\n".join(said)
        return said[0]

    def signal(self, number: int, ranks: slice = slice(None)) -> None:
        for process in self.processes[ranks]:
            if process.poll() is None:
                process.send_signal(number)


def copied(prepared: Path, target: Path) -> Path:
    subprocess.run(["cp", "-r", str(prepared), str(target)], check=True)
    return target


def weights(base: Path, source: str, tag: str) -> dict[str, torch.Tensor]:
    folder, step = checkpoint.resolve(base, source, tag)
    return checkpoint.load_tensors(folder / f"model_{step:06d}.pt")


def wait_for(folder: Path, steps: int = 1) -> None:
    deadline = time.monotonic() + 60
    while len(list(folder.glob("manifest_*.json"))) < steps and time.monotonic() < deadline:
        time.sleep(0.02)


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


@pytest.mark.timeout(300)
@pytest.mark.parametrize(("words", "tag"), [(BASE, "d2"), (MODERN, "m")], ids=["classic", "modern"])
def test_two_ranks_killed_and_stopped_give_the_same_bits(
    world_base: Path, tmp_path: Path, words: list[str], tag: str
) -> None:
    whole, broken = copied(world_base, tmp_path / "whole"), copied(world_base, tmp_path / "broken")
    told = Ranks(2, whole, *words).finish()
    assert "2 ranks" in told
    folder = broken / DIRECTORIES["base"] / tag

    victim = Ranks(2, broken, *words, "--resume")
    wait_for(folder)
    time.sleep(random.Random(3).uniform(0, 0.1))
    victim.signal(signal.SIGKILL)
    victim.finish(-signal.SIGKILL, 0, 1)

    stopped = Ranks(2, broken, *words, "--resume")
    wait_for(folder, 2)
    stopped.signal(signal.SIGTERM, slice(1, 2))  # one rank hears it, both stop at the same step
    stopped.finish(0, 75)

    Ranks(2, broken, *words, "--resume").finish()
    assert same(weights(whole, "base", tag), weights(broken, "base", tag))
    _, step = checkpoint.resolve(broken, "base", tag)
    assert [p.name for p in checkpoint.optimizer_files(folder, step)] == [
        f"optim_{step:06d}_rank{rank}.pt" for rank in range(2)
    ]
    checkpoint.verify(folder, step)


@pytest.mark.timeout(300)
def test_conversations_on_two_ranks_are_those_of_one(world_base: Path, tmp_path: Path) -> None:
    """The same batches in the same steps: weights agree but for the order of sums, and one rank goes on from two."""
    base = copied(world_base, tmp_path / "base")
    Ranks(1, base, *BASE).finish()
    one, two = copied(base, tmp_path / "one"), copied(base, tmp_path / "two")
    Ranks(1, one, *MID).finish()
    Ranks(2, two, *MID).finish()
    a, b = weights(one, "mid", "d2"), weights(two, "mid", "d2")
    before = weights(base, "base", "d2")
    for key in a:
        assert (a[key] - b[key]).norm() <= 0.02 * (a[key] - before[key]).norm(), key
    folder = two / DIRECTORIES["mid"] / "d2"
    (folder / "manifest_000016.json").unlink()
    told = Ranks(1, two, *MID, "--resume").finish()
    assert "was saved by 2 ranks, here are 1" in told
    c = weights(two, "mid", "d2")
    for key in c:
        assert (c[key] - b[key]).norm() <= 0.02 * (b[key] - before[key]).norm(), key
