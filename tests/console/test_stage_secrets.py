"""A stage gets the secrets that it needs and no others: by stdin from here, or from where the provider keeps them."""

from __future__ import annotations

import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from console import operator as operator_module
from console.errors import UsageProblem
from console.machines import preparing
from console.machines.stage_secrets import needed, references, taking
from console.rental import steps as rental_steps
from console.rental.rental import Phase
from console.settings import RentSettings
from console.workspace import Workspace
from remote.fake_runpod.cloud import FakeCloud
from remote.fake_runpod.server import FakeRunPod

HELD = {"HF_TOKEN": "hf_CANARYfromhere0000", "WANDB_API_KEY": "CANARYwandb000000000000",
        "OPENROUTER_API_KEY": "sk-CANARY"}
# Says which secrets it was given, without saying them.
TELLS = textwrap.dedent("""
    import hashlib, json, os, sys, time
    names = ("HF_TOKEN", "WANDB_API_KEY", "OPENROUTER_API_KEY")
    told = {n: hashlib.sha256(os.environ[n].encode()).hexdigest()[:8] for n in names if n in os.environ}
    row = {"v": 1, "seq": 1, "t": time.time(), "mono": 0, "run": "evening", "attempt": 1, "stage": None, "kind": "run",
           "step": None, "data": {"state": "finished", "exit_code": 0, "told": told}}
    open(sys.argv[1] + "/events.jsonl", "a").write(json.dumps(row) + "\\n")
""")


def stages(*rows: tuple[str, dict[str, Any]]) -> dict[str, Any]:
    return {"stages": [{"id": f"0{i}-{name}", "stage": name, "args": args} for i, (name, args) in enumerate(rows)]}


@pytest.mark.parametrize(("rows", "env", "names"), [
    ([("base_train", {"depth": 4})], {}, []), ([("base_train", {"run": "dummy"})], {}, []),
    ([("base_train", {"run": "mine"})], {}, ["WANDB_API_KEY"]),
    ([("base_train", {})], {"WANDB_RUN": "x"}, ["WANDB_API_KEY"]),
    ([("backup", {"to": "/disk"})], {}, []), ([("backup", {"to": "hub:me/x"})], {}, ["HF_TOKEN"])])
def test_only_what_a_stage_uses(rows: list[tuple[str, dict[str, Any]]], env: dict[str, str], names: list[str]) -> None:
    assert needed(stages(*rows), env) == names


def test_references_are_names_and_never_values() -> None:
    assert references(" HF_TOKEN=my_hf , WANDB_API_KEY=w") == {"HF_TOKEN": "my_hf", "WANDB_API_KEY": "w"}
    for wrong in ("HF_TOKEN", "HF_TOKEN=hf_ value", "hf=x"):
        with pytest.raises(UsageProblem, match="name of a RunPod secret"):
            references(wrong)
    assert taking([], ["a"]) == ["a"] and "$value" in " ".join(taking(["HF_TOKEN"], ["a"]))


@pytest.fixture
def telling_world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[FakeCloud, Callable[..., Any]]]:
    """A provider on loopback, and a function that rents for a run which wants HF_TOKEN."""
    import remote.bootstrap

    script, home = tmp_path / "tells.py", tmp_path / "home"
    script.write_text(TELLS)
    (home / "recipes").mkdir(parents=True)
    recipe = 'title = "T"\n[[stage]]\nstage = "base_train"\ndepth = 4\n[[stage]]\nstage = "backup"\nto = "hub:me/x"\n'
    (home / "recipes" / "telling.toml").write_text(recipe)
    monkeypatch.setattr(operator_module, "pipeline_argv", lambda python, run: [sys.executable, "-I", str(script), run])
    monkeypatch.setattr(remote.bootstrap, "bootstrap", lambda *_, **__: (sys.executable,))
    monkeypatch.setattr(preparing, "has_libraries", lambda *_: True)
    monkeypatch.setattr(rental_steps, "PACE", 0.05)
    cloud = FakeCloud(tmp_path / "cloud", placing_s=0.1, pulling_s=0.1)
    with FakeRunPod(cloud) as server:
        monkeypatch.setenv("LLMCONSOLE_RUNPOD_API", server.base)
        monkeypatch.setenv("RUNPOD_API_KEY", server.key)

        def evening(settings: RentSettings) -> tuple[dict[str, str], bytes]:
            """What the run was given, as digests, and every byte on both disks while the pod still lived."""
            with Workspace.open() as workspace:
                rentals, ends = workspace.operator.rentals, time.monotonic() + 40
                rental = rentals.rent(rentals.quote("telling", run_id="evening", settings=settings, budget_usd=9,
                                                    budget_hours=1))
                rentals.drive(rental.id, lambda now: now.phase is Phase.PROVING, lambda _: None)
                written = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
                assert rentals.drive(rental.id, lambda _: time.monotonic() > ends, lambda _: None).phase is Phase.GONE
                workspace.ingest()
                (event,) = workspace.queries.events("evening", kinds=("run",), limit=9)
                return dict(event.data["told"]), written

        yield cloud, evening


def digest(value: str) -> str:
    import hashlib

    return hashlib.sha256(value.encode()).hexdigest()[:8]


def test_a_stage_is_sent_what_it_needs_and_nothing_of_it_is_written(
        telling_world: tuple[FakeCloud, Callable[..., Any]], monkeypatch: pytest.MonkeyPatch) -> None:
    _, evening = telling_world
    for name, value in HELD.items():
        monkeypatch.setenv(name, value)
    told, written = evening(RentSettings(gpus="2xA100", hold_minutes=0))
    assert told == {"HF_TOKEN": digest(HELD["HF_TOKEN"])}  # not the others
    assert len(written) > 1000 and not any(value.encode() in written for value in HELD.values())


def test_what_the_provider_keeps_never_passes_through_here(telling_world: tuple[FakeCloud, Callable[..., Any]],
                                                           monkeypatch: pytest.MonkeyPatch) -> None:
    cloud, evening = telling_world
    monkeypatch.delenv("HF_TOKEN", raising=False)
    cloud.secrets["my_hf"] = "hf_CANARYkeptthere000"
    told, written = evening(RentSettings(gpus="2xA100", hold_minutes=0, secrets="HF_TOKEN=my_hf"))
    assert told == {"HF_TOKEN": digest("hf_CANARYkeptthere000")}
    assert b"RUNPOD_SECRET" not in written and b"CANARYkeptthere" not in written
    (life,) = cloud.lives.values()
    assert life.body["env"]["HF_TOKEN"] == "{{ RUNPOD_SECRET_my_hf }}"
