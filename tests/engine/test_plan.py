"""Command lines are data: what a stage is started with, word for word."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.config import ConfigError
from engine.plan import PlannedStage, planned, stage_argv, stage_env, torchrun_argv
from engine.rundir import RunDir


def step(stage: str, **args: object) -> PlannedStage:
    return PlannedStage(f"03-{stage}", stage, "Title", args, 3)


def test_a_stage_on_one_device_is_plain_python() -> None:
    assert stage_argv(step("tok_train", vocab_size=1024), 8, ["py"]) == [
        "py", "-m", "engine", "tok_train", "--vocab-size=1024"]
    for gpus in (0, 1):
        assert stage_argv(step("base_train", depth=4), gpus, ["py"]) == [
            "py", "-m", "engine", "base_train", "--resume=true", "--depth=4"]


def test_several_gpus_are_shared_out_by_torchrun_unless_the_cpu_is_asked_for() -> None:
    assert stage_argv(step("base_train"), 8, ["py"]) == [
        "py", "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=8", "-m", "engine", "base_train",
        "--resume=true"]
    assert "torch.distributed.run" not in stage_argv(step("base_train", device_type="cpu"), 8, ["py"])


def test_torchrun_understands_the_command() -> None:
    run = pytest.importorskip("torch.distributed.run")
    argv = stage_argv(step("mid_train", save_every=None), 2, ["py"])
    parsed = run.parse_args(argv[3:])
    assert (parsed.nproc_per_node, parsed.module, parsed.training_script) == ("2", True, "engine")
    assert parsed.training_script_args == ["mid_train", "--resume=true"]
    assert torchrun_argv(1, ["py"]) == ["py"]


@pytest.mark.parametrize(("wrong", "words"), [
    (step("base_trian"), "did you mean base_train"), (step("base_train", detph=4), "did you mean depth"),
    (step("base_train", depth=0), "at least 1"),
])
def test_bad_settings_fail_before_anything_starts(wrong: PlannedStage, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        stage_argv(wrong)


@pytest.mark.parametrize("description", [{}, {"stages": None}, {"stages": [{}]}, {"stages": ["x"]}, [],
                                         {"stages": [{"id": "1", "stage": "s", "title": "t", "args": 3}]}])
def test_a_damaged_description_is_named(description: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match="is damaged"):
        planned(description)


def test_the_environment_points_into_the_run() -> None:
    env = stage_env(RunDir(Path("/runs/tiny-1")), step("report"), 2)
    assert env == {"NANOCHAT_BASE_DIR": "/runs/tiny-1/base", "LLMCONSOLE_RUN_DIR": "/runs/tiny-1",
                   "LLMCONSOLE_STAGE_ID": "03-report", "LLMCONSOLE_ATTEMPT": "2", "PYTHONUNBUFFERED": "1",
                   "TORCH_ELASTIC_SHUTDOWN_TIMEOUT": "600"}
