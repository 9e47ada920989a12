"""Logs of unmodified nanochat, of every era and stage, become the events that our own runs write."""

from __future__ import annotations

import math
import random
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.events import KINDS
from engine.nanochat_lines import fields, number, tagged, unwrap
from engine.nanochat_log import Found, NanochatLog

UPSTREAM = Path(__file__).parents[3] / "shared" / "reference" / "upstream" / "runs"


def read(text: str, stage: str | None = None) -> list[Found]:
    log = NanochatLog(stage)
    return log.feed(text.encode()) + log.close()


def rows(found: list[Found], kind: str) -> list[tuple[str | None, int | None, dict[str, Any]]]:
    return [(each.stage, each.step, each.data) for each in found if each.kind == kind]


SEED_BASE = """\x1b[32m banner
Overriding: depth = 20
Overriding: run = mine
Autodetected device type: cuda
2025-12-08 10:00:00,123 - nanochat.common - \x1b[32m\x1b[1mINFO\x1b[0m - Distributed world size: 8
Vocab size: 65,536
num_layers: 20
Total batch size 524,288 => gradient accumulation steps: 1
Number of parameters: 560,988,160
Estimated FLOPs per token: 3.491758e+09
Calculated number of iterations from target data:param ratio: 21,400
Step 00000 | Validation bpb: 3.2001
step 00000/21400 (0.00%) | loss: 11.090351 | grad norm: 0.2841 | lrm: 1.00 | dt: 20487.12ms | tok/sec: 25,591 | \
mfu: 1.50 | total time: 0.00m
step 00500/21400 (2.34%) | loss: 3.712345 | lrm: 1.00 | dt: 487.12ms | tok/sec: 1,076,301 | mfu: 47.50 | \
total time: 3.97m
Evaluating: hellaswag_zeroshot (0-shot, type: multiple_choice)... accuracy: 0.3821 | centered: 0.1761 | time: 12.34s
Step 02000 | CORE metric: 0.1234
<|bos|>The capital of France is Paris
and more
<|bos|>Something else
step 02000/21400 (9.35%) | loss: nan | dt: 487.12ms
2025-12-08 10:00:09,201 - nanochat.checkpoint_manager - INFO - Saved model parameters to: /w/base_checkpoints/d20/\
model_021400.pt
2025-12-08 10:00:09,202 - nanochat.checkpoint_manager - INFO - Saved metadata to: /w/base_checkpoints/d20/\
meta_021400.json
2025-12-08 10:00:09,301 - nanochat.checkpoint_manager - INFO - Saved optimizer state to: /w/base_checkpoints/d20/\
optim_021400_rank0.pt
Peak memory usage: 75422.02MiB
Total training time: 171.21m
Minimum validation bpb: 0.8120
"""


def test_a_base_training_of_the_first_era() -> None:
    found = read(SEED_BASE)
    assert {each.stage for each in found} == {"base_train"}
    assert rows(found, "metric")[0][1:] == (0, {
        "loss": 11.090351, "grad_norm": 0.2841, "lrm": 1.0, "dt": pytest.approx(20.48712), "tok_per_sec": 25591.0,
        "mfu": 1.5, "train_time": 0.0, "tokens": 524288})
    assert rows(found, "metric")[1][1] == 500 and rows(found, "metric")[1][2]["train_time"] == pytest.approx(238.2)
    assert math.isnan(rows(found, "metric")[2][2]["loss"])
    (config,) = [data for _, _, data in rows(found, "config")]
    assert config == {"depth": 20, "run": "mine", "device": "cuda", "world_size": 8, "vocab_size": 65536,
                      "n_layer": 20, "tokens_per_step": 524288, "grad_accum_steps": 1, "n_params": 560988160,
                      "flops_per_token": 3491758000, "total_steps": 21400}
    assert rows(found, "eval")[:3] == [("base_train", 0, {"val_bpb": 3.2001}),
                                       ("base_train", 500, {"core/hellaswag_zeroshot": 0.1761}),
                                       ("base_train", 2000, {"core_metric": 0.1234})]
    assert [data for _, _, data in rows(found, "sample")] == [
        {"prompt": "The capital of France is", "text": " Paris\nand more"}, {"prompt": "", "text": "Something else"}]
    assert rows(found, "checkpoint") == [("base_train", 21400, {
        "source": "base", "tag": "d20", "dir": "/w/base_checkpoints/d20",
        "files": ["model_021400.pt", "meta_021400.json", "optim_021400_rank0.pt"]})]
    states = [data["state"] for _, _, data in rows(found, "stage")]
    assert states == ["started", "progress", "progress", "progress", "finished"]
    progress = rows(found, "stage")[2][2]
    assert (progress["done"], progress["total"], progress["unit"]) == (501, 21400, "steps")


