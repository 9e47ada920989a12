"""The verbs: what they print, what they exit with, what they leave alone."""

from __future__ import annotations

import json
import os
import shutil
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from checkpoint_world import add_checkpoint, add_tokenizer, contents, tensor_file, write
from fake_hub import FakeHub, Fault

from console.cli.main import call

Verb = Callable[..., tuple[int, Any]]


@pytest.fixture
def verb(capsys: pytest.CaptureFixture[str], kept_base: Path, monkeypatch: pytest.MonkeyPatch) -> Verb:
    """Runs a verb with --json; exit code and parsed output."""
    monkeypatch.setenv("NANOCHAT_BASE_DIR", str(kept_base))
    for name in ("HF_TOKEN", "HUGGINGFACE_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_HOME", str(kept_base / "no-login"))
    monkeypatch.setenv("PYTHON_KEYRING_BACKEND", "keyring.backends.null.Keyring")
    monkeypatch.chdir(kept_base.parent)

    def run(*words: str) -> tuple[int, Any]:
        capsys.readouterr()
        code = call([*words, "--json"])
        text = capsys.readouterr().out
        return code, json.loads(text) if text.strip() else None

    return run


@pytest.fixture
def hub_at_hand(verb: Verb, fake_hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> FakeHub:
    monkeypatch.setenv("HF_ENDPOINT", fake_hub.endpoint)
    monkeypatch.setenv("HF_TOKEN", fake_hub.token)
    return fake_hub


def test_a_whole_life_in_our_own_folder(verb: Verb, kept_base: Path, tmp_path: Path) -> None:
    assert [c["copies"] for c in verb("ckpt", "list")[1]["checkpoints"]] == [[], [], []]
    code, told = verb("ckpt", "safe")
    assert code == 7 and not told["safe"] and len(told["losses"]) == 2
    code, told = verb("ckpt", "backup", "--dry-run")
    assert code == 0 and len(told["checkpoints"]) == 3 and not (tmp_path / "home" / "backups").exists()
    code, told = verb("ckpt", "backup", "--yes")
    assert code == 0 and len(told["proven"]) == 3 and not told["failed"]
    assert verb("ckpt", "safe") == (0, {"safe": True, "place": str(tmp_path / "home/backups"), "losses": []})
    listed = verb("ckpt", "list")[1]["checkpoints"]
    assert all(c["here"] and c["copies"][0]["level"] == 3 and c["copies"][0]["same"] for c in listed)
    assert verb("ckpt", "verify")[0] == 0
    before = contents(kept_base / "base_checkpoints")
    shutil.rmtree(kept_base / "base_checkpoints")
    assert [c["here"] for c in verb("ckpt", "list")[1]["checkpoints"]].count(False) == 2
    code, told = verb("ckpt", "restore", "base/d4@300")
    assert code == 0 and {v["word"] for v in told["files"]} == {"restored", "was there"}
    after = contents(kept_base / "base_checkpoints")
    assert after == {name: data for name, data in before.items() if "000300" in name}


def test_the_liar_is_exit_7_everywhere(verb: Verb, hub_at_hand: FakeHub) -> None:
    hub_at_hand.lie = "garbage"
    code, told = verb("ckpt", "backup", "--repo-id", "me/run7", "--stage", "sft", "--private")
    assert code == 7 and not told["proven"] and "not what was sent" in told["failed"][0]["reason"]
    assert verb("ckpt", "safe", "--to", "hub:me/run7")[0] == 7
    assert verb("ckpt", "restore", "sft/d4@50")[0] == 7
    copies = [c["copies"] for c in verb("ckpt", "list")[1]["checkpoints"] if c["copies"]]
    assert copies[0][0]["withdrawn"]


def test_exit_codes_say_what_to_do(verb: Verb, hub_at_hand: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    assert verb("ckpt", "restore", "nothing-like-it")[0] == 8
    assert verb("ckpt", "backup", "--stage", "rl")[0] == 8
    assert verb("ckpt", "import", "me/none")[0] == 8
    assert verb("ckpt", "import", "/no/such/folder")[0] == 8
    assert verb("ckpt", "import")[0] == 2
    hub_at_hand.add_repo("me/open", private=False)
    assert verb("ckpt", "backup", "--to", "me/open")[0] == 5
    hub_at_hand.faults = [Fault("create", "status", 1000, 401)]
    assert verb("ckpt", "backup", "--to", "me/run7")[0] == 4
    hub_at_hand.faults = []
    monkeypatch.delenv("HF_TOKEN")
    assert verb("ckpt", "backup", "--to", "me/run7")[0] == 4
    assert call(["--read-only", "ckpt", "backup"]) == 5


def test_prune_never_takes_the_last_copy_the_best_or_the_last(
        verb: Verb, kept_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    add_checkpoint(kept_base, step=100, val_bpb=0.5)
    for step in (400, 500):
        add_checkpoint(kept_base, step=step)
    keep = ("--keep-best", "1", "--keep-last", "2")
    code, told = verb("ckpt", "prune", "--yes", *keep)
    assert code == 0 and told["remove"] == []
    verb("ckpt", "backup")
    code, told = verb("ckpt", "prune", "--dry-run", *keep)
    assert told["remove"] == ["nanochat/base/d4@300"] and told["keep"]["nanochat/base/d4@100"] == "one of the best"
    copy = tmp_path / "home" / "backups" / "runs" / "nanochat" / "base" / "d4" / "000300"
    copy.rename(copy.with_name("elsewhere"))  # the copy is gone: so nothing may go here
    assert verb("ckpt", "prune", "--yes", *keep)[1]["remove"] == []
    copy.with_name("elsewhere").rename(copy)
    model = kept_base / "base_checkpoints/d4/model_000300.pt"
    good = model.read_bytes()
    model.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))  # not what the copy is a copy of
    assert verb("ckpt", "prune", "--yes", *keep)[1]["remove"] == []
    model.write_bytes(good)
    assert verb("ckpt", "prune", *keep)[0] == 2 and model.exists()  # there is nobody to be asked
    monkeypatch.setattr("sys.stdin.isatty", lambda: True)
    monkeypatch.setattr("click.prompt", lambda *a, **k: "no")
    assert verb("ckpt", "prune", *keep)[0] == 5 and model.exists()
    assert verb("ckpt", "prune", "--yes", *keep)[1]["remove"] == ["nanochat/base/d4@300"]
    assert not list(kept_base.rglob("*000300*")) and (kept_base / "base_checkpoints/d4/model_000500.pt").exists()
    assert verb("ckpt", "restore", "base/d4@300")[0] == 0 and model.read_bytes() == good


def test_importing_gives_a_run_with_its_own_tokenizer(verb: Verb, hub_at_hand: FakeHub, kept_base: Path) -> None:
    meta = json.dumps({"model_config": {"n_layer": 20}, "val_loss": 1.0}).encode()
    files = {"sft/d20/model_000650.pt": tensor_file(1), "sft/d20/meta_000650.json": meta,
             "tokenizer/latest/tokenizer.pkl": b"theirs"}
    hub_at_hand.add_repo("them/nanochat", files=files)
    code, told = verb("ckpt", "import", "them/nanochat", "--as", "theirs")
    assert code == 0 and (told["run"], told["checkpoints"][0]["stage"]) == ("theirs", "sft")
    base = kept_base / "runs" / "theirs" / "base"
    assert (base / "tokenizer" / "tokenizer.pkl").read_bytes() == b"theirs"
    assert (base / "chatsft_checkpoints" / "d20" / "model_000650.pt").read_bytes() == files["sft/d20/model_000650.pt"]
    assert verb("model", "pull", "them/nanochat", "--as", "theirs")[0] == 0  # again: it is there
    hub_at_hand.add_repo("them/bare", files={k: v for k, v in files.items() if "tokenizer" not in k})
    assert verb("ckpt", "import", "them/bare")[0] == 5
    assert verb("ckpt", "import", "them/bare", "them/nanochat::::tokenizer/*", "--as", "joined")[0] == 0


def test_a_copy_is_imported_by_another_console(verb: Verb, hub_at_hand: FakeHub, tmp_path: Path,
                                               monkeypatch: pytest.MonkeyPatch, kept_base: Path) -> None:
    verb("ckpt", "backup", "--to", "me/run7")
    monkeypatch.setenv("LLMCONSOLE_HOME", str(tmp_path / "another home"))
    monkeypatch.setenv("NANOCHAT_BASE_DIR", str(tmp_path / "another base"))
    code, told = verb("ckpt", "import", "me/run7::runs/nanochat/base/d4/000300")
    assert code == 0 and told["checkpoints"][0]["step"] == 300
    code, told = verb("ckpt", "import", "me/run7", "--as", "all")
    assert code == 0 and len(told["checkpoints"]) == 3
    origin = contents(kept_base / "base_checkpoints" / "d4")
    assert contents(tmp_path / "another base/runs/all/base/base_checkpoints/d4") == origin


def test_a_folder_of_another_person(verb: Verb, tmp_path: Path) -> None:
    add_checkpoint(tmp_path / "usb" / "nanochat", "mid_checkpoints/d12", 20, manifest=False)
    add_tokenizer(tmp_path / "usb" / "nanochat", b"usb")
    code, told = verb("ckpt", "import", str(tmp_path / "usb" / "nanochat"), "--as", "usb")
    assert code == 0 and told["checkpoints"][0]["stage"] == "mid"
    write(tmp_path / "empty" / "x.txt", b"x")
    assert verb("ckpt", "import", str(tmp_path / "empty"))[0] == 8


def test_a_repository_in_transformers_format(verb: Verb, hub_at_hand: FakeHub, kept_base: Path,
                                             monkeypatch: pytest.MonkeyPatch) -> None:
    """Fetched by name and nothing else, then handed to the engine."""
    from console.keeping import importing

    files = {"config.json": b'{"model_type": "nanochat"}', "model.safetensors": b"\0weights", "tokenizer.json": b"{}",
             "../outside/config.json": b"{}", "nanochat/../../evil/meta.json": b"{}", "training_args.bin": b"\0pickle"}
    hub_at_hand.add_repo("them/hf", files=files)
    seen: list[list[str]] = []

    def engine(words: list[str]) -> dict[str, Any]:
        work = Path(words[words.index("--from") + 1])
        seen.append(sorted(p.relative_to(work).as_posix() for p in work.rglob("*") if p.is_file()))
        folder = Path(words[words.index("--base") + 1]) / "chatsft_checkpoints" / "d2"
        write(folder / "model_000007.pt", b"converted")
        return {"folder": str(folder), "source": "sft", "step": 7}

    monkeypatch.setattr(importing, "_engine", engine)
    code, told = verb("model", "pull", "them/hf", "--as", "hf")
    assert code == 0 and told["checkpoints"][0]["step"] == 7
    assert seen == [["config.json", "model.safetensors", "tokenizer.json"]]
    assert not list(kept_base.rglob("evil*")) and not list(kept_base.rglob("outside*"))
    assert not list(kept_base.rglob("model.safetensors"))


def test_the_engine_says_why_a_model_cannot_be_converted(verb: Verb, hub_at_hand: FakeHub) -> None:
    hub_at_hand.add_repo("them/llama", files={"config.json": b'{"model_type": "llama"}', "model.safetensors": b"\0"})
    assert verb("ckpt", "import", "them/llama")[0] == 1


def test_model_rm_asks_for_the_name(verb: Verb, kept_base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin.isatty", lambda: True)
    monkeypatch.setattr("click.prompt", lambda *a, **k: "something else")
    assert verb("model", "rm", "base/d4@300")[0] == 5 and list(kept_base.rglob("model_000300.pt"))
    monkeypatch.setattr("click.prompt", lambda *a, **k: "base/d4@300")
    code, told = verb("model", "rm", "base/d4@300")
    assert code == 0 and told["last_copy"] and not list(kept_base.rglob("*_000300*"))
    assert verb("model", "rm", "no such")[0] == 8


def test_ctrl_c_ends_the_threads_too_and_the_next_time_sends_nothing_again(
        verb: Verb, hub_at_hand: FakeHub, kept_base: Path, capsys: pytest.CaptureFixture[str]) -> None:
    add_checkpoint(kept_base, step=600, size=5_000_000)
    hub_at_hand.faults = [Fault("get", "drip", times=1000, seconds=1.0)]

    def ctrl_c() -> None:
        while not hub_at_hand.routes("get"):
            time.sleep(0.05)
        time.sleep(0.3)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=ctrl_c, daemon=True).start()
    begin = time.monotonic()
    assert verb("ckpt", "backup", "--to", "hub:me/run7", "--step", "600")[0] == 130
    assert time.monotonic() - begin < 30 and threading.active_count() < 20
    hub_at_hand.faults, sent = [], len(hub_at_hand.routes("put"))
    assert verb("ckpt", "backup", "--to", "hub:me/run7", "--step", "600")[0] == 0
    assert len(hub_at_hand.routes("put")) == sent
