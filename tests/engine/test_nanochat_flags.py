"""Every flag of nanochat's own scripts, of its first days and of now, is understood by the stage of the same name."""

from __future__ import annotations

import pytest

from engine.config import from_argv, option_named, options
from engine.settings.evaluation import BaseEval, ChatEval
from engine.settings.training import ChatSft, MidTrain
from engine.stage import find

SEED = {
    "dataset": "-n=-1 --num-files=-1 -w=4 --num-workers=4",
    "tok_train": "--max_chars=10000000000 --doc_cap=10000 --vocab_size=65536",
    "base_train": "--run=dummy --device_type= --depth=20 --max_seq_len=2048 --num_iterations=-1 --target_flops=-1.0 "
    "--target_param_data_ratio=20 --device_batch_size=32 --total_batch_size=524288 --embedding_lr=0.2 "
    "--unembedding_lr=0.004 --weight_decay=0.0 --matrix_lr=0.02 --grad_clip=1.0 --warmup_ratio=0.0 "
    "--warmdown_ratio=0.2 --final_lr_frac=0.0 --resume_from_step=-1 --eval_every=250 --eval_tokens=10485760 "
    "--core_metric_every=2000 --core_metric_max_per_task=500 --sample_every=2000 --save_every=-1 --model_tag=",
    "base_eval": "--hf-path=gpt2 --max-per-task=-1 --device_batch_size=32 --split_tokens=10485760 --model_tag=d20 "
    "--model_step=10 --device_type=cuda",
    "mid_train": "--run=dummy --device_type=cuda --model_tag=d20 --step=7 --dtype=bfloat16 --num_iterations=-1 "
    "--max_seq_len=2048 --device_batch_size=32 --unembedding_lr=0.004 --embedding_lr=0.2 --matrix_lr=0.02 "
    "--init_lr_frac=1.0 --weight_decay=0.0 --eval_every=150 --eval_tokens=10485760 --total_batch_size=524288 "
    "--dry_run=1",
    "chat_sft": "--run=dummy --source=mid --model_tag=d20 --step=7 --device_type= --dtype=bfloat16 "
    "--device_batch_size=4 --num_epochs=1 --num_iterations=-1 --target_examples_per_step=32 --unembedding_lr=0.004 "
    "--embedding_lr=0.2 --matrix_lr=0.02 --weight_decay=0.0 --init_lr_frac=0.02 --eval_every=100 --eval_steps=100 "
    "--eval_metrics_every=200 --eval_metrics_max_problems=1024",
    "chat_rl": "--run=dummy --source=sft --dtype=bfloat16 --device_batch_size=8 --examples_per_step=16 "
    "--num_samples=16 --max_new_tokens=256 --temperature=1.0 --top_k=50 --unembedding_lr=0.004 --embedding_lr=0.2 "
    "--matrix_lr=0.02 --weight_decay=0.0 --init_lr_frac=0.05 --num_epochs=1 --save_every=60 --eval_every=60 "
    "--eval_examples=400",
    "chat_eval": "-i=sft -a=MMLU|GSM8K -d=bfloat16 -t=0.0 -m=512 -n=1 -k=50 -b=8 -g=d20 -s=7 -x=20 --source=mid "
    "--task-name=all --max-new-tokens=512 --num-samples=1 --batch-size=8 --model-tag=d20 --max-problems=9",
}
NOW = {
    "base_train": "--run=dummy --device-type= --fp8 --depth=20 --aspect-ratio=64 --head-dim=128 --max-seq-len=2048 "
    "--window-pattern=SSSL --num-iterations=-1 --target-flops=-1.0 --target-param-data-ratio=12 "
    "--device-batch-size=32 --total-batch-size=-1 --embedding-lr=0.3 --unembedding-lr=0.008 --weight-decay=0.28 "
    "--matrix-lr=0.02 --scalar-lr=0.5 --warmup-steps=40 --warmdown-ratio=0.65 --final-lr-frac=0.05 "
    "--resume-from-step=-1 --eval-every=250 --eval-tokens=41943040 --core-metric-every=2000 "
    "--core-metric-max-per-task=500 --sample-every=2000 --save-every=-1 --model-tag=d24",
    "base_eval": "--eval=core,bpb,sample --model-tag=d24 --step=10 --max-per-task=-1 --device-batch-size=32 "
    "--split-tokens=20971520 --device-type=cuda",
    "chat_sft": "--run=dummy --device-type= --model-tag=d24 --model-step=10 --load-optimizer=1 --num-iterations=-1 "
    "--max-seq-len=2048 --device-batch-size=16 --total-batch-size=1048576 --embedding-lr=0.3 --unembedding-lr=0.008 "
    "--matrix-lr=0.02 --init-lr-frac=0.8 --warmup-ratio=0.0 --warmdown-ratio=0.5 --final-lr-frac=0.0 "
    "--eval-every=200 --eval-tokens=20971520 --chatcore-every=200 --chatcore-max-cat=-1 --chatcore-max-sample=24",
    "chat_rl": "--device-type=cuda --model-tag=d24 --model-step=10",
    "tok_train": "--max-chars=2000000000 --doc-cap=10000 --vocab-size=32768",
}


@pytest.mark.parametrize(("stage", "words"), [*SEED.items(), *NOW.items()])
def test_every_flag_is_understood(stage: str, words: str) -> None:
    spec = find(stage)
    from_argv(spec.config, words.split())
    from_argv(spec.config, [part for word in words.split() for part in word.split("=", 1)])


def test_what_nanochat_writes_for_not_given_is_not_given() -> None:
    mid = from_argv(MidTrain, ["--dry_run=1", "--model_step=-1", "--device_type="])
    assert mid.dry_run and mid.step is None and mid.device_type == "auto" and mid.eval_every == 150
    sft = from_argv(ChatSft, ["--model-step=7", "--chatcore-max-cat=-1", "--eval_steps=100"])
    assert (sft.step, sft.chatcore_max_cat, sft.chatcore_max_sample, sft.eval_steps) == (7, None, 24, 100)
    assert from_argv(BaseEval, ["--model_step", "3"]).step == 3
    assert from_argv(ChatEval, ["-s", "3"]).step == 3


def test_no_two_settings_of_a_stage_share_a_name() -> None:
    for stage in SEED:
        known = options(find(stage).config)
        names = [name for o in known.values() for name in (o.name, o.also, o.short and f"-{o.short}") if name]
        assert len(names) == len(set(names)), stage
        assert all(option_named(known, o.also) is o for o in known.values() if o.also)
