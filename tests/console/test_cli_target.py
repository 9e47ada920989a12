"""The `target` and `cost` verbs: against a real SSH server on loopback, with every refusal as its exit code."""

from __future__ import annotations

import importlib.util
import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from console.cli.main import call
from console.machines.targets import Target, Targets, name_for, parse_address, parse_env
from remote.cuda import TORCH_CUDA
from remote.ssh.known_hosts import fingerprint


@pytest.fixture
def ssh_box(tmp_path: Path) -> Iterator[Any]:
    path = Path(__file__).parents[1] / "remote" / "conftest.py"
    spec = importlib.util.spec_from_file_location("remote_conftest_for_targets", path)
    assert spec is not None and spec.loader is not None
    module = sys.modules["remote_conftest_for_targets"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    box = module.start_sshd(tmp_path / "box")
    yield box
    box.process.kill()
    box.process.wait()


@pytest.mark.parametrize(("text", "parts"), [
    ("me@gpu1", ("me", "gpu1", 0)), ("gpu1:2222", ("", "gpu1", 2222)), ("root@[::1]:22", ("root", "::1", 22))])
def test_addresses(text: str, parts: tuple[str, str, int]) -> None:
    assert parse_address(text) == parts


@pytest.mark.parametrize("text", ["", "a b", "me@", "host:99999", "-oProxyCommand=x", "me@host;rm", "a@b@c"])
def test_what_is_no_address_is_refused(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(["target", "add", "--", text]) == 2
    assert "Traceback" not in capsys.readouterr().err


@pytest.mark.parametrize("text", ["HF_TOKEN=x", "nothing", "1X=2", "HTTPS_PROXY=http://me:word@proxy:80"])
def test_no_secret_is_put_into_a_target(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    Targets().put(Target("box", host="127.0.0.1"))
    assert call(["target", "up", "box", "--env", text]) == 2
    assert "word" not in (tmp := capsys.readouterr().err) and "Traceback" not in tmp and Targets().find("box").env == {}
    assert parse_env(["HTTPS_PROXY=http://proxy:80"]) == {"HTTPS_PROXY": "http://proxy:80"}


def test_names_are_short_and_safe() -> None:
    assert name_for("GPU1.example.org") == "gpu1" and name_for("10.0.0.7") == "10.0.0.7"


def test_a_machine_is_added_prepared_used_and_forgotten(ssh_box: Any, capsys: pytest.CaptureFixture[str],
                                                        tmp_path: Path) -> None:
    user = ssh_box.route().user
    words = ["target", "add", f"{user}@127.0.0.1:{ssh_box.port}", "--name", "box", "--key", str(ssh_box.key)]
    assert call(words) == 2 and "--fingerprint" in capsys.readouterr().err  # nobody can be asked here
    assert call([*words, "--fingerprint", "SHA256:other"]) == 5
    right = ["--fingerprint", fingerprint(ssh_box.host_key)]
    assert call([*words, *right, "--dry-run"]) == 0
    assert [target.name for target in Targets().all()] == ["local"]
    assert not (tmp_path / "home" / "known_hosts").exists()
    capsys.readouterr()
    assert call([*words, *right, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["target"]["base"].endswith("/.cache/nanochat")
    assert call(["run", "start", "tiny", "--target", "box", "--yes"]) == 5  # not prepared yet
    assert "target up box" in capsys.readouterr().err
    assert call(["target", "use", "box"]) == 0 and Targets().default == "box"
    assert call(["target", "shell", "box", "--dry-run"]) == 0
    argv = capsys.readouterr().out
    assert "StrictHostKeyChecking=yes" in argv and str(tmp_path / "home" / "known_hosts") in argv
    assert call(["target", "list", "--json"]) == 0
    assert [row["name"] for row in json.loads(capsys.readouterr().out)["targets"]] == ["local", "box"]
    assert call(["target", "down", "box"]) == 0 and Targets().default == ""
    assert not list((ssh_box.home).iterdir())  # nothing was written there


@pytest.mark.skipif(shutil.which("ssh") is None, reason="needs the ssh command")
def test_a_machine_that_does_not_answer_is_exit_3(capsys: pytest.CaptureFixture[str], ssh_box: Any) -> None:
    ssh_box.process.kill()
    ssh_box.process.wait()
    assert call(["target", "add", f"127.0.0.1:{ssh_box.port}", "--name", "gone", "--yes"]) == 3
    Targets().put(Target("gone", host="127.0.0.1", port=ssh_box.port, base="/tmp/x", python=("python3",)))
    assert call(["run", "start", "tiny", "--target", "gone", "--yes"]) == 3
    assert "Traceback" not in capsys.readouterr().err


def test_renting_asks_for_key_and_budget_first(monkeypatch: pytest.MonkeyPatch, tmp_path: Path,
                                               capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.delenv("RUNPOD_API_KEY", raising=False)
    monkeypatch.setenv("PYTHON_KEYRING_BACKEND", "keyring.backends.null.Keyring")
    monkeypatch.chdir(tmp_path)
    start = ["run", "start", "tiny", "--target", "runpod"]
    assert call(start) == 2 and "--budget" in capsys.readouterr().err
    assert call([*start, "--budget", "20", "--hours", "1", "--dry-run"]) == 4
    assert call(["cost", "show"]) == 0
    assert "nothing bills now" in capsys.readouterr().out
    assert call(["cost", "limit", "nothing", "--budget", "5"]) == 8
    assert call(["target", "down", "pod-abcdef"]) == 8


def test_the_request_is_shown_before_anything_is_sent(monkeypatch: pytest.MonkeyPatch, tmp_path: Path,
                                                      capsys: pytest.CaptureFixture[str]) -> None:
    from remote.fake_runpod.cloud import FakeCloud
    from remote.fake_runpod.server import FakeRunPod

    cloud = FakeCloud(None)
    with FakeRunPod(cloud) as server:
        monkeypatch.setenv("LLMCONSOLE_RUNPOD_API", server.base)
        monkeypatch.setenv("RUNPOD_API_KEY", server.key)
        words = ["run", "start", "tiny", "--target", "runpod", "--budget", "60", "--hours", "1.5", "--gpus", "8xH100"]
        assert call([*words, "--dry-run", "--json"]) == 0
        said = capsys.readouterr()
        facts = json.loads(said.out)
        assert facts["request"]["gpu"] == {"id": "NVIDIA H100 80GB HBM3", "count": 8, "minCudaVersion": TORCH_CUDA}
        assert facts["argv"][-4:-2] == ["engine", "run"] and server.key not in said.out + said.err
        assert call([*words[:-1], "3xB200", "--yes"]) == 6 and "nothing was rented" in capsys.readouterr().err
        assert call([*words[:5], "--budget", "1", "--hours", "1", "--yes"]) == 5
        assert cloud.creates == 0
