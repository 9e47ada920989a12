"""SFT and mid-training on one process: what their settings promise, in a base directory made of bytes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from engine.config import from_mapping
from engine.context import StageContext, StageError
from engine.evals.benchmarks import Limits
from engine.evals.chat import Score
from engine.events import Event, EventWriter, parse_line
from engine.settings.training import ChatSft, MidTrain
from engine.stages import chat_sft, mid_train
from engine.tasks.hub_parquet import HubSplit
from engine.tasks.table import TASKS

FEW = {"max_seq_len": 32, "device_batch_size": 2, "total_batch_size": 64, "eval_tokens": 128, "device_type": "cpu",
       "dtype": "float32", "num_iterations": 4, "eval_every": None}  # fmt: skip


def tuned(base: Path, stage: Any, kind: type[MidTrain] | type[ChatSft], **settings: Any) -> list[Event]:
    """Run a stage here; its events."""
    path = base / "events.jsonl"
    path.unlink(missing_ok=True)
    stage.run(from_mapping(kind, {**FEW, **settings}), StageContext(base, EventWriter(path), stage.__name__))
    return [event for line in path.read_bytes().splitlines() if (event := parse_line(line))]


@pytest.mark.parametrize(("stage", "kind", "folder", "part"), [
    (mid_train, MidTrain, "mid_checkpoints", "midtraining"), (chat_sft, ChatSft, "chatsft_checkpoints", "chat-sft")])
def test_a_dry_run_trains_and_leaves_nothing(
    byte_base: Path, stage: Any, kind: type[MidTrain], folder: str, part: str, capsys: pytest.CaptureFixture[str]
) -> None:
    def files() -> dict[str, bytes]:
        return {str(p): p.read_bytes() for p in byte_base.rglob("*") if p.is_file() and p.name != "events.jsonl"}

    before = files()
    events = tuned(byte_base, stage, kind, dry_run=True, save_every=2)
    assert [e.kind for e in events].count("metric") == 4 and events[-1].kind == "eval"
    assert files() == before and "Saved" not in capsys.readouterr().out
    events = tuned(byte_base, stage, kind, save_every=2)
    assert [e.kind for e in events].count("checkpoint") == 2
    assert (byte_base / folder / "d1").is_dir() and (byte_base / "report" / f"{part}.json").is_file()


def test_eval_steps_is_the_number_of_validation_batches(byte_base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from engine.train import assemble

    taken: list[int] = []

    def counted(model: Any, batches: Any, *_: Any, **__: Any) -> float:
        taken.append(sum(1 for _ in batches))
        return 1.0

    monkeypatch.setattr(assemble, "bits_per_byte", counted)
    tuned(byte_base, chat_sft, ChatSft, eval_steps=7)
    tuned(byte_base, chat_sft, ChatSft)
    assert taken == [7, 2]  # 128 tokens are 2 batches of 2 rows of 32


def stock(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """MMLU and ARC-Easy in the cache of task data, and no network."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    choice = {"question": "Which?", "choices": {"text": ["x", "y"], "label": ["A", "B"]}, "answerKey": "B"}
    rows: dict[str, list[dict[str, Any]]] = {
        "ARC-Easy": [choice] * 9, "MMLU": [{"question": "Which?", "choices": list("wxyz"), "answer": 2}] * 8}
    for name, found in rows.items():
        folder = HubSplit(TASKS[name].repo, TASKS[name].subset, "test").folder(base)
        folder.mkdir(parents=True)
        pq.write_table(pa.Table.from_pylist(found), folder / "0000.parquet")
        size = (folder / "0000.parquet").stat().st_size
        (folder / "manifest.json").write_text(json.dumps({"files": {"0000.parquet": {"bytes": size}}}))


def test_accuracy_is_measured_while_training(
    byte_base: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    stock(byte_base, monkeypatch)
    plain = tuned(byte_base, chat_sft, ChatSft, model_tag="d1")
    events = tuned(byte_base, chat_sft, ChatSft, eval_metrics_every=2, eval_metrics_max_problems=6)
    found = [(e.step, e.data) for e in events if e.kind == "eval" and "chat/MMLU" in e.data]
    assert [step for step, _ in found] == [2, 4]
    assert all(data.keys() == {"chat/MMLU", "chat/ARC-Easy"} and 0 <= data["chat/MMLU"] <= 1 for _, data in found)
    said = capsys.readouterr().out
    assert "/6) in" in said and "/9)" not in said and "Step 00002 | mmlu_acc: " in said and ", arc_easy_acc: " in said

    def losses(told: list[Event]) -> list[float]:
        return [e.data["loss"] for e in told if e.kind == "metric"]

    assert losses(plain) == losses(events)  # looking changes nothing


def test_chatcore_while_training_takes_two_limits(byte_base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from engine.train import chat_metric

    asked: list[Any] = []

    def ask_all(tasks: Any, engine: Any, tokenizer: Any, generation: Any, limits: Any, *_: Any) -> dict[str, Score]:
        asked.append(limits)
        return {name: Score(name, 1, 2) for name in tasks}

    class Loaded:
        def load(self, *_: Any, **__: Any) -> list[Any]:
            return []

    monkeypatch.setattr(chat_metric, "ask_all", ask_all)
    monkeypatch.setattr(chat_metric, "find", lambda name: Loaded())
    events = tuned(byte_base, chat_sft, ChatSft, chatcore_every=3, chatcore_max_cat=50)
    assert asked == [Limits(50, 24)] * 2
    measured = [(e.step, e.data["chatcore_metric"]) for e in events if e.kind == "eval" and "chatcore_metric" in e.data]
    assert measured == [(3, pytest.approx(5 / 12)), (4, pytest.approx(5 / 12))]  # 3 x (1/4)/(3/4) and 3 x 1/2, over 6


def test_a_missing_benchmark_is_said_before_the_first_step(byte_base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(StageError, match="cais/mmlu all/test is not on this machine"):
        tuned(byte_base, chat_sft, ChatSft, eval_metrics_every=2)
    assert b'"metric"' not in (byte_base / "events.jsonl").read_bytes()


def test_the_rate_rises_and_falls_as_asked(byte_base: Path) -> None:
    events = tuned(byte_base, chat_sft, ChatSft, warmup_ratio=0.5, warmdown_ratio=0.25, final_lr_frac=0.5)
    assert [e.data["lrm"] for e in events if e.kind == "metric"] == [0.5, 1.0, 1.0, 1.0]
    events = tuned(byte_base, mid_train, MidTrain, warmdown_ratio=1.0, final_lr_frac=0.2)
    assert [round(e.data["lrm"], 3) for e in events if e.kind == "metric"] == [1.0, 0.8, 0.6, 0.4]
