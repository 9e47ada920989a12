"""The driver that is asked for fits the PyTorch that is installed: its metadata says what CUDA that is."""

from __future__ import annotations

import importlib.metadata
import re
from pathlib import Path

import pytest

from console.settings import RentSettings
from remote.cuda import TORCH_CUDA
from remote.fake_runpod.cloud import knows
from remote.provider import PodSpec, Want

LOCK = Path(__file__).parents[2] / "uv.lock"


def built_with() -> set[str]:
    """The CUDA versions of the default Linux wheels, from the installed one and from every one that is locked."""
    required = importlib.metadata.requires("torch") or []
    found = {version[1] for line in required if (version := re.match(r"cuda-toolkit\[.*\]==(\d+\.\d+)", line))}
    if LOCK.exists():
        found |= set(re.findall(r'name = "cuda-toolkit"\nversion = "(\d+\.\d+)', LOCK.read_text()))
    return found


def test_the_driver_that_is_asked_for_runs_the_default_torch() -> None:
    if not built_with():
        pytest.skip("this torch is built without CUDA, and nothing is locked here")
    assert {version.partition(".")[0] for version in built_with()} == {TORCH_CUDA.partition(".")[0]}


def test_one_place_says_it() -> None:
    assert Want().min_cuda == RentSettings().min_cuda == TORCH_CUDA
    assert PodSpec.__dataclass_fields__["min_cuda"].default == TORCH_CUDA


def test_versions_are_compared_as_numbers() -> None:
    assert knows("12.11") and knows("") and knows(TORCH_CUDA) and not knows("99.0")
