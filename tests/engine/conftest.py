"""What tests of stages share: a base directory made of bytes in an instant, and stages run as several ranks."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

StartWorld = Callable[..., list["subprocess.Popen[bytes]"]]


@pytest.fixture(autouse=True)
def hardly_any_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    """Downloads that fail are tried again at once."""
    monkeypatch.setattr("engine.data.download.FIRST_WAIT_S", 0.001)


@pytest.fixture
def byte_base(tmp_path: Path) -> Path:
    """A tokenizer of bytes, a small model as base, mid and SFT model, conversations, and sums for RL."""
    import torch

    from engine.model.config import GPTConfig
    from engine.model.gpt import GPT
    from engine.tokenizer.bpe import Tokenizer
    from engine.tokenizer.store import SPECIAL_TOKENS, SPLIT_PATTERN, Vocabulary
    from engine.train import checkpoint

    specials = {name: 256 + i for i, name in enumerate(SPECIAL_TOKENS)}
    tokenizer = Tokenizer(Vocabulary(SPLIT_PATTERN, {bytes([i]): i for i in range(256)}, specials))
    base = tmp_path / "b"
    tokenizer.save(base / "tokenizer")
    model = GPT(GPTConfig(64, 265, 1, 2, 2, 16))
    model.init_weights(torch.Generator().manual_seed(0))
    for source, folder in (("base", "base"), ("mid", "mid"), ("sft", "chatsft")):
        checkpoint.save_checkpoint(base / f"{folder}_checkpoints" / "d1", 5, source=source, model=model.state_dict(),
                                   meta={"step": 5, "model_config": model.config.to_dict()},
                                   tokenizer_sha256=tokenizer.sha256())  # fmt: skip
    talks = [[{"role": "user", "content": f"{i}?"}, {"role": "assistant", "content": f"it is {i}"}] for i in range(40)]
    (base / "conversations").mkdir()
    for name in ("mid_train", "mid_val", "sft_train", "sft_val"):
        (base / "conversations" / f"{name}.jsonl").write_text("".join(json.dumps(talk) + "\n" for talk in talks))
    sums = [{"question": f"{d}?", "answer": "#### 2"} for d in range(4)]
    (base / "sums.jsonl").write_text("".join(json.dumps(row) + "\n" for row in sums))
    return base


@pytest.fixture(scope="session")
def start_world() -> StartWorld:
    """Starts a Python command as `size` ranks on this machine, as torchrun would; `env` is added to the environment."""

    def start(size: int, *command: str, **env: str) -> list[subprocess.Popen[bytes]]:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        shared = {**os.environ, "WORLD_SIZE": str(size), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port),
                  "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **env}  # fmt: skip
        return [
            subprocess.Popen([sys.executable, *command], env={**shared, "RANK": str(r), "LOCAL_RANK": str(r)}, cwd=ROOT)
            for r in range(size)
        ]

    return start


@pytest.fixture(scope="session")
def in_a_world(start_world: StartWorld) -> Callable[..., None]:
    """The same, and waits for all to end well."""

    def run(size: int, *command: str, **env: str) -> None:
        ranks = start_world(size, *command, **env)
        try:
            assert [process.wait(timeout=100) for process in ranks] == [0] * size
        finally:
            for process in ranks:
                process.kill()

    return run