REST = """train bpb: 0.8150
val bpb: 0.8120
Evaluating: arc_easy (10-shot, type: multiple_choice)... accuracy: 0.6 | centered: 0.4 | time: 1.00s
CORE metric: 0.2219
Step 00000 | Validation bpb: 0.7001
step 00001 (0.12%) | loss: 1.234567 | lrm: 1.00 | dt: 490.00ms | tok/sec: 1,069,975 | mfu: 47.22 | total time: 0.73m
2025-12-08 10:00:09,201 - nanochat.checkpoint_manager - INFO - Saved model parameters to: /w/mid_checkpoints/d20/\
model_000800.pt
Minimum validation bpb: 0.4100
\r\x1b[KRank 0 | 1/34 (2.94%)\r\x1b[KRank 1 | 12/34 (35.29%)\r\x1b[KRank 0 | 34/34 (100.00%)
==================================================
Final: 345/1319 (26.16%)
GSM8K accuracy: 2.50%
ARC-Easy accuracy: 38.76%
ChatCORE metric: 0.2804
Step 00010/00701 | Training loss: 0.987654| lrm: 0.985735| num_tokens: 10,432
Step 00100 | Validation loss: 1.012345
Step 00200 | mmlu_acc: 0.312500, arc_easy_acc: 0.350000
\u2705 Saved model checkpoint to /w/chatsft_checkpoints/d20
Step 12/467 | Example step 0 | Pass 1 | loss: -0.001234 | Average reward: 0.125
Step 12/467 | Example step 1 | Pass 0 | loss: -0.003234 | Average reward: 0.125
Step 12/467 | Average reward: 0.0625 | Average sequence length: 171.25
Step 60 | Pass@1: 0.0425, Pass@2: 0.0700
"""


def test_the_other_stages_of_the_first_era() -> None:
    found = read(REST)
    assert [(stage, data["title"]) for stage, _, data in rows(found, "stage") if data["state"] == "started"] == [
        ("base_eval", "Base eval"), ("mid_train", "Mid"), ("chat_eval", "Chat eval"), ("chat_sft", "SFT"),
        ("chat_rl", "RL")]
    evals = rows(found, "eval")
    assert [(stage, data) for stage, _, data in evals if stage == "base_eval"] == [
        ("base_eval", {"train_bpb": 0.815}), ("base_eval", {"val_bpb": 0.812}), ("base_eval", {"core/arc_easy": 0.4}),
        ("base_eval", {"core_metric": 0.2219})]
    assert ("chat_eval", None, {"chat/GSM8K": pytest.approx(0.025)}) in evals
    assert ("chat_eval", None, {"chatcore_metric": 0.2804}) in evals
    assert ("chat_sft", 100, {"val_loss": 1.012345}) in evals
    assert ("chat_sft", 200, {"chat/MMLU": 0.3125, "chat/ARC-Easy": 0.35}) in evals
    assert ("chat_rl", 60, {"pass@1": 0.0425, "pass@2": 0.07}) in evals
    metrics = rows(found, "metric")
    assert [(stage, step) for stage, step, _ in metrics] == [("mid_train", 1), ("chat_sft", 10), ("chat_rl", 12)]
    assert metrics[1][2] == {"loss": 0.987654, "lrm": 0.985735, "num_tokens": 10432.0}
    assert metrics[2][2] == {"reward": 0.0625, "sequence_length": 171.25, "loss": pytest.approx(-0.002234)}
    assert [data["done"] for stage, _, data in rows(found, "stage")
            if stage == "chat_eval" and data["state"] == "progress"] == [1, 34]


