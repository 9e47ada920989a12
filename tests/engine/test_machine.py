"""Facts of the machine: cheap, complete, and unmoved by a driver that is missing, slow or silent about something."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from engine import machine
from engine.machine import Gpu, count_visible, facts, parse_gpus

H100 = "0, NVIDIA H100 80GB HBM3, 81559, 1024, 87, 612.35, 61\n"


def fake_smi(folder: Path, monkeypatch: pytest.MonkeyPatch, body: str) -> None:
    command = folder / "nvidia-smi"
    command.write_text(f"#!/bin/sh\n{body}\n")
    command.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")


def test_listing_of_nvidia_smi_becomes_numbers() -> None:
    text = H100 + "1, Tesla K80, 11441, [N/A], [Not Supported], [N/A], 40\nNo devices were found\n"
    assert parse_gpus(text) == [Gpu(0, "NVIDIA H100 80GB HBM3", 85.52, 1.07, 87.0, 612.35, 61.0),
                                Gpu(1, "Tesla K80", 12.0, None, None, None, 40.0)]


def test_gpus_are_asked_for_on_this_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_smi(tmp_path, monkeypatch, f"printf '{H100}{H100}'")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert machine.usable_gpus() == 2
    assert [gpu["power_w"] for gpu in machine.Sampler(os.getpid()).sample()["gpus"]] == [612.35, 612.35]


def test_a_driver_that_hangs_or_fails_means_no_gpus_in_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "NVIDIA_SMI_WAIT", 0.2)
    fake_smi(tmp_path, monkeypatch, "exec sleep 20")
    begun = time.monotonic()
    assert machine.gpus() == []
    assert time.monotonic() - begun < 5
    fake_smi(tmp_path, monkeypatch, f"printf '{H100}'; exit 9")
    assert machine.gpus() == []


@pytest.mark.parametrize(("visible", "count"), [("", 0), ("-1", 0), ("0", 1), ("0,1,2", 3), ("3, 1", 2), ("0,-1,2", 1),
                                                ("GPU-8932f937-d72c,GPU-46b12220", 2)])
def test_visible_devices_count_as_cuda_counts_them(visible: str, count: int) -> None:
    assert count_visible(visible) == count


def test_facts_are_complete_and_fast(tmp_path: Path) -> None:
    found = facts(tmp_path / "not" / "made" / "yet")
    assert found["cores"] >= 1 and found["cpu"] and found["python"].count(".") == 2
    assert 0 < found["mem_free_gb"] <= found["mem_total_gb"] and found["disk_free_gb"] > 0
    assert found["torch"] and found["software"]
    assert not (tmp_path / "not").exists()
    begun = time.process_time()
    facts(tmp_path)
    assert time.process_time() - begun < 0.05


def test_memory_of_a_tree_includes_its_children() -> None:
    child = "x = bytearray(range(256)) * 240_000; input()"
    code = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}])"
    process = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE)
    try:
        deadline = time.monotonic() + 20
        while machine.tree_rss(process.pid) < 60_000_000 and time.monotonic() < deadline:
            time.sleep(0.02)
        assert machine.tree_rss(process.pid) >= 60_000_000
    finally:
        process.communicate(b"\n")
    assert machine.tree_rss(process.pid) == 0
