"""A disk with no room left, a real one: no broken checkpoint becomes the newest, and all goes on when there is room."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from engine.train import checkpoint

ROOT = Path(__file__).parents[2]
PROGRAM = Path(__file__).with_name("full_disk_program.py")
SFT = ["chat_sft", "--max-seq-len=32", "--device-batch-size=2", "--total-batch-size=128", "--eval-every=none",
       "--eval-tokens=128", "--num-iterations=12", "--save-every=1", "--device-type=cpu", "--dtype=float32", "--resume"]


def on_a_small_disk(disk: Path, size: str, script: str, **env: str) -> subprocess.CompletedProcess[str]:
    """Run a shell script where `disk` is a file system of its own, of `size`; nobody else sees it."""
    disk.mkdir()
    script = f"mount -t tmpfs -o size={size} tmpfs {disk} || exit 77\n{script}"
    surroundings = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "PY": sys.executable, **env}
    try:
        done = subprocess.run(["unshare", "-Urm", "sh", "-c", script], env=surroundings, capture_output=True, text=True,
                              timeout=110, check=False)  # fmt: skip
    except FileNotFoundError:
        pytest.skip("no unshare here")
    if done.returncode == 77 or "unshare:" in done.stderr:
        pytest.skip("file systems cannot be mounted here")
    return done


def test_whichever_write_fails_the_last_checkpoint_is_the_newest(tmp_path: Path) -> None:
    """Room for 0, 1, 2, ... pages more, so that every write of a checkpoint is once the first that fails."""
    done = on_a_small_disk(tmp_path / "disk", "512k", f"$PY {PROGRAM} {tmp_path / 'disk'}")
    told = json.loads(done.stdout)
    assert told["tries"] > 10 and told["newest"] == [1] and told["left"] == []
    assert all("earlier checkpoints are untouched" in text and (advice, code) == ("free some disk space, then resume",
               "disk") for text, advice, code in told["texts"])  # fmt: skip
    assert told["then"] == 2


@pytest.mark.timeout(150)
def test_a_stage_says_it_and_goes_on_when_there_is_room(byte_base: Path, tmp_path: Path) -> None:
    """The disk also holds the run's events: not even the words about it can be written there."""
    disk, kept = tmp_path / "disk", tmp_path / "kept"
    script = f"""
cp -r {byte_base} {disk}/base; rm -r {disk}/base/chatsft_checkpoints; mkdir {disk}/run {kept}
head -c 450k /dev/zero > {disk}/ballast
$PY -m engine {" ".join(SFT)}; echo "rc $?"
cat {disk}/ballast /dev/zero > {disk}/more 2>/dev/null; $PY -m engine {" ".join(SFT)}; echo "rc $?"
rm {disk}/ballast {disk}/more
$PY -m engine {" ".join(SFT)}; echo "rc $?"
cp -r {disk}/base/chatsft_checkpoints/d1 {disk}/run/events.jsonl {kept}
"""
    done = on_a_small_disk(disk, "2m", script, NANOCHAT_BASE_DIR=f"{disk}/base", LLMCONSOLE_RUN_DIR=f"{disk}/run")
    assert [line for line in done.stdout.splitlines() if line.startswith("rc ")] == ["rc 1", "rc 1", "rc 0"]
    assert "Traceback" not in done.stderr and "free some disk space, then resume" in done.stderr
    assert "resuming from step" in done.stdout
    events = (kept / "events.jsonl").read_text().splitlines()
    assert [json.loads(line)["seq"] for line in events] == list(range(1, len(events) + 1))
    assert checkpoint.newest_valid(kept / "d1") == 12
