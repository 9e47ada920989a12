"""The one training loop. A stage supplies batches, a schedule and its evaluations; the loop supplies everything else:
accumulation, clipping, metrics, MFU, progress, checkpoints, stopping, and resuming bit for bit, on one rank or many.
"""

from __future__ import annotations

import gc
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor

from engine.context import StageContext, StageError, Stopped
from engine.device import Device
from engine.dist import ALONE, World
from engine.model.gpt import GPT
from engine.optim.setup import set_averaged, set_rates
from engine.train.rank_view import Batches

COLLECT_EVERY = 5000  # steps between two garbage collections on a GPU
WARMUP_STEPS = 10  # not counted in the training time: caches, allocator and compilation settle


@dataclass
class Progress:
    """What must survive between steps besides weights, optimizer and data position: the meta file's `loop_state`."""

    min_val_bpb: float = math.inf
    smooth_train_loss: float = 0.0
    total_training_time: float = 0.0  # seconds


def constant(step: int) -> float:
    return 1.0


@dataclass(frozen=True)
class Schedule:
    """How long and how fast. Learning rate, momentum and weight decay map a step to a number and to nothing else.

    `tokens_per_step` counts all ranks; `accumulation` the forward passes of one rank.
    """

    steps: int
    tokens_per_step: int
    accumulation: int
    lr_multiplier: Callable[[int], float]
    momentum: Callable[[int], float]
    grad_clip: float = 0.0
    eval_every: int | None = None
    save_every: int | None = None
    sample_every: int | None = None
    decay_multiplier: Callable[[int], float] = constant


@dataclass
class Hooks:
    """What a stage wants done at the loop's cadence. `save` commits a checkpoint of the state after `step` steps; where
    there is none, nothing is kept. `measures` are longer evaluations, each with the steps between two of them.

    All ranks call each of them at the same step.
    """

    evaluate: Callable[[int], float] | None = None
    sample: Callable[[int], object] | None = None
    save: Callable[[int, Progress], None] | None = None
    measures: Sequence[tuple[int, Callable[[int], object]]] = ()


