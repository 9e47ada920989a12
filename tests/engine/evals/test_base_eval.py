"""base_eval as a stage: bits per byte, CORE and samples of a small real model, and CORE of a transformers model."""

from __future__ import annotations

import csv
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from engine.config import ConfigError
from engine.context import StageContext, StageError
from engine.evals import core
from engine.evals.icl import IclTask
from engine.events import EventWriter, parse_line
from engine.settings.evaluation import BaseEval
from engine.stages import base_eval
from engine.train.checkpoint import save_checkpoint

SMALL = {"device_type": "cpu", "dtype": "float32", "device_batch_size": 4, "split_tokens": 768}


@pytest.fixture
def evaluated_base(tmp_path, fixtures):
    """A base directory with upstream's small trained model, its tokenizer, its shards and a bundle of two tasks."""
    source, base = fixtures / "pipeline" / "seed", tmp_path / "b"
    facts = json.loads((source / "training.json").read_text())
    shutil.copytree(source / "shards", base / "base_data")
    shutil.copytree(source / "tokenizer", base / "tokenizer")
    save_checkpoint(base / "base_checkpoints" / "d3", 10, source="base",
                    model=torch.load(source / "train_final.pt", weights_only=True),
                    meta={"step": 10, "model_config": facts["config"]})
    bundle = base / "eval_bundle"
    (bundle / "eval_data").mkdir(parents=True)
    lines, guesses = ["icl_tasks:"], ["Eval Task,Random baseline"]
    for entry in (facts["core"][1], facts["core"][4]):
        (bundle / "eval_data" / f"{entry['name']}.jsonl").write_text("\n".join(map(json.dumps, entry["data"])))
        lines.append("- " + json.dumps({"label": entry["name"], "dataset_uri": f"{entry['name']}.jsonl",
                                        "num_fewshot": [entry["meta"]["num_fewshot"]],
                                        "icl_task_type": entry["meta"]["task_type"],
                                        "continuation_delimiter": entry["meta"]["continuation_delimiter"]}))
        guesses.append(f"{entry['name']},25")
    (bundle / "core.yaml").write_text("\n".join(lines))
    (bundle / "eval_meta_data.csv").write_text("\n".join(guesses))
    return base


def context_of(base, rank=0):
    return StageContext(base, EventWriter(base / "events.jsonl"), "base_eval", rank=rank)


def evaluations(base):
    events = [parse_line(line) for line in (base / "events.jsonl").read_bytes().splitlines()]
    return {k: v for e in events if e.kind == "eval" for k, v in e.data.items()}


def test_all_three_parts_reach_log_events_report_and_table(evaluated_base, capsys):
    base_eval.run(BaseEval(**SMALL), context_of(evaluated_base))
    found = evaluations(evaluated_base)
    assert set(found) == {"train_bpb", "val_bpb", "core_metric", "core/mc3", "core/lm0"}
    part = json.loads((evaluated_base / "report" / "base-model-evaluation.json").read_text())["data"]
    assert part["CORE metric"] == found["core_metric"] and part["val bpb"] == found["val_bpb"]
    rows = list(csv.reader((evaluated_base / "base_eval" / "base_model_000010.csv").open()))
    assert [row[0].strip() for row in rows] == ["Task", "mc3", "lm0", "CORE"]
    assert float(rows[-1][2]) == pytest.approx(found["core_metric"], abs=1e-6)
    assert "CORE metric: " in capsys.readouterr().out


def test_without_a_bundle_the_rest_is_reported_before_it_fails(evaluated_base, monkeypatch):
    shutil.rmtree(evaluated_base / "eval_bundle")
    monkeypatch.setenv("LLMCONSOLE_EVAL_BUNDLE_URL", "http://127.0.0.1:9/x")
    with pytest.raises(StageError, match="CORE needs the eval bundle"):
        base_eval.run(BaseEval(**SMALL), context_of(evaluated_base))
    assert "val_bpb" in evaluations(evaluated_base)
    assert "val bpb" in json.loads((evaluated_base / "report" / "base-model-evaluation.json").read_text())["data"]


