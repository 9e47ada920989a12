"""Every test gets its own home and base directory, so that nothing outside a temporary folder is ever written.

With LLMCONSOLE_CANARY=1 the whole session runs with canary secrets in its environment, and fails at its end when one of
them is in a file that any test has left, or was in the command line of any process meanwhile.
"""

from __future__ import annotations

import os
import secrets
import threading
from pathlib import Path

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as `python -m engine` has it: on a busy machine 50 times faster


@pytest.fixture(autouse=True)
def isolated_homes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLMCONSOLE_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("NANOCHAT_BASE_DIR", str(tmp_path / "base"))


@pytest.fixture
def fixtures() -> Path:
    return Path(__file__).parent / "fixtures"


CANARIES = {"RUNPOD_API_KEY": "rpa_SESSION", "HF_TOKEN": "hf_SESSION", "WANDB_API_KEY": "wandbSESSION",
            "OPENROUTER_API_KEY": "sk-or-v1-SESSION"}


class CanaryWatch:
    """Lives in the session's first process; the others inherit its environment."""

    def __init__(self) -> None:
        self.values = {name: start + secrets.token_hex(12) for name, start in CANARIES.items()}
        os.environ.update(self.values)
        self.found: set[str] = set()
        self._ended = threading.Event()
        threading.Thread(target=self._look, daemon=True).start()

    def _look(self) -> None:
        while not self._ended.wait(0.02):
            for path in Path("/proc").glob("[0-9]*/cmdline"):
                try:
                    self._search(path.read_bytes(), str(path))
                except OSError:
                    continue

    def _search(self, data: bytes, where: str) -> None:
        self.found |= {f"{name} in {where}: {data[:200]!r}" for name, value in self.values.items()
                       if value.encode() in data}

    def finish(self, folder: Path) -> int:
        """How many files were searched; `found` says the rest."""
        self._ended.set()
        files = [path for path in folder.rglob("*") if path.is_file() and not path.is_symlink()]
        for path in files:
            self._search(path.read_bytes(), str(path))
        return len(files)


def pytest_configure(config: pytest.Config) -> None:
    if os.environ.get("LLMCONSOLE_CANARY") == "1" and not hasattr(config, "workerinput"):
        config.stash[WATCH] = CanaryWatch()


def pytest_sessionfinish(session: pytest.Session) -> None:
    watch = session.config.stash.get(WATCH, None)
    if watch is None:
        return
    searched = watch.finish(session.config._tmp_path_factory.getbasetemp())  # type: ignore[attr-defined]
    print(f"\ncanaries: {searched} files searched, {len(watch.found)} found", *sorted(watch.found)[:20], sep="\n")
    if watch.found:
        session.exitstatus = 1


WATCH = pytest.StashKey[CanaryWatch]()
