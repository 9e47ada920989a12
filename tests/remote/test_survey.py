"""Looking at a machine: this one for real, over SSH too, and the answers of others."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from remote.errors import RunnerFailed
from remote.host import Host
from remote.local import LocalHost
from remote.survey import Gpu, parse, survey

H100 = """os=Linux
machine=x86_64
hostname=pod
user=root
home=/root
now=1700000600
cpus=224
quota=16000000 100000
memory_kb=2000000000
memory_limit=1000000000000
distribution=Ubuntu 24.04 LTS
disk=/root 104857600 94371840
writable=/root
disk=/workspace 9437184000 9000000000
tool_uv=/root/.local/bin/uv
tool_cargo=
python=python3 3.12.3
gpu=0, NVIDIA H100 80GB HBM3, 81559, 580.95.05
gpu=1, NVIDIA H100 80GB HBM3, 81559, 580.95.05
nonsense
end=1
"""


def test_this_machine_tells_the_truth_also_over_ssh(any_host: Host) -> None:
    found = survey(any_host)
    assert found.os == ("Darwin" if sys.platform == "darwin" else "Linux")
    assert found.user and found.home and found.memory > 1e8 and found.cores >= 1
    assert abs(found.skew) < 3 and found.python and found.problems() == []
    assert dict(found.pythons)["python3"].count(".") == 2
    assert any(disk.path == found.home and disk.free > 0 for disk in found.disks)


def test_a_pod_is_understood() -> None:
    found = parse(H100, 1.7e9)
    assert (found.cores, found.memory, found.skew, found.driver) == (160, 10**12, 600, "580.95.05")
    assert found.gpus == tuple(Gpu(index, "NVIDIA H100 80GB HBM3", 79.6) for index in (0, 1))
    assert [(disk.path, disk.writable) for disk in found.disks] == [("/root", True), ("/workspace", False)]
    assert found.tools == (("uv", "/root/.local/bin/uv"),)
    assert found.warnings() == ["its clock is 600 s ahead: times shown for it are its own"]


def test_what_is_wrong_is_said() -> None:
    poor = parse("os=FreeBSD\nuser=x\nhome=/x\ngpu=0, Tesla, 1024, 390.1\nend=1", 0)
    assert "FreeBSD is not Linux" in poor.problems()[0] and "may write neither" in poor.problems()[1]
    assert any("390.1 is older" in text and "another PyTorch" in text for text in poor.warnings())
    assert any("no Python 3.10 and no uv" in text for text in poor.warnings())
    assert "NVIDIA" in parse("os=Linux\nend=1", 0).warnings()[1]


def test_a_shell_that_stops_half_way_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("remote.survey.SCRIPT", "echo os=Linux; echo no more >&2; exit 3")
    with pytest.raises(RunnerFailed, match="no more"):
        survey(LocalHost())


def test_nothing_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    before = list(tmp_path.iterdir())
    survey(LocalHost())
    assert list(tmp_path.iterdir()) == before
