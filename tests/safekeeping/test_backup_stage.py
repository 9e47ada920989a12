"""The pipeline's own backup, with nobody watching: the stage, its process, a folder and a Hub."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from checkpoint_world import add_checkpoint
from fake_hub import FakeHub

ROOT = Path(__file__).parents[2]


def stage(base: Path, run_dir: Path, *words: str) -> subprocess.CompletedProcess[str]:
    run_dir.mkdir(parents=True, exist_ok=True)
    environment = {**os.environ, "NANOCHAT_BASE_DIR": str(base), "LLMCONSOLE_RUN_DIR": str(run_dir)}
    return subprocess.run([sys.executable, "-m", "engine", "backup", *words], env=environment, cwd=ROOT,
                          capture_output=True, text=True, timeout=100)


def alerts(run_dir: Path) -> list[dict[str, object]]:
    rows = [json.loads(line) for line in (run_dir / "events.jsonl").read_text().splitlines()]
    return [row["data"] for row in rows if row["kind"] == "alert"]


@pytest.mark.parametrize("place", ["folder", "hub"])
def test_the_run_backs_itself_up(tmp_path: Path, kept_base: Path, fake_hub: FakeHub, place: str) -> None:
    to = "hub:me/run7" if place == "hub" else str(tmp_path / "disk")
    done = stage(kept_base, tmp_path / "tiny-1", f"--to={to}")
    assert done.returncode == 0 and done.stdout.count("proven: ") == 3, done.stderr
    if place == "hub":
        assert any(path.startswith("runs/tiny-1/base/d4/000300/") for path in fake_hub.head("me/run7").files)
    assert fake_hub.token not in done.stdout + done.stderr
    again = stage(kept_base, tmp_path / "tiny-1", f"--to={to}")
    assert again.returncode == 0


def test_what_is_not_proven_ends_the_run_or_shouts(tmp_path: Path, fake_hub: FakeHub) -> None:
    base, run_dir = tmp_path / "one" / "nanochat", tmp_path / "tiny-1"
    add_checkpoint(base, ranks=0)
    fake_hub.lie = "garbage"
    done = stage(base, run_dir, "--to=hub:me/run7")
    assert done.returncode == 1 and "not safe" in done.stderr
    done = stage(base, run_dir, "--to=hub:me/run8", "--strict=false")
    assert done.returncode == 0 and "NOT proven" in done.stdout
    assert [alert["code"] for alert in alerts(run_dir)] == ["backup", "backup"]


def test_it_says_what_is_missing(tmp_path: Path, kept_base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "--to is needed: hub:OWNER/NAME" in stage(kept_base, tmp_path / "r").stderr
    for name in ("HF_TOKEN", "HUGGINGFACE_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    assert "HF_TOKEN is not set" in stage(kept_base, tmp_path / "r", "--to=hub:me/run7").stderr