def test_the_evaluation_before_a_stages_first_step_belongs_to_it() -> None:
    found = read("Vocab size: 10\nMinimum validation bpb: 0.9\nStep 00000 | Validation bpb: 0.7001\n"
                 "step 00001 (0.12%) | loss: 1.2 | lrm: 1.00 | mfu: 47.22 | total time: 0.73m\n")
    assert ("mid_train", 0, {"val_bpb": 0.7001}) in rows(found, "eval")
    assert ("base_train", 0, {"val_bpb": 0.7001}) not in rows(found, "eval")


HEAD_SFT = """GPU: NVIDIA H100 80GB HBM3 | Peak FLOPS (BF16): 9.89e+14
COMPUTE_DTYPE: torch.bfloat16 (auto-detected: CUDA SM 90)
Inherited max_seq_len=2048 from pretrained checkpoint
Step 00000 | Validation bpb: 0.6123
step 00001 (0.34%) | loss: 1.5 | lrm: 1.00 | dt: 500.00ms | tok/sec: 1,000,000 | mfu: 50.1 | epoch: 1 | total time: 0.1m
Step 00200 | Validation bpb: 0.4123
  ARC-Easy: 45.58%
Step 00200 | ChatCORE: 0.2804 | ChatCORE_cat: 0.1900
"""


def test_sft_of_the_newest_era() -> None:
    found = read(HEAD_SFT)
    assert {each.stage for each in found} == {"chat_sft"}
    assert rows(found, "config")[0][2] == {"device_name": "NVIDIA H100 80GB HBM3", "peak_flops": 9.89e14,
                                           "dtype": "bfloat16"}
    assert [data for _, _, data in rows(found, "eval")] == [
        {"val_bpb": 0.6123}, {"val_bpb": 0.4123}, {"chat/ARC-Easy": pytest.approx(0.4558)},
        {"chatcore_metric": 0.2804, "chatcore_cat": 0.19}]


def test_data_and_tokenizer() -> None:
    found = read("Downloading shard_00007.parquet...\nSuccessfully downloaded shard_00007.parquet\n"
                 "Done! Downloaded: 240/240 shards to /d\n"
                 "2025-12-08 10:00:00,000 - rustbpe - INFO - Progress: 50% (32636/65271 merges) - Last merge: "
                 "(1, 2) -> 3 (frequency: 4)\nTraining time: 41.23s\n")
    assert [(stage, data.get("done")) for stage, _, data in rows(found, "stage") if data["state"] == "progress"] == [
        ("dataset", 1), ("dataset", 240), ("tok_train", 32636)]
    assert rows(found, "eval") == [("tok_train", None, {"tokenizer_train_time": 41.23})]


def test_the_tag_lines_of_the_experiment_branch() -> None:
    found = read('Vocab size: 10\nparams wte=10 total=20\neval step=250 eflops=0.5 val_bpb=1.25\n'
                 'eval is what we do = here\nsummary model_tag="a b" depth=12 val_bpb=0.9\n')
    assert rows(found, "eval") == [("base_train", 250, {"eflops": 0.5, "val_bpb": 1.25}),
                                   ("base_train", None, {"depth": 12, "val_bpb": 0.9})]
    assert rows(found, "stage")[-1][2]["state"] == "finished"
    assert tagged("model loads fast") is None and tagged("core a='") is None


