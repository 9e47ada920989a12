"""Whether a model fits: on the GPU that CUDA would take, in shared memory, in RAM; nobody knows is no refusal."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from engine import fit
from engine.catalog import ModelInfo
from engine.fit import Place, bytes_needed, place
from engine.machine import Gpu
from engine.model.config import GPTConfig


@pytest.fixture
def machine_with(monkeypatch: pytest.MonkeyPatch):
    """A machine as its system tables tell it."""

    def make(*gpus: Gpu, system: str = "Linux", processor: str = "x86_64", torch: str = "2.13.0") -> None:
        monkeypatch.setattr(fit, "gpus", lambda: list(gpus))
        monkeypatch.setattr("engine.machine.gpus", lambda: list(gpus))
        monkeypatch.setattr(fit, "memory_free", lambda: 9_000)
        monkeypatch.setattr(fit, "version_of", lambda name: torch)
        monkeypatch.setattr("platform.system", lambda: system)
        monkeypatch.setattr("platform.machine", lambda: processor)

    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    return make


FULL, IDLE = (Gpu(number, f"GPU {number}", 24.0, used, 0.0, 0.0, 0.0) for number, used in ((0, 20.0), (1, 1.0)))


def test_the_gpu_that_cuda_takes_counts(machine_with, monkeypatch: pytest.MonkeyPatch) -> None:
    machine_with(FULL, IDLE)
    assert place() == Place("cuda", "GPU 0", 4e9)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1,0")
    assert place() == Place("cuda", "GPU 1", 23e9)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert place() == Place("cpu", "", 9_000)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    machine_with(FULL, torch="2.13.0+cpu")
    assert place().kind == "cpu", "a torch without CUDA uses no GPU"
    machine_with(Gpu(0, "odd", 24.0, None, None, None, None))
    assert place() == Place("cuda", "odd", math.inf)


def test_an_apple_gpu_shares_the_memory(machine_with) -> None:
    machine_with(system="Darwin", processor="arm64")
    assert place() == Place("mps", "Apple GPU", 9_000)
    machine_with(system="Darwin")
    assert place().kind == "cpu"


def test_what_it_takes() -> None:
    config = GPTConfig(1000, 100, 2, 2, 1, 8)
    model = ModelInfo("r", "n", "sft", "d2", 1, Path(), Path(), 5_000, 1_000, config, 0.0, None, None, True, None)
    values = 2 * 2 * 1000 * 1 * 4
    assert bytes_needed(model, "cpu") == bytes_needed(model, "mps") == 4_000 + 5_000 + 4 * values
    assert bytes_needed(model, "cuda") == 4_000 + 2 * values + 500_000_000
    assert bytes_needed(ModelInfo(**{**model.__dict__, "config": None}), "cpu") is None