@dataclass
class Trainer:
    """Model, optimizers and data at one moment of training. `compute` is the model as training runs it, maybe compiled;
    evaluations and checkpoints use `model` itself."""

    model: GPT
    optimizers: list[torch.optim.Optimizer]
    batches: Batches
    schedule: Schedule
    hooks: Hooks
    device: Device
    context: StageContext
    step: int = 0
    saved_at: int = -1
    val_bpb: float | None = None
    progress: Progress = field(default_factory=Progress)
    world: World = ALONE
    compute: Callable[..., Tensor] | None = None

    def run(self) -> None:
        """Train from `step` to the end of the schedule; saves before the last evaluation, so nothing can lose the run.

        Raises Stopped after saving when asked to stop, StageError when the loss is not a number.
        """
        stream = iter(self.batches)
        clip = self.schedule.grad_clip > 0
        set_averaged(self.optimizers, clip and not self.world.alone)
        while self.step < self.schedule.steps:
            if self._due(self.schedule.eval_every):
                self._evaluate()
            self._one_step(stream)
            if self.device.device.type == "cuda":
                self._quieten_collector()
            if self.world.any(self.context.stop_requested):
                if self.step != self.saved_at:
                    self._save()
                goes_on = "; resume goes on from here" if self.hooks.save else ""
                self.context.log(f"stopped on request after step {self.step}{goes_on}")
                raise Stopped
            if self.step < self.schedule.steps:
                if self._due(self.schedule.save_every):
                    self._save()
                self._measure([measure for every, measure in self.hooks.measures if self._due(every)])
                if self.hooks.sample and self._due(self.schedule.sample_every):
                    self.hooks.sample(self.step)
        if self.step != self.saved_at:
            self._save()
        self._evaluate()
        self._measure([measure for _, measure in self.hooks.measures])
        if self.hooks.sample:
            self.hooks.sample(self.step)

    def _quieten_collector(self) -> None:
        """Keep Python's garbage collector from scanning all that the first step made, which stalls the GPU."""
        if gc.isenabled():
            gc.collect()
            gc.freeze()
            gc.disable()
        elif self.step % COLLECT_EVERY == 0:
            gc.collect()

    def _measure(self, measures: Sequence[Callable[[int], object]]) -> None:
        for measure in measures:
            self.model.eval()
            measure(self.step)

    def _due(self, every: int | None) -> bool:
        return every is not None and self.step % every == 0

    def _one_step(self, stream: Iterator[tuple[Tensor, Tensor]]) -> None:
        multiplier, momentum = self.schedule.lr_multiplier(self.step), self.schedule.momentum(self.step)
        self.device.synchronize()
        begin = time.perf_counter()
        loss = self._accumulate(stream)
        grad_norm = self._grad_norm()
        self._refuse_nan(loss)
        set_rates(self.optimizers, multiplier, momentum, self.schedule.decay_multiplier(self.step))
        for optimizer in self.optimizers:
            optimizer.step()
        self.model.zero_grad(set_to_none=True)
        self.device.synchronize()
        self._account(loss, grad_norm, multiplier, time.perf_counter() - begin)

    def _accumulate(self, stream: Iterator[tuple[Tensor, Tensor]]) -> float:
        """Forward and backward over one optimizer step's batches; the mean loss of all ranks in nats per token."""
        self.model.train()
        compute = self.model if self.compute is None else self.compute
        total = torch.zeros((), device=self.device.device)
        for _ in range(self.schedule.accumulation):
            x, y = next(stream)
            loss = compute(x, y) / self.schedule.accumulation
            loss.backward()
            total += loss.detach()
        return self.world.total(total).item() / self.world.size

    def _grad_norm(self) -> float | None:
        """Clip the gradients; their norm before that. Ranks average first, so that the clip is that of the whole batch
        (nanochat clipped each rank's own); where there is none, they do so inside the optimizers, and no norm is known.
        """
        clip = self.schedule.grad_clip or math.inf
        if clip == math.inf and (not self.world.alone or self.device.device.type == "cuda"):
            return None  # on a GPU it would cost 2 % of the step
        gradients = [p.grad for p in self.model.parameters() if p.grad is not None]
        if not self.world.alone:
            self.world.average(gradients)
        norm = torch.nn.utils.get_total_norm(gradients)
        if clip < math.inf:
            torch.nn.utils.clip_grads_with_norm_(self.model.parameters(), clip, norm)
        return norm.item()

    def _refuse_nan(self, loss: float) -> None:
        """A loss that is not a number never recovers: keep the weights out of it, say so and stop."""
        if math.isfinite(loss):
            return
        self.context.events.metric(self.step, loss=loss)
        raise StageError(
            f"the loss is not a number at step {self.step}; training stopped before the weights were touched",
            "resume goes on from the last checkpoint; lower the learning rates if it happens again",
            "nan",
        )

    def _account(self, loss: float, grad_norm: float | None, multiplier: float, seconds: float) -> None:
        """Count the step and log it; line and event carry the number of the step just done, from 0."""
        done, p, s = self.step, self.progress, self.schedule
        p.smooth_train_loss = 0.9 * p.smooth_train_loss + 0.1 * loss
        debiased = p.smooth_train_loss / (1 - 0.9 ** (done + 1))
        if done >= WARMUP_STEPS:
            p.total_training_time += seconds
        rate = s.tokens_per_step / seconds
        peak = self.device.peak_flops * self.world.size
        mfu = 100 * self.model.flops_per_token() * rate / peak if peak else 0.0
        eta = (s.steps - done - 1) * (
            p.total_training_time / (done + 1 - WARMUP_STEPS) if done >= WARMUP_STEPS else seconds
        )
        self.step = done + 1
        self.context.events.metric(
            done,
            loss=loss,
            smooth_loss=debiased,
            lrm=multiplier,
            dt=seconds,
            tok_per_sec=rate,
            mfu=mfu,
            **({} if grad_norm is None else {"grad_norm": grad_norm}),
            tokens=self.step * s.tokens_per_step,
            train_time=p.total_training_time,
        )
        self.context.progress(self.step, s.steps, "steps", eta)
        self.context.log(
            f"step {done:05d}/{s.steps:05d} ({100 * done / s.steps:.2f}%) | loss: {debiased:.6f} | "
            + (f"grad norm: {grad_norm:.4f} | " if grad_norm is not None else "")
            + f"lrm: {multiplier:.2f} | dt: {1000 * seconds:.2f}ms | tok/sec: {rate:,.0f} | mfu: {mfu:.2f} | "
            f"total time: {p.total_training_time / 60:.2f}m"
        )

    def _evaluate(self) -> None:
        if self.hooks.evaluate is None:
            return
        self.model.eval()
        self.val_bpb = bpb = self.hooks.evaluate(self.step)
        self.progress.min_val_bpb = min(self.progress.min_val_bpb, bpb)
        self.context.events.evaluation(self.step, val_bpb=bpb)
        self.context.log(f"Step {self.step:05d} | Validation bpb: {bpb:.4f}")

    def _save(self) -> None:
        if self.hooks.save:
            self.hooks.save(self.step, self.progress)
            self.saved_at = self.step


def loop_state(progress: Progress) -> dict[str, float | None]:
    """Progress as JSON, which has no infinity."""
    state = asdict(progress)
    return {k: v if math.isfinite(v) else None for k, v in state.items()}


def progress_from(state: dict[str, Any]) -> Progress:
    """Progress from a meta file's `loop_state`, also one that nanochat wrote."""
    known = {
        k: state[k] for k in ("min_val_bpb", "smooth_train_loss", "total_training_time") if state.get(k) is not None
    }
    return Progress(**known)
