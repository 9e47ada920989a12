"""Where a stage goes on: nanochat's checkpoints, other numbers of ranks, packings and precisions, too little memory."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from engine.config import ConfigError, from_argv
from engine.context import StageContext, StageError
from engine.device import Device
from engine.dist import ALONE, World
from engine.events import EventWriter
from engine.model import fp8
from engine.model.config import GPTConfig
from engine.model.gpt import GPT
from engine.settings.training import BaseTrain, ChatSft, MidTrain, Training, resolved
from engine.train import batch_size, checkpoint, resume
from engine.train.batch_size import OutOfMemory, accumulation_steps, fitting_batch_size, memory_watched, run_with_retry
from engine.train.padded import PaddedConversations
from engine.train.rank_view import RankView
from engine.train.workbench import open_world

UPSTREAM_RUNS = Path(__file__).parents[3] / "shared" / "reference" / "upstream" / "runs"
CPU = Device(torch.device("cpu"), torch.float32, 1e12, "test")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two checkpoints as nanochat leaves them: no manifest."""
    model = GPT(GPTConfig(16, 32, 1, 2, 2, 16))
    model.init_weights(torch.Generator().manual_seed(0))
    for step in (10, 20):
        meta = {"step": step, "model_config": model.config.to_dict(), "dtype": "bfloat16"}
        checkpoint.save_checkpoint(tmp_path / "d1", step, source="base", model=model.state_dict(), meta=meta,
                                   optimizers={0: [{"state": {}, "param_groups": []}]})  # fmt: skip
        (tmp_path / "d1" / f"manifest_{step:06d}.json").unlink()
    return tmp_path / "d1"


def test_the_newest_of_nanochats_checkpoints_that_is_whole(folder: Path) -> None:
    assert resume.newest_resumable(folder) == 20
    path = folder / "model_000020.pt"
    damaged = bytearray(path.read_bytes())
    damaged[damaged.index(b"lm_head") + 3] ^= 1  # inside an entry: the archive has no checksum over its padding
    path.write_bytes(damaged)
    assert resume.newest_resumable(folder) == 10
    (folder / "optim_000010_rank0.pt").rename(folder / "optim_000010.pt")  # the older name
    assert resume.newest_resumable(folder) == 10
    (folder / "meta_000010.json").unlink()
    assert resume.newest_resumable(folder) is None


def test_a_step_that_is_asked_for_must_be_there_and_whole(folder: Path) -> None:
    assert resume.resume_point(Training(), folder, ALONE) is None
    assert resume.resume_point(Training(resume_from_step=10), folder, ALONE) == 10
    with pytest.raises(StageError, match="no checkpoint of step 15") as caught:
        resume.resume_point(Training(resume_from_step=15), folder, ALONE)
    assert caught.value.next == "steps there: 10, 20"
    (folder / "optim_000010_rank0.pt").unlink()
    with pytest.raises(StageError, match="no optimizer state of step 10"):
        resume.resume_point(Training(resume_from_step=10), folder, ALONE)


def test_a_shard_missing_between_others_is_named(folder: Path) -> None:
    for rank in (1, 3):
        shutil.copy(folder / "optim_000020_rank0.pt", folder / f"optim_000020_rank{rank}.pt")
    with pytest.raises(StageError, match="rank 2 at step 20"):
        checkpoint.optimizer_files(folder, 20)


def test_a_resumed_run_computes_as_it_did(folder: Path) -> None:
    assert resume.as_before(CPU, Training(), folder, 20).dtype == torch.bfloat16
    assert resume.as_before(CPU, Training(dtype="float32"), folder, 20).dtype == torch.float32
    assert resume.as_before(CPU, Training(), folder, None).dtype == torch.float32


def test_the_place_in_the_data() -> None:
    exact = {"pq_idx": 1, "rg_idx": 5, "offset": 7, "epoch": 1}
    two = World(1, 2)
    position = resume.data_position
    assert position({"dataloader_state_dict": exact}, ALONE, "stream") == exact
    assert position({"dataloader_states": [{}, exact]}, two, "stream") == exact
    # nanochat's, or another number of ranks: the next row group that no rank has begun
    nanochats = {"dataloader_state_dict": {"pq_idx": 1, "rg_idx": 4}}
    assert position(nanochats, ALONE, "stream") == {"pq_idx": 1, "rg_idx": 5, "epoch": 1, "offset": 0}
    assert position(nanochats, two, "stream") == {"pq_idx": 1, "rg_idx": 7, "epoch": 1, "offset": 0}
    assert position({"dataloader_state_dict": exact}, two, "best_fit") == {
        "pq_idx": 1, "rg_idx": 7, "epoch": 1, "row": 0, "buffer": []
    }  # fmt: skip
    assert position({"dataloader_state_dict": exact}, ALONE, "best_fit")["rg_idx"] == 6  # type: ignore[index]
    # conversations: every rank is at the same place
    assert position({"dataloader_states": [{"cursor": 3}, {"cursor": 3}]}, ALONE, None) == {"cursor": 3}
    assert position({}, ALONE, None) is None


