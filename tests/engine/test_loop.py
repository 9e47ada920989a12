"""The training loop: resuming gives the same bits, stopping saves, a loss that is no number stops before the damage."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from engine.context import StageContext, StageError, Stopped
from engine.data.packing import ConversationBatches
from engine.device import Device
from engine.events import EventWriter, parse_line
from engine.model.config import GPTConfig
from engine.model.gpt import GPT
from engine.optim.setup import LearningRates, setup_optimizers
from engine.train import checkpoint
from engine.train.loop import Hooks, Progress, Schedule, Trainer, loop_state, progress_from
from engine.train.schedule import muon_momentum, warm_hold_down

CPU = Device(torch.device("cpu"), torch.float32, 1e12, "test")


class Numbers:
    """Batches that are a function of their index, so that a resume can be checked to the bit."""

    def __init__(self, start: dict[str, Any] | None = None, poison: int = -1) -> None:
        self.index = start["index"] if start else 0
        self.poison = poison

    def state(self) -> dict[str, Any]:
        return {"index": self.index}

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        while True:
            ids = torch.randint(0, 32, (2, 9), generator=torch.Generator().manual_seed(self.index))
            self.index += 1
            yield ids[:, :-1], ids[:, 1:]


def trainer(folder: Path, events: EventWriter | None = None, *, step: int = 0, **schedule: Any) -> Trainer:
    """A small trainer, restored from `folder` at `step` when that is not 0."""
    model = GPT(GPTConfig(16, 32, 2, 2, 2, 16))
    model.init_weights(torch.Generator().manual_seed(0))
    batches, progress = Numbers(), Progress()
    if step:
        model, meta = checkpoint.load_model(folder, step)
        batches, progress = Numbers(meta["dataloader_state_dict"]), progress_from(meta["loop_state"])
    optimizers = setup_optimizers(model, LearningRates(0.01, 0.1, 0.02))
    if step:
        for o, s in zip(optimizers, checkpoint.load_tensors(folder / f"optim_{step:06d}_rank0.pt"), strict=True):
            o.load_state_dict(s)
    options = {
        "steps": 12,
        "tokens_per_step": 32,
        "accumulation": 2,
        "grad_clip": 1.0,
        "momentum": muon_momentum,
        "lr_multiplier": lambda s: warm_hold_down(s, 12, 0.0, 0.5),
        **schedule,
    }
    context = StageContext(folder, events or EventWriter(None), "base_train")
    built = Trainer(
        model, optimizers, batches, Schedule(**options), Hooks(), CPU, context, step=step, progress=progress
    )

    def save(at: int, p: Progress) -> None:
        meta = {
            "step": at,
            "model_config": model.config.to_dict(),
            "dataloader_state_dict": batches.state(),
            "loop_state": loop_state(p),
        }
        checkpoint.save_checkpoint(
            folder,
            at,
            source="base",
            model=model.state_dict(),
            meta=meta,
            optimizers={0: [o.state_dict() for o in optimizers]},
        )

    built.hooks.save = save
    return built


@pytest.mark.parametrize("cut", [1, 5, 9])
def test_a_resumed_run_equals_an_unbroken_one_bit_for_bit(tmp_path: Path, cut: int) -> None:
    whole = trainer(tmp_path / "whole")
    whole.run()

    broken = trainer(tmp_path / "broken")
    stop_at(broken, cut)
    with pytest.raises(Stopped):
        broken.run()
    resumed = trainer(tmp_path / "broken", step=checkpoint.newest_valid(tmp_path / "broken") or 0)
    assert resumed.step == cut
    resumed.run()
    for a, b in zip(whole.model.parameters(), resumed.model.parameters(), strict=True):
        assert torch.equal(a, b)
    assert whole.progress.smooth_train_loss == resumed.progress.smooth_train_loss


def stop_at(run: Trainer, step: int) -> None:
    """Ask the run to stop while it takes its `step`-th step."""

    def multiplier(s: int) -> float:
        run.context.stop_requested = s + 1 >= step
        return warm_hold_down(s, 12, 0.0, 0.5)

    object.__setattr__(run.schedule, "lr_multiplier", multiplier)


def test_saves_and_evaluations_come_at_their_cadence(tmp_path: Path) -> None:
    run = trainer(tmp_path, eval_every=4, save_every=5)
    seen: list[int] = []
    run.hooks.evaluate = lambda step: (seen.append(step), 1.0)[1]  # type: ignore[func-returns-value]
    run.run()
    assert seen == [0, 4, 8, 12]
    assert checkpoint.list_steps(tmp_path) == [5, 10, 12]


def test_the_last_checkpoint_is_saved_before_the_last_evaluation(tmp_path: Path) -> None:
    run = trainer(tmp_path)

    def explode(step: int) -> float:
        raise MemoryError

    run.hooks.evaluate = explode
    with pytest.raises(MemoryError):
        run.run()
    assert checkpoint.newest_valid(tmp_path) == 12


def test_a_loss_that_is_no_number_stops_before_the_weights_are_touched(tmp_path: Path) -> None:
    events = tmp_path / "events.jsonl"
    run = trainer(tmp_path / "ck", EventWriter(events))
    with torch.no_grad():
        run.model.lm_head.weight.fill_(float("nan"))
    before = [p.clone() for p in run.model.transformer.parameters()]
    with pytest.raises(StageError, match="not a number at step 0"):
        run.run()
    assert all(torch.equal(a, b) for a, b in zip(before, run.model.transformer.parameters(), strict=True))
    metric = parse_line(events.read_bytes().splitlines()[-1])
    assert metric is not None and metric.kind == "metric" and metric.data["loss"] != metric.data["loss"]


def test_metrics_carry_what_the_curves_need(tmp_path: Path) -> None:
    events = tmp_path / "events.jsonl"
    run = trainer(tmp_path / "ck", EventWriter(events))
    run.run()
    metrics = [e for line in events.read_bytes().splitlines() if (e := parse_line(line)) and e.kind == "metric"]
    assert [m.step for m in metrics] == list(range(12))
    last = metrics[-1].data
    assert last["mfu"] == pytest.approx(100 * run.model.flops_per_token() * last["tok_per_sec"] / 1e12)
    assert last["tok_per_sec"] == pytest.approx(32 / last["dt"]) and last["tokens"] == 12 * 32
    assert last["grad_norm"] > 0 and last["lrm"] == pytest.approx(1 / 6)


def length_of(i: int) -> int:
    return 3 + (i * 7) % 11


def render(i: int) -> tuple[list[int], list[int]]:
    return [i + 1] * length_of(i), [0, 0] + [1] * (length_of(i) - 2)


def packed(start: dict[str, Any] | None = None, supervise_all: bool = False) -> ConversationBatches:
    return ConversationBatches(150, render, 2, 24, pad_id=0, supervise_all=supervise_all, start=start)


def test_packed_conversations_are_whole_and_each_comes_once_per_epoch() -> None:
    batches = packed(supervise_all=True)
    seen: list[int] = []
    for x, y in batches:
        if batches.state()["epoch"]:
            break
        rows = torch.cat([x, y[:, -1:].clamp(min=0)], dim=1)
        for row in rows.tolist():
            inside = set(row) - {0}
            assert all(row.count(token) == length_of(token - 1) for token in inside)
            seen += inside
    assert len(seen) == len(set(seen)) > 30


def test_only_supervised_tokens_are_targets() -> None:
    x, y = next(iter(packed()))
    ids, masks = x[0].tolist(), y[0].tolist()
    assert masks[0] == -1  # the second token of the first conversation is the user's
    assert all(target in (-1, ids[n + 1]) for n, target in enumerate(masks[:-1]))
    assert (y >= 0).any()


@pytest.mark.parametrize("cut", [0, 1, 7, 20])
def test_packing_resumes_at_the_exact_batch(cut: int) -> None:
    whole, first = packed(), packed()
    stream = iter(whole)
    expected = [next(stream) for _ in range(30)]
    part = iter(first)
    for _ in range(cut):
        next(part)
    resumed = iter(packed(first.state()))
    for x, y in expected[cut:]:
        rx, ry = next(resumed)
        assert torch.equal(x, rx) and torch.equal(y, ry)


class Uncounted:
    """As torch.compile's wrapper behaves: it may be called, but asking whether it is empty fails."""

    def __init__(self, model: GPT) -> None:
        self.model, self.calls = model, 0

    def __call__(self, x: Tensor, y: Tensor) -> Tensor:
        self.calls += 1
        return self.model(x, y)

    def __len__(self) -> int:
        raise TypeError


def test_training_goes_through_the_compiled_model_and_nothing_else_does(tmp_path: Path) -> None:
    plain, run = trainer(tmp_path / "a"), trainer(tmp_path / "b")
    run.compute = compute = Uncounted(run.model)
    run.hooks.evaluate = lambda step: run.model(torch.zeros(1, 4, dtype=torch.long)).mean().item()
    run.run()
    plain.run()
    assert compute.calls == 12 * 2
    assert all(torch.equal(a, b) for a, b in zip(run.model.parameters(), plain.model.parameters(), strict=True))


def test_a_measure_comes_at_its_cadence_and_at_the_end(tmp_path: Path) -> None:
    run = trainer(tmp_path)
    seen: list[int] = []
    often: list[int] = []
    run.hooks.measures = [(5, seen.append), (4, often.append)]
    run.run()
    assert seen == [5, 10, 12] and often == [4, 8, 12]
