"""--mixture in the stages that train on conversations: a small model on tasks that come from a Hub."""

from __future__ import annotations

import json

import pytest
import torch

from engine.context import StageContext, StageError
from engine.events import EventWriter, parse_line
from engine.model.config import GPTConfig
from engine.model.gpt import GPT
from engine.settings.training import ChatSft, MidTrain
from engine.stages import chat_sft, mid_train
from engine.train import checkpoint

SMALL = {"device_type": "cpu", "dtype": "float32", "max_seq_len": 64, "device_batch_size": 2, "total_batch_size": 128,
         "num_iterations": 2, "eval_tokens": 128, "eval_every": None}


@pytest.fixture
def tuned_base(small_hub, tmp_path, plain_tokenizer):
    base = tmp_path / "b"
    plain_tokenizer.save(base / "tokenizer")
    torch.manual_seed(0)
    model = GPT(GPTConfig(64, 265, 1, 2, 2, 16))
    model.init_weights(torch.Generator().manual_seed(0))
    checkpoint.save_checkpoint(base / "base_checkpoints" / "d1", 1, source="base", model=model.state_dict(),
                               meta={"step": 1, "model_config": model.config.to_dict()})
    for split in ("train", "test"):
        small_hub.add("openai/gsm8k", "main", split, [{"question": f"{i}+1?", "answer": f"#### {i + 1}"}
                                                      for i in range(20)])
    return base


def test_both_stages_train_on_a_written_mixture(tuned_base, capsys):
    context = StageContext(tuned_base, EventWriter(tuned_base / "events.jsonl"), "mid_train")
    mid_train.run(MidTrain(mixture="GSM8K*2+identity", **SMALL), context)
    chat_sft.run(ChatSft(mixture="GSM8K:5+identity", **SMALL), context)
    assert checkpoint.resolve(tuned_base, "sft")[1] == 2
    told = [parse_line(line) for line in (tuned_base / "events.jsonl").read_bytes().splitlines()]
    counts = [e.data["conversations"] for e in told if e.kind == "config"]
    assert counts == [2 * 20 + 400, 5 + 400]
    assert "fetching openai/gsm8k main/train" in capsys.readouterr().out
    manifest = json.loads((tuned_base / "task_data/openai--gsm8k/main/train/manifest.json").read_text())
    assert manifest["commit"] == "c" * 40


def test_without_its_data_the_stage_says_what_is_missing(tuned_base, small_hub, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    (tuned_base / "words_alpha.txt").write_text("river\nmoon\n")
    context = StageContext(tuned_base, EventWriter(None), "mid_train")
    with pytest.raises(StageError, match="HuggingFaceTB/smol-smoltalk default/train is not on this machine"):
        mid_train.run(MidTrain(mixture="nanochat-mid", **SMALL), context)