def test_launchers_prefixes_and_faults() -> None:
    step = "step 00001/00010 (10.00%) | loss: 2.5"
    for prefix in ("[default0]:", "[rank0]: ", "2026-11-21T00:09:20.5Z ", "[2026-11-21 00:09:20] ", "\x1b[1m",
                   "2026-11-21T00:09:20+01:00 [rank0]: "):
        (found,) = rows(read(prefix + step + "\n"), "metric")
        assert found[2] == {"loss": 2.5}
    assert rows(read(f"[rank3]: {step}\n"), "metric") == []
    assert read(f"2026-11-21T00:09:20.5Z {step}\n")[-1].t == 1795219760.5
    found = read("Vocab size: 5\n[rank0]: Traceback (most recent call last):\n[rank0]:   File \"x.py\", line 3\n"
                 "[rank0]: torch.OutOfMemoryError: CUDA out of memory\n" + step + "\n")
    (alert,) = rows(found, "alert")
    assert alert[2]["text"] == "torch.OutOfMemoryError: CUDA out of memory" and alert[2]["level"] == "error"
    assert len(rows(found, "metric")) == 1


def test_numbers_in_every_spelling() -> None:
    assert [number(text) for text in ("1,076,301", "487.12ms", "3.97m", "2.34%", "1024MiB", "3.49e+09", "-0.001")] == [
        1076301, pytest.approx(0.48712), pytest.approx(238.2), 2.34, 1.0, 3.49e9, -0.001]
    assert math.isnan(number("nan") or 0) and number("inf") == math.inf
    assert [number(text) for text in ("", "-", "Paris", "1 2", "0x10", "١٢" * 3)][:5] == [None] * 5
    assert fields(" epoch: 1 pq: 12 rg: 40 | eta: 90.0m | new thing: 7 | words: a b") == {
        "epoch": 1.0, "eta_s": 5400.0, "new_thing": 7.0}
    assert unwrap("  ARC-Easy: 45.58%").text == "  ARC-Easy: 45.58%"


@pytest.mark.parametrize("era", ["seed", "head"])
def test_real_logs(era: str) -> None:
    path = UPSTREAM / era / "base_train.log"
    if not path.exists():
        pytest.skip("needs the reference logs")
    data = path.read_bytes()
    log = NanochatLog()
    found = log.feed(data) + log.close()
    assert [step for _, step, _ in rows(found, "metric")] == list(range(60))
    assert [step for _, step, _ in rows(found, "checkpoint")] == [25, 50, 60]
    assert [step for _, step, data in rows(found, "eval") if "val_bpb" in data] == [0, 20, 40, 60]
    assert [step for _, step, _ in rows(found, "sample")] == [30] * 7 + [60] * 7
    assert rows(found, "stage")[-1][2]["state"] == "finished"
    dice = random.Random(4)
    for _ in range(20):  # torn anywhere, the same is read
        torn, at, pieces = NanochatLog(), 0, []
        while at < len(data):
            step = dice.choice([1, 3, 50, 4096])
            pieces += torn.feed(data[at: at + step])
            at += step
        assert repr(pieces + torn.close()) == repr(found)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.one_of(
    st.binary(max_size=60), st.sampled_from([line.encode() for text in (SEED_BASE, REST, HEAD_SFT)
                                             for line in text.splitlines()])), max_size=30),
    st.randoms(use_true_random=False))
def test_no_log_can_raise_and_all_is_of_our_kinds(lines: list[bytes], dice: random.Random) -> None:
    data = bytearray(b"\n".join(lines))
    for _ in range(dice.randrange(5)):
        if data:
            data[dice.randrange(len(data))] = dice.randrange(256)
    log = NanochatLog()
    for each in log.feed(bytes(data)) + log.close():
        assert each.kind in KINDS and (each.step is None or abs(each.step) < 1 << 63)
        assert isinstance(each.data, dict) and "\x1b" not in repr(each.data).replace("\\x1b", "\x1b")