def test_parts_may_be_chosen():
    assert base_eval.chosen("sample, core") == ["sample", "core"]
    with pytest.raises(ConfigError, match="did you mean core"):
        base_eval.chosen("bpb,cores")
    with pytest.raises(ConfigError, match="empty"):
        base_eval.chosen(",")


@pytest.mark.skipif("LLMCONSOLE_RANK_TESTS" not in os.environ, reason="two processes; LLMCONSOLE_RANK_TESTS=1 runs it")
def test_two_processes_give_the_same_scores(evaluated_base, tmp_path):
    """torchrun's world of two on this machine: each rank reads its share, and the sums agree."""
    flags = ["--device-type=cpu", "--dtype=float32", "--device-batch-size=2", "--split-tokens=768", "--eval=core,bpb"]
    env = {**os.environ, "NANOCHAT_BASE_DIR": str(evaluated_base), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", "-m", "engine",
               "base_eval", *flags]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    two = json.loads((evaluated_base / "report" / "base-model-evaluation.json").read_text())["data"]
    base_eval.run(BaseEval(**SMALL, eval="core"), context_of(evaluated_base))
    assert two["CORE metric"] == pytest.approx(evaluations(evaluated_base)["core_metric"])


def test_a_transformers_model_is_measured_the_same_way(evaluated_base, tmp_path):
    transformers = pytest.importorskip("transformers")
    tokenizers = pytest.importorskip("tokenizers")
    bpe = tokenizers.Tokenizer(tokenizers.models.BPE())
    bpe.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = tokenizers.trainers.BpeTrainer(vocab_size=300, special_tokens=["<|endoftext|>"], show_progress=False,
                                             initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet())
    bpe.train_from_iterator(["which follows cat? Answer: bird"], trainer)
    fast = transformers.PreTrainedTokenizerFast(tokenizer_object=bpe, bos_token="<|endoftext|>",
                                                eos_token="<|endoftext|>")
    torch.manual_seed(0)
    size = {"vocab_size": len(fast), "n_positions": 64, "n_embd": 32, "n_layer": 2, "n_head": 2}
    model = transformers.GPT2LMHeadModel(transformers.GPT2Config(**size)).eval()
    folder = tmp_path / "small-gpt2"
    model.save_pretrained(folder)
    fast.save_pretrained(folder)
    base_eval.run(BaseEval(**SMALL, hf_path=str(folder), max_per_task=12), context_of(evaluated_base))
    found = evaluations(evaluated_base)
    assert set(found) == {"core_metric", "core/mc3", "core/lm0"}

    from engine.evals.hf_model import HfModel, HfTokenizer  # one item by hand: choices of 64 tokens at most

    items = [{"query": "cat", "choices": ["a b c", "dog", "x"], "gold": 1}]
    task = IclTask("t", "multiple_choice", 0, " ", items)
    rows = [[fast.bos_token_id, *fast.encode(f"cat {choice}")] for choice in items[0]["choices"]]
    start = next(t for t in range(99) if len({tuple(row[: t + 1]) for row in rows}) > 1)
    with torch.no_grad():
        means = [model(input_ids=torch.tensor([row]), labels=torch.tensor([[-100] * start + row[start:]])).loss.item()
                 for row in rows]
    expected = means.index(min(means)) == 1
    assert core.verdicts(HfModel(model), HfTokenizer(fast), "cpu", task) == [expected]


def test_a_missing_transformers_model_is_explained(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(StageError, match="cannot be loaded"):
        base_eval.run(BaseEval(**SMALL, hf_path=str(tmp_path / "nothing")), context_of(tmp_path))


def test_transformers_is_not_loaded_without_hf_path():
    code = "import engine.stages.base_eval, sys; print('transformers' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True,
                          cwd=Path(__file__).parents[3])
    assert done.stdout.strip() == "False"
