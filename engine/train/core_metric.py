"""CORE while a base model trains: the same evaluation that base_eval runs, at the loop's cadence."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from engine.evals.core import evaluate_core
from engine.evals.eval_bundle import find_bundle

if TYPE_CHECKING:
    from engine.train.workbench import Workbench


def core_hook(bench: Workbench, max_per_task: int | None) -> Callable[[int], object]:
    """Evaluate, log and send CORE after `step` steps. Finds the bundle now, so that a missing one is said at the start.

    Raises StageError when there is no bundle and none can be fetched.
    """
    context = bench.context
    if bench.world.rank == 0:
        bundle = find_bundle(context.base_dir, None, context.log)
    bench.world.barrier()  # the others find what rank 0 has fetched
    if bench.world.rank != 0:
        bundle = find_bundle(context.base_dir, None, context.log)

    def core(step: int) -> None:
        found = evaluate_core(
            bench.model, bench.tokenizer, bench.device.device, bundle, max_per_task, world=bench.world
        )
        context.log(f"Step {step:05d} | CORE metric: {found['core_metric']:.4f}")
        context.events.evaluation(step, core_metric=found["core_metric"], centered_results=found["centered_results"])

    return core
