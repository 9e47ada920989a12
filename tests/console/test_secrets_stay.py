"""Keys and tokens: found in their order, never shown, and in not one byte of what a rented evening leaves behind."""

from __future__ import annotations

import io
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from console import credentials
from console.cli.main import call
from console.credentials import MissingCredential
from console.errors import ConsoleError, UsageProblem
from console.exit_codes import Exit
from console.machines import preparing
from console.rental import steps as rental_steps
from console.rental.rental import Phase
from console.settings import RentSettings
from console.workspace import Workspace
from remote.fake_runpod.cloud import FakeCloud
from remote.fake_runpod.server import FakeRunPod

CANARIES = {"RUNPOD_API_KEY": "rpa_CANARY8f3aQ1x7Zk2mNv5w", "HF_TOKEN": "hf_CANARYb71dPq9sTu4vWx6yZ0",
            "WANDB_API_KEY": "CANARYwandb0123456789abcdef", "OPENROUTER_API_KEY": "sk-or-CANARY5566778899aabbcc"}


@pytest.fixture
def no_secrets(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in (*CANARIES, "HUGGINGFACE_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PYTHON_KEYRING_BACKEND", "keyring.backends.null.Keyring")
    monkeypatch.chdir(tmp_path)


@pytest.mark.usefixtures("no_secrets")
def test_a_secret_is_found_in_its_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(MissingCredential) as caught:
        credentials.require("RUNPOD_API_KEY")
    assert caught.value.exit is Exit.CREDENTIAL
    where = credentials.store("RUNPOD_API_KEY", CANARIES["RUNPOD_API_KEY"])
    assert Path(where).stat().st_mode & 0o077 == 0
    assert credentials.require("RUNPOD_API_KEY").origin == where
    (tmp_path / ".env").write_text("# mine\nexport RUNPOD_API_KEY='rpa_fromdotenv00'\nOTHER=1\n")
    assert credentials.require("RUNPOD_API_KEY").reveal() == "rpa_fromdotenv00"
    monkeypatch.setenv("RUNPOD_API_KEY", "rpa_fromenviron0")
    found = credentials.require("RUNPOD_API_KEY")
    assert found.origin == "$RUNPOD_API_KEY" and "rpa_" not in f"{found} {found!r}"
    monkeypatch.setenv("HUGGINGFACE_TOKEN", CANARIES["HF_TOKEN"])
    assert credentials.require("HF_TOKEN").origin == "$HUGGINGFACE_TOKEN"


@pytest.mark.usefixtures("no_secrets")
def test_a_file_that_others_may_read_is_refused() -> None:
    where = Path(credentials.store("HF_TOKEN", CANARIES["HF_TOKEN"]))
    where.chmod(0o644)
    with pytest.raises(ConsoleError, match="may be read by others"):
        credentials.find("HF_TOKEN")


@pytest.mark.usefixtures("no_secrets")
def test_set_secret_reads_stdin_and_shows_nothing(monkeypatch: pytest.MonkeyPatch,
                                                  capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO(CANARIES["RUNPOD_API_KEY"] + "\n"))
    assert call(["config", "set-secret", "RUNPOD_API_KEY"]) == 0
    assert call(["config", "show"]) == 0 and call(["config", "show", "--json"]) == 0
    assert "CANARY" not in "".join(capsys.readouterr())
    assert credentials.require("RUNPOD_API_KEY").reveal() == CANARIES["RUNPOD_API_KEY"]
    assert call(["config", "set-secret", "RUNPOD_API_KEY", "--forget"]) == 0
    assert credentials.find("RUNPOD_API_KEY") is None
    with pytest.raises(UsageProblem):
        credentials.store("MY_PASSWORD", "x")


@pytest.mark.usefixtures("stand_in")
def test_no_byte_of_a_rented_evening_holds_a_secret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                                    write_recipe: Any, capfd: pytest.CaptureFixture[str]) -> None:
    """Files of the console, files of the pod, command lines while it runs, what is printed, a crash dump."""
    import remote.bootstrap
    from console.crash import write_dump

    for name, value in CANARIES.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(remote.bootstrap, "bootstrap", lambda *_, **__: (sys.executable,))
    monkeypatch.setattr(preparing, "has_libraries", lambda *_: True)
    monkeypatch.setattr(rental_steps, "PACE", 0.05)
    lines: set[str] = set()
    cloud = FakeCloud(tmp_path / "cloud", placing_s=0.1, pulling_s=0.1)
    with FakeRunPod(cloud, key=CANARIES["RUNPOD_API_KEY"]) as server, Workspace.open() as workspace:
        monkeypatch.setenv("LLMCONSOLE_RUNPOD_API", server.base)
        rentals = workspace.operator.rentals
        quote = rentals.quote(write_recipe(title="sleep:1"), settings=RentSettings(gpus="2xA100"), budget_usd=20,
                              budget_hours=1)
        rental = rentals.rent(quote)
        rentals.drive(rental.id, lambda now: now.phase is Phase.WORKING, lambda _: None)
        lines |= {" ".join(process.info["cmdline"] or ()) for process in psutil.process_iter(["cmdline"])}
        written = [path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()]
        until = time.monotonic() + 40
        ended = rentals.drive(rental.id, lambda _: time.monotonic() > until, lambda _: None)
        assert ended.phase is Phase.GONE
        workspace.ingest()
        try:
            raise ValueError(f"with {CANARIES['HF_TOKEN']} and {CANARIES['RUNPOD_API_KEY']} in it")
        except ValueError as error:
            write_dump(tmp_path / "home", error)
    assert call(["cost", "show", "--json", "--offline"]) == 0 and call(["doctor"]) in (0, 1)
    written += [path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()]
    told = [*lines, *capfd.readouterr(), *(data.decode("latin-1") for data in written)]
    assert len(written) > 10
    for name, value in CANARIES.items():
        assert not any(value in text for text in told), name


def test_the_environment_of_a_pod_holds_only_its_public_key(tmp_path: Path) -> None:
    """What can be read back from the provider by anybody with the account's key."""
    script = (
        "from console.rental.rental import Phase, Rental; from console.rental.spec import compose; "
        "from remote.provider import Offer; "
        "r = Rental('r-1', 'r', 'runpod', Phase.ASKED, 9.0, 1.0, 0.0, detail={'image': 'i', 'disk_gb': 20, "
        "'want': {'min_cuda': '12.8'}}); "
        "print(compose(r, Offer('g', 'g', 1, 80, 'SECURE', 'EU', '', 'HIGH', 3.0), public_key='k', now=1e9))")
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env={**CANARIES, "PATH": ""},
                          cwd=Path(__file__).parents[2], timeout=60, check=True)
    assert "env={}" in done.stdout and "CANARY" not in done.stdout