@pytest.mark.skipif(not UPSTREAM_RUNS.is_dir(), reason="nanochat's own run folders are not at hand")
@pytest.mark.parametrize("era", ["seed", "head"])
def test_nanochats_own_optimizer_files_are_read(era: str) -> None:
    from engine.optim.setup import LearningRates, setup_optimizers

    run = UPSTREAM_RUNS / era / "base_checkpoints" / "d2"
    model, _ = checkpoint.load_model(run, 60)
    optimizers = setup_optimizers(model, LearningRates())
    assert resume.newest_resumable(run) == 60
    resume.load_optimizers(optimizers, run, 60, CPU, ALONE)
    saved = checkpoint.load_tensors(run / "optim_000060_rank0.pt")
    theirs = saved if isinstance(saved, list) else [saved]
    for optimizer, state in zip(optimizers, theirs, strict=True):
        assert len(optimizer.state) == len(state["state"])
    adam = optimizers[0].state[model.lm_head.weight]
    assert torch.equal(adam["exp_avg"], theirs[0]["state"][0]["exp_avg"]) and adam["step"].item() == 60
    fc = model.transformer.h[1].mlp.c_fc.weight
    number = {"seed": 10, "head": 19}[era]
    buffer = optimizers[-1].state[fc if era == "seed" else model.transformer.h[0].mlp.c_fc.weight]["momentum_buffer"]
    assert torch.equal(buffer, theirs[-1]["state"][number]["momentum_buffer"])


class Counting:
    def __init__(self) -> None:
        self.n = 0

    def state(self) -> dict[str, Any]:
        return {"n": self.n}

    def __iter__(self) -> Any:
        while True:
            self.n += 1
            yield torch.tensor(self.n - 1), torch.tensor(0)


def test_ranks_take_turns_and_are_at_one_place() -> None:
    views = [RankView(Counting(), World(rank, 3)) for rank in range(3)]
    streams = [iter(view) for view in views]
    taken = [[next(stream)[0].item() for stream in streams] for _ in range(2)]
    assert taken == [[0, 1, 2], [3, 4, 5]]
    assert [view.state() for view in views] == [{"n": 6}] * 3


def test_padded_conversations() -> None:
    def render(i: int) -> tuple[list[int], list[int]]:
        return [i + 1] * (2 + i), [0] + [1] * (1 + i)

    def batches(start: dict[str, Any] | None = None) -> PaddedConversations:
        return PaddedConversations(5, render, 2, pad_id=0, start=start)

    first = batches()
    stream = iter(first)
    seen = [next(stream) for _ in range(5)]
    for x, y in seen:
        assert x.shape == y.shape
        for row, target in zip(x.tolist(), y.tolist(), strict=True):
            length = 2 + row[0] - 1
            assert target == [row[0]] * (length - 1) + [-1] * (len(row) - length + 1)
    assert sorted(row[0].item() for x, _ in seen for row in x) == sorted([1, 2, 3, 4, 5] * 2)
    half = batches()
    again = iter(half)
    next(again)
    x, y = next(iter(batches(half.state())))
    assert torch.equal(x, seen[1][0]) and torch.equal(y, seen[1][1])


def test_batch_sizes_that_do_not_divide_say_what_would() -> None:
    assert accumulation_steps(524_288, 32, 2048) == 8
    assert accumulation_steps(524_288, 32, 2048, 8) == 1
    with pytest.raises(StageError, match=r"x 3 ranks = 196,608") as caught:
        accumulation_steps(524_288, 32, 2048, 3)
    assert caught.value.next == "use --total-batch-size=393216"


def test_the_batch_that_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    model = GPT(GPTConfig(64, 512, 4, 2, 2, 64))
    room = batch_size._needed(model, 8, 64, compiled=False) * 1.01 / 0.85
    monkeypatch.setattr(batch_size, "free_memory", lambda device: room)
    assert fitting_batch_size(model, CPU, ALONE, 64, 64 * 64) == 8
    assert fitting_batch_size(model, CPU, ALONE, 64, 64 * 12) == 4  # 12 rows: 4 divides, 8 does not
    monkeypatch.setattr(batch_size, "free_memory", lambda device: 1e12)
    assert fitting_batch_size(model, CPU, ALONE, 64, 64 * 64) == 64
    with pytest.raises(StageError, match="not a multiple"):
        fitting_batch_size(model, CPU, ALONE, 64, 100)


