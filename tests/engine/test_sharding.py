"""Optimizers split over ranks against one process: the same update, the same bits where the order of sums allows."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from engine.dist import ALONE
from engine.optim.shards import load_shards

PROGRAM = Path(__file__).with_name("sharding_program.py")


def program() -> Any:
    spec = importlib.util.spec_from_file_location("sharding_program", PROGRAM)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module", params=[2, 4])
def told(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory,
         in_a_world: Callable[..., None]) -> dict[str, Any]:
    """What a world of 2 and one of 4 computed, and what one process did."""
    run, folder = program(), tmp_path_factory.mktemp("world")
    torch.set_num_threads(1)
    result: dict[str, Any] = {"size": request.param, "run": run}
    for kind in run.KINDS:
        half = run.first_half(kind, ALONE)
        torch.save(half, folder / f"single_{kind}.pt")
        result[kind] = {"half": half, "end": run.continued(kind, half, ALONE)}
    in_a_world(request.param, str(PROGRAM), str(folder))
    for kind in run.KINDS:
        result[kind]["world"] = torch.load(folder / f"world_{kind}.pt", weights_only=True)
    return result


def distance(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> float:
    return max((a[key] - b[key]).abs().max().item() for key in b)


@pytest.mark.parametrize("kind", ["classic", "modern"])
def test_sharded_equals_single(told: dict[str, Any], kind: str) -> None:
    world, half = told[kind]["world"], told[kind]["half"]["weights"]
    assert world["same_everywhere"]
    # The gradients' sum has another order, and a batched product of fewer matrices another blocking: last bits only.
    assert distance(world["half"]["weights"], half) < 2e-6
    assert distance(world["averaged"], half) < 2e-6
    tables = [k for k in half if "wte" in k or "lm_head" in k or "value_embeds" in k]
    if told["size"] == 2:  # halves of halves are exact, so the tables agree to the bit
        assert all(torch.equal(world["half"]["weights"][k], half[k]) for k in tables)


@pytest.mark.parametrize("kind", ["classic", "modern"])
def test_resuming_in_the_same_world_and_in_another(told: dict[str, Any], kind: str) -> None:
    world, end, run = told[kind]["world"], told[kind]["end"], told["run"]
    assert distance(world["resumed"], end) < 5e-6
    assert distance(world["from_single"], end) < 5e-6  # 1 -> W ranks
    back = run.continued(kind, world["half"], ALONE)  # W -> 1 rank
    assert distance(back, end) < 5e-6


def test_state_is_split(told: dict[str, Any]) -> None:
    size = told["size"]
    for kind in ("classic", "modern"):
        whole = elements(told[kind]["half"]["shards"][0])
        for shard in told[kind]["world"]["half"]["shards"]:
            assert elements(shard) < 1.5 * whole / size


def elements(shard: list[Any]) -> int:
    return sum(
        t.numel() for o in shard for state in o["state"].values() for t in state.values() if torch.is_tensor(t)
    )


def test_ranks_agree(told: dict[str, Any]) -> None:
    assert told["classic"]["world"]["any"] == (True, False)
    assert told["classic"]["world"]["shared"] == 0


def test_a_missing_shard_is_explained(told: dict[str, Any]) -> None:
    run, shards = told["run"], told["modern"]["world"]["half"]["shards"]
    if len(shards) < 4:
        pytest.skip("needs a world of which a part can be missing")
    optimizers = run.optimizers_of(run.model_of("modern"), ALONE)
    with pytest.raises(ValueError, match=r"has shape .* is expected"):
        load_shards(optimizers, lambda rank: shards[rank], 3, ALONE)
    other = run.optimizers_of(run.model_of("classic"), ALONE)
    with pytest.raises(ValueError, match="1 optimizers, this model has 2"):
        load_shards(other, lambda rank: shards[rank], 4, ALONE)
