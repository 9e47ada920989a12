"""Optimizer state from a checkpoint into the optimizers of this world, which may have another number of ranks.

Reads what nanochat of either era and llmconsole write: one state dict per rank, whose parameters are numbers. Learning
rates and the like are not taken from there: they are settings, and the settings of this run hold.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from engine.dist import World
from engine.optim.adamw import splits
from engine.optim.muon import Muon, by_shape, in_turn
from engine.optim.muon_adamw import MuonAdamW, in_chunks

State = dict[str, Any]
_ADAMW = ("exp_avg", "exp_avg_sq")
_MUON = ("momentum_buffer", "second_momentum_buffer")


def load_shards(
    optimizers: Sequence[torch.optim.Optimizer], read: Callable[[int], Any], saved_ranks: int, world: World
) -> None:
    """Fill the optimizers' state. `read(rank)` gives what that rank saved: a state dict, or one per optimizer.

    Raises ValueError naming what does not fit.
    """
    ranks = [world.rank] if saved_ranks == world.size else range(saved_ranks)
    files = [_as_list(read(rank)) for rank in ranks]
    for n, optimizer in enumerate(optimizers):
        if any(len(file) != len(optimizers) for file in files):
            raise ValueError(f"it holds {len(files[0])} optimizers, this model has {len(optimizers)}")
        shards = [file[n] for file in files]
        if not all(isinstance(s, Mapping) and {"state", "param_groups"} <= set(s) for s in shards):
            raise ValueError("it holds no optimizer state dict")
        _load(optimizer, shards, world, merge=saved_ranks != world.size)


def _as_list(content: Any) -> list[Any]:
    return list(content) if isinstance(content, (list, tuple)) else [content]


def _load(optimizer: torch.optim.Optimizer, shards: list[Any], world: World, merge: bool) -> None:
    for number, p, group in _numbered(optimizer, shards):
        states = [s["state"][number] for s in shards if number in s["state"]]
        if not states:
            continue
        kind = "muon" if isinstance(optimizer, Muon) else group.get("kind", "adamw")
        if kind == "adamw":
            optimizer.state[p] = _adamw(p, states, world, merge)
        elif isinstance(optimizer, MuonAdamW):
            optimizer.state[p] = _stack(group["params"], states, world, merge)
        elif _owns(p, group["params"], world):
            optimizer.state[p] = {"momentum_buffer": _fitting("momentum_buffer", states[0], p.shape, p)}


def _numbered(optimizer: torch.optim.Optimizer, shards: list[Any]) -> Iterator[tuple[int, Tensor, State]]:
    """(number in the file, parameter, its group now) of every parameter."""
    now = {p: group for group in optimizer.param_groups for p in group["params"]}
    if isinstance(optimizer, Muon):
        numbers = _muon_numbers(optimizer.in_order, shards)
    else:
        numbers = list(zip(_numbers_of(shards[0]), now, strict=False))
    saved = sum(len(group["params"]) for group in shards[0]["param_groups"])
    if len(numbers) != len(now) or saved != len(now):
        raise ValueError(f"it numbers {saved} parameters, this model has {len(now)} of that kind")
    for number, p in numbers:
        yield number, p, now[p]


def _numbers_of(shard: Any) -> list[int]:
    return [number for group in shard["param_groups"] for number in group["params"]]


def _muon_numbers(params: list[Tensor], shards: list[Any]) -> list[tuple[int, Tensor]]:
    """Numbers of the classic Muon's parameters: nanochat groups them by element count in one process, by shape in
    several. Which it was, and in which order the groups come, the shapes of the stored momenta tell."""
    found: list[tuple[int, Tensor]] = []
    for group in shards[0]["param_groups"]:
        shapes = [s["state"][i]["momentum_buffer"].shape for s in shards for i in group["params"] if i in s["state"]]
        rest = [p for p in params if all(p is not q for _, q in found)]
        size = shapes[0].numel() if shapes else rest[0].numel() if rest else 0
        members = [p for p in rest if p.numel() == size]
        if len(members) != len(group["params"]):
            members = [p for p in members if p.shape == (shapes[0] if shapes else members[0].shape)]
        found += zip(group["params"], members, strict=False)
    return found


def _adamw(p: Tensor, states: list[State], world: World, merge: bool) -> State:
    """Step count and both moments of a parameter; its own rows of them where they are split."""
    split = splits(p.shape, world.size)
    rows = p.shape[0] // world.size
    moments: State = {}
    for name in _ADAMW:
        parts = [state[name] for state in states]
        whole = parts[0] if not merge or parts[0].shape == p.shape else torch.cat(parts)
        if merge and split:
            whole = _fitting(name, {name: whole}, p.shape, p)[world.rank * rows : (world.rank + 1) * rows].clone()
        expected = torch.Size((rows, *p.shape[1:])) if split else p.shape
        moments[name] = _fitting(name, {name: whole}, expected, p)
    step = torch.as_tensor(states[0]["step"]).to(p.device, torch.float32)
    return {"step": step.reshape(()).clone(), **moments}


def _stack(params: list[Tensor], states: list[State], world: World, merge: bool) -> State:
    """The stacked momenta of matrices of one shape, cut to this rank's chunk and padded with zeros behind the last."""
    p, (m, n), mine = params[0], params[0].shape, in_chunks(len(params), world.size)[world.rank]
    stacked: State = {}
    for name, tail in zip(_MUON, ((m, n), (m, 1) if m >= n else (1, n)), strict=True):
        parts = torch.cat([state[name] for state in states]) if merge else states[0][name]
        if merge:
            padded = torch.cat([parts[: len(params)], parts.new_zeros(len(mine), *parts.shape[1:])])
            parts = padded[mine[0] : mine[0] + len(mine)] if mine[0] < len(params) else padded[-len(mine) :]
        stacked[name] = _fitting(name, {name: parts}, torch.Size((len(mine), *tail)), p)
    return stacked


def _owns(p: Tensor, group: list[Tensor], world: World) -> bool:
    same = by_shape(group)[p.shape]
    place = next(i for i, q in enumerate(same) if q is p)
    return place in in_turn(len(same), world.size)[world.rank]


def _fitting(name: str, state: State, shape: torch.Size, p: Tensor) -> Tensor:
    tensor: Tensor = state[name]
    if tensor.shape != shape:
        raise ValueError(f"{name} has shape {tuple(tensor.shape)} where {tuple(shape)} is expected")
    return tensor.to(p.device, p.dtype)
