"""The mirror on W&B: only when asked, nanochat's names, and never in the way. The library is a double that records."""

from __future__ import annotations

import json
import sys
import types

import pytest

from engine.config import from_argv
from engine.context import EventWriter, from_environment
from engine.settings.training import BaseTrain
from engine.wandb_mirror import MirroredWriter, fields


class Recorded:
    def __init__(self):
        self.logged, self.settings, self.fail = [], {}, False
        self.config = types.SimpleNamespace(update=lambda data, allow_val_change: self.settings.update(data))

    def log(self, row):
        if self.fail:
            raise ConnectionError("no network\nat all")
        self.logged.append(row)


@pytest.fixture
def recorded_wandb(monkeypatch, tmp_path):
    run, module = Recorded(), types.ModuleType("wandb")

    def init(**settings):
        run.started = settings
        return run

    module.init = init
    monkeypatch.setitem(sys.modules, "wandb", module)
    monkeypatch.setenv("LLMCONSOLE_RUN_DIR", str(tmp_path / "runs" / "tiny-1"))
    monkeypatch.setenv("LLMCONSOLE_STAGE_ID", "04-base_train")
    return run


def written(tmp_path):
    return [json.loads(line) for line in (tmp_path / "runs" / "tiny-1" / "events.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("name", [None, "", "dummy"])
def test_nobody_asked(recorded_wandb, monkeypatch, name):
    monkeypatch.delenv("WANDB_RUN", raising=False)
    if name is not None:
        monkeypatch.setenv("WANDB_RUN", name)
    assert type(from_environment("base_train").events) is EventWriter


def test_a_training_stage_is_mirrored_under_nanochats_names(recorded_wandb, monkeypatch, tmp_path):
    monkeypatch.setenv("WANDB_RUN", "d20")
    events = from_environment("base_train").events
    events.progress(1, 2, "steps")
    assert not hasattr(recorded_wandb, "started")
    events.emit("config", {"settings": {"depth": 20}})
    events.metric(7, loss=3.0, smooth_loss=3.1, mfu=47.5, dt=0.5)
    events.evaluation(8, val_bpb=0.9, core_metric=0.2)
    assert recorded_wandb.started == {"project": "nanochat", "name": "d20", "id": "tiny-1-04-base_train",
                                      "resume": "allow"}
    assert recorded_wandb.settings == {"settings": {"depth": 20}}
    assert recorded_wandb.logged == [{"step": 7, "train/loss": 3.1, "train/mfu": 47.5, "train/dt": 0.5},
                                     {"step": 8, "val/bpb": 0.9, "core_metric": 0.2}]
    assert [e["kind"] for e in written(tmp_path)] == ["stage", "config", "metric", "eval"]


@pytest.mark.parametrize(("flag", "variable", "name"), [
    ("mine", "", "mine"), ("mine", "other", "mine"), ("dummy", "other", None), (None, "other", "other")])
def test_the_flag_goes_before_the_environment(recorded_wandb, monkeypatch, flag, variable, name):
    monkeypatch.setenv("WANDB_RUN", variable)
    config = from_argv(BaseTrain, [] if flag is None else [f"--run={flag}"])
    from_environment("base_train", config.run).events.metric(0, loss=1.0)
    assert getattr(recorded_wandb, "started", {}).get("name") == name


def test_other_stages_and_other_ranks_are_not(recorded_wandb, monkeypatch):
    monkeypatch.setenv("WANDB_RUN", "d20")
    from_environment("tok_train").events.evaluation(None, ratio=1.0)
    monkeypatch.setenv("RANK", "1")
    assert type(from_environment("base_train").events) is EventWriter
    assert not hasattr(recorded_wandb, "started")


def test_a_broken_mirror_is_one_warning(recorded_wandb, monkeypatch, tmp_path):
    monkeypatch.setenv("WANDB_RUN", "d20")
    events = from_environment("chat_rl").events
    events.metric(0, reward=0.1, loss=0.0)
    recorded_wandb.fail = True
    for step in range(1, 4):
        events.metric(step, reward=0.1, loss=0.0)
    assert recorded_wandb.started["project"] == "nanochat-rl" and len(recorded_wandb.logged) == 1
    found = written(tmp_path)
    assert [e["kind"] for e in found] == ["metric", "metric", "alert", "metric", "metric"]
    assert found[2]["data"]["text"] == "no more mirrored to W&B: no network"


def test_without_the_library_it_says_how_to_get_it(recorded_wandb, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "wandb", None)
    monkeypatch.setenv("WANDB_RUN", "d20")
    events = from_environment("mid_train").events
    assert isinstance(events, MirroredWriter)
    events.metric(0, loss=1.0)
    [_, alert] = written(tmp_path)
    assert "uv sync --extra wandb" in alert["data"]["next"]


def test_numbers_without_a_name_of_nanochats_keep_their_own():
    assert fields("eval", {"pass@1": 0.5, "chat/GSM8K": 0.1}, 3) == {"step": 3, "pass@1": 0.5, "chatcore/GSM8K": 0.1}
    assert fields("sample", {"text": "x"}, 1) == {} == fields("metric", {"unknown": 1}, 1)
