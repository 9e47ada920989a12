"""SFT and RL on two ranks: what one process computes, after kill -9 too, and from one number of ranks to another."""

from __future__ import annotations

import json
import random
import shutil
import signal
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from engine.config import from_mapping
from engine.context import StageContext
from engine.data.packing import ConversationBatches
from engine.dist import World
from engine.events import EventWriter, parse_line
from engine.stage import find
from engine.tasks.gsm8k import Gsm8kFile
from engine.train import checkpoint
from engine.train.padded import PaddedConversations
from engine.train.rank_view import RankView

PROGRAM = Path(__file__).with_name("stages_program.py")
HERE: dict[str, Any] = {"device_type": "cpu", "dtype": "float32", "eval_every": None}
SFT = {**HERE, "max_seq_len": 32, "device_batch_size": 2, "total_batch_size": 128, "eval_tokens": 128,
       "num_iterations": 8, "save_every": 2, "init_lr_frac": 0.5}  # fmt: skip
RL = {**HERE, "task": "sums.jsonl", "device_batch_size": 4, "num_samples": 4, "examples_per_step": 2,
      "max_new_tokens": 4, "num_iterations": 4, "save_every": 2, "eval_examples": 2, "init_lr_frac": 0.3}  # fmt: skip
FOLDERS = {"chat_sft": "chatsft_checkpoints", "chat_rl": "chatrl_checkpoints"}
TOLERANCE = 2e-6  # sums in another order, and Muon's batched product of fewer matrices: last bits only

Files = dict[str, Any]


def fresh(base: Path, name: str) -> Path:
    """A copy of a base directory beside it."""
    target = base.parent / name
    shutil.copytree(base, target)
    return target


def alone(stage: str, base: Path, settings: dict[str, Any]) -> None:
    spec = find(stage)
    spec.load()(from_mapping(spec.config, settings), StageContext(base, EventWriter(base / "events.jsonl"), stage))


def weights(base: Path, stage: str, step: int) -> dict[str, torch.Tensor]:
    return checkpoint.load_tensors(base / FOLDERS[stage] / "d1" / f"model_{step:06d}.pt")


def apart(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> float:
    return max((a[key] - b[key]).abs().max().item() for key in b)


def metrics(base: Path, name: str) -> list[float]:
    events = (parse_line(line) for line in (base / "events.jsonl").read_bytes().splitlines())
    return [event.data[name] for event in events if event and event.kind == "metric"]


@pytest.mark.timeout(200)
@pytest.mark.parametrize(("stage", "settings", "half", "told"), [
    ("chat_sft", SFT, 4, "loss"), ("chat_rl", RL, 2, "reward")])
def test_two_ranks_are_one(
    byte_base: Path, in_a_world: Callable[..., None], start_world: Callable[..., Any], stage: str,
    settings: dict[str, Any], half: int, told: str, monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One process, two ranks, two ranks killed and resumed, one rank's checkpoint on two and two ranks' on one."""
    monkeypatch.setattr(Gsm8kFile, "mark", lambda task, problem, answer: sum(answer.encode()) % 2 == 0)
    last = settings["num_iterations"]
    if stage == "chat_sft":
        shutil.rmtree(byte_base / FOLDERS[stage])
    single, whole, broken, wider = (fresh(byte_base, name) for name in ("single", "whole", "broken", "wider"))
    alone(stage, single, settings)
    folder = wider / FOLDERS[stage] / "d1"
    for path in (single / FOLDERS[stage] / "d1").glob(f"*_{half:06d}*"):
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, folder)

    victims = start_world(2, str(PROGRAM), json.dumps([[stage, str(broken), settings]]))
    deadline = time.monotonic() + 90
    while not list((broken / FOLDERS[stage]).glob("d1/manifest_*.json")) and time.monotonic() < deadline:
        time.sleep(0.005)
    time.sleep(random.Random(3).uniform(0, 0.02))
    for victim in victims:
        victim.send_signal(signal.SIGKILL)
    assert -signal.SIGKILL in [victim.wait() for victim in victims]
    assert not (broken / FOLDERS[stage] / "d1" / f"manifest_{last:06d}.json").exists()

    resume = {**settings, "resume": True}
    in_a_world(2, str(PROGRAM), json.dumps([[stage, str(whole), settings], [stage, str(broken), resume],
                                            [stage, str(wider), {**settings, "resume_from_step": half}]]))  # fmt: skip
    assert len(set(metrics(single, told))) > 1
    reference = weights(single, stage, last)
    assert apart(weights(whole, stage, last), reference) < TOLERANCE
    assert metrics(whole, told) == pytest.approx(metrics(single, told), abs=1e-5)
    twice = weights(broken, stage, last)
    assert all(torch.equal(twice[key], value) for key, value in weights(whole, stage, last).items())
    assert apart(weights(wider, stage, last), reference) < TOLERANCE

    narrower = fresh(whole, "narrower")
    alone(stage, narrower, {**settings, "resume_from_step": half})
    assert apart(weights(narrower, stage, last), reference) < TOLERANCE
    names = {path.name for path in (whole / FOLDERS[stage] / "d1").glob(f"optim_{last:06d}*")}
    assert names == {f"optim_{last:06d}_rank0.pt", f"optim_{last:06d}_rank1.pt"}


def render(i: int) -> tuple[list[int], list[int]]:
    """Conversation i begins with 1000 + i, so that a batch tells what is in it."""
    return [1000 + i, *[1] * (2 + i % 7)], [1] * (3 + i % 7)


def seen(batches: list[Any]) -> Counter[int]:
    """How often each conversation is in some batches."""
    return Counter(int(i) - 1000 for x, _ in batches for i in x.flatten() if i >= 1000)


@pytest.mark.parametrize("size", [1, 2, 4])
def test_every_conversation_is_seen_once_by_one_rank(size: int) -> None:
    def packed() -> ConversationBatches:
        return ConversationBatches(400, render, 2, 16, pad_id=0, supervise_all=False)

    def padded() -> PaddedConversations:
        return PaddedConversations(150, render, 5, pad_id=0)

    for make, turns in ((padded, 30), (packed, 16)):
        views = [RankView(make(), World(rank, size)) for rank in range(size)]
        streams = [iter(view) for view in views]
        counts = seen([next(stream) for _ in range(-(-turns // size)) for stream in streams])
        if make is padded:
            assert sum(counts.values()) == 150 + -turns % size * 5 and len(counts) == 150
        else:
            state = views[0].state()
            assert all(view.state() == state for view in views)
            drawn = state["epoch"] * 400 + state["cursor"]
            assert max(counts.values()) == 1 and len(counts) == drawn - len(state["buffer"])
            assert not set(counts) & set(state["buffer"])