def test_no_memory_is_explained_and_tried_again_smaller(tmp_path: Path) -> None:
    tried: list[tuple[int | None, bool]] = []

    def stage(config: Training, context: StageContext) -> None:
        tried.append((config.device_batch_size, config.resume))
        with memory_watched(config.device_batch_size or 1):
            if (config.device_batch_size or 1) > 8:
                raise RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory")

    context = StageContext(tmp_path, EventWriter(None), "base_train")
    with pytest.raises(OutOfMemory, match="with 32 sequences") as caught:
        run_with_retry(Training(), context, stage)
    assert "--device-batch-size=16" in caught.value.next
    run_with_retry(Training(oom_retry=True), context, stage)
    assert tried[1:] == [(32, False), (16, True), (8, True)]


def test_what_this_machine_cannot_compute_is_refused() -> None:
    for flag, text in (("--fp8", "Hopper"), ("--dtype=float16", "loss scal")):
        with pytest.raises(ConfigError, match=text), open_world(from_argv(BaseTrain, [flag, "--device-type=cpu"])):
            pass


def test_eight_bit_products_train_like_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the hardware's product written out in float32, the layer and its gradients stay within 8 bits' precision."""

    def product(a: torch.Tensor, b: torch.Tensor, sa: torch.Tensor, sb: torch.Tensor, out: torch.dtype, *,
                fast: bool) -> torch.Tensor:  # fmt: skip
        assert a.stride(1) == 1 and b.stride(0) == 1  # rows by rows, columns by columns, as the hardware wants
        return ((a.float() * sa) @ (b.float() * sb)).to(out)

    monkeypatch.setattr(fp8, "_mm", product)
    model = GPT(GPTConfig(16, 128, 1, 1, 1, 128))
    model.init_weights(torch.Generator().manual_seed(0))
    for zero in (model.lm_head.weight, model.transformer.h[0].mlp.c_proj.weight):
        torch.nn.init.normal_(zero, std=0.05, generator=torch.Generator().manual_seed(1))
    ids = torch.randint(0, 128, (4, 16), generator=torch.Generator().manual_seed(3))
    model(ids, ids).backward()
    exact = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    loss = fp8.training_forward(model, model)(ids, ids)
    loss.backward()
    assert loss.item() == pytest.approx(model(ids, ids).item(), rel=0.02)
    for name, p in model.named_parameters():
        assert p.grad is not None
        assert (p.grad - exact[name]).norm() <= 0.15 * exact[name].norm() + 1e-9, name
    assert all(layer.product is None for layer in model.modules() if hasattr(layer, "product"))


def test_rows_that_eight_bit_products_cannot_take_are_multiplied_as_ever() -> None:
    x, weight = torch.randn(3, 7, 128, dtype=torch.bfloat16), torch.randn(256, 128)
    assert torch.equal(fp8.fp8_product(x, weight), torch.nn.functional.linear(x, weight.bfloat16()))


def test_settings_of_both_architectures() -> None:
    classic, modern = (resolved(BaseTrain(architecture=name)) for name in ("classic", "modern"))
    assert (classic.embedding_lr, classic.grad_clip, classic.total_batch_size, classic.packing) == (
        0.2, 1.0, 524_288, "stream"
    )  # fmt: skip
    assert (modern.embedding_lr, modern.weight_decay, modern.warmup_steps) == (0.3, 0.28, 40)
    assert modern.packing == "best_fit"
    assert modern.total_batch_size is None
    assert resolved(replace(BaseTrain(architecture="modern"), embedding_lr=0.1)).embedding_lr == 0.1


def test_nanochats_flags_are_understood() -> None:
    """The words of its own scripts, and -1 and auto for what is left open."""
    base = from_argv(BaseTrain, ["--depth=4", "--max_seq_len=1024", "--device_batch_size=1", "--total_batch_size=1024",
                                 "--core_metric_every=-1", "--core_metric_max_per_task=12", "--resume-from-step", "-1",
                                 "--target-param-data-ratio=8", "--save-every", "-1", "--fp8"])  # fmt: skip
    assert base.core_metric_every is None and base.resume_from_step is None and base.fp8
    assert from_argv(BaseTrain, ["--device-batch-size", "auto"]).device_batch_size is None
    assert from_argv(BaseTrain, ["--device-batch-size=0"]).device_batch_size is None
    assert from_argv(ChatSft, ["--target_examples_per_step=4", "--num_iterations=100"]).target_examples_per_step == 4
    assert from_argv(MidTrain, ["--step=-1", "--num_iterations=100"]).step is None
