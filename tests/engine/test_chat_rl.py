"""RL: the objective against plain Python, seeds, kill -9 and resume bit for bit, and that it learns."""

from __future__ import annotations

import json
import math
import os
import random
import signal
import subprocess
import sys
import time
from types import SimpleNamespace

import pytest
import torch

from engine.config import ConfigError
from engine.context import EXIT_STOPPED, StageContext, StageError
from engine.events import EventWriter, parse_line
from engine.inference.generate import Engine
from engine.model.config import GPTConfig
from engine.model.gpt import GPT
from engine.settings.rl import ChatRl
from engine.stages import chat_rl
from engine.tasks.gsm8k import problem_of
from engine.tokenizer.bpe import Tokenizer
from engine.tokenizer.chat_format import render_conversation, render_for_completion
from engine.tokenizer.store import SPECIAL_TOKENS, SPLIT_PATTERN, Vocabulary
from engine.train import checkpoint
from engine.train.reinforce import Row, as_batch, backward, ensure_gradients, roll_out, rollout_seed, sample_rows

FLAGS = ["--task=sums.jsonl", "--device-type=cpu", "--dtype=float32", "--device-batch-size=4", "--num-samples=8",
         "--examples-per-step=2", "--max-new-tokens=8", "--num-iterations=10", "--save-every=2", "--eval-every=5",
         "--eval-examples=2", "--init-lr-frac=0.2"]


@pytest.fixture(scope="module")
def bytes_tokenizer():
    specials = {name: 256 + i for i, name in enumerate(SPECIAL_TOKENS)}
    return Tokenizer(Vocabulary(SPLIT_PATTERN, {bytes([i]): i for i in range(256)}, specials))


@pytest.fixture(scope="module")
def guessing(bytes_tokenizer):
    """A small model that answers every question with #### and some digit of four: right one time in four."""
    torch.manual_seed(0)
    model = GPT(GPTConfig(64, 265, 2, 2, 2, 32))
    model.init_weights(torch.Generator().manual_seed(1))
    optimizer, chance = torch.optim.AdamW(model.parameters(), lr=1e-2), random.Random(2)
    for _ in range(150):
        rows = [render_conversation(bytes_tokenizer, [
            {"role": "user", "content": f"{chance.randrange(4)}?"},
            {"role": "assistant", "content": f"#### {chance.randrange(4)}"}]) for _ in range(32)]
        ids, mask = torch.tensor([ids for ids, _ in rows]), torch.tensor([mask for _, mask in rows])
        model(ids[:, :-1], torch.where(mask[:, 1:] == 1, ids[:, 1:], -1)).backward()
        optimizer.step()
        optimizer.zero_grad()
    return model.eval()


@pytest.fixture
def rl_base(tmp_path, guessing, bytes_tokenizer):
    """A base directory with that model as its SFT model, and four questions whose answer is 2."""
    base = tmp_path / "b"
    bytes_tokenizer.save(base / "tokenizer")
    checkpoint.save_checkpoint(base / "chatsft_checkpoints" / "d2", 150, source="sft", model=guessing.state_dict(),
                               meta={"step": 150, "model_config": guessing.config.to_dict()},
                               tokenizer_sha256=bytes_tokenizer.sha256())
    (base / "sums.jsonl").write_text("".join(json.dumps({"question": f"{d}?", "answer": "#### 2"}) + "\n"
                                             for d in range(4)))
    return base


def settings(**more):
    return SimpleNamespace(**{"device_batch_size": 4, "num_samples": 8, "max_new_tokens": 8, "temperature": 1.0,
                              "top_k": 50, **more})


def random_model(seed=0):
    torch.manual_seed(seed)
    model = GPT(GPTConfig(64, 265, 1, 2, 2, 16))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.3)
    return model


def test_gradient_and_loss_are_those_of_plain_python():
    """Token by token: log-probabilities from the logits, advantages by hand, one scalar objective, autograd."""
    rows = [Row([1, 2, 3, 4, 5], [0, 0, 1, 1, 1], 1.0), Row([1, 2, 9, 8], [0, 0, 1, 0], 0.0),
            Row([1, 2, 7], [0, 0, 1], 0.0), Row([1, 2, 3, 4, 6, 7], [0, 0, 1, 1, 0, 1], 1.0)]
    model, twin = random_model(), random_model()
    twin.load_state_dict(model.state_dict())
    batch = as_batch(rows, 264, "cpu")
    assert batch.inputs.shape == (4, 5) and batch.lengths == [5, 4, 3, 6]
    loss = backward(model, batch, rows_per_pass=2, examples=3)

    mean = sum(row.reward for row in rows) / len(rows)
    total = torch.zeros(())
    for first in (0, 2):  # two passes of two rows
        part, count = torch.zeros(()), 0
        for row in rows[first : first + 2]:
            logits = twin(torch.tensor([row.ids[:-1]]))[0]
            for t in range(1, len(row.ids)):
                if row.mask[t]:
                    top = logits[t - 1].max().item()
                    norm = top + torch.log(sum(torch.exp(value - top) for value in logits[t - 1]))
                    part = part + (logits[t - 1][row.ids[t]] - norm) * (row.reward - mean)
                    count += 1
        total = total - part / (count * 2 * 3)
    total.backward()
    assert loss == pytest.approx(total.item(), rel=1e-4)
    for (name, ours), theirs in zip(model.named_parameters(), twin.parameters(), strict=True):
        assert torch.allclose(ours.grad, theirs.grad, rtol=1e-3, atol=1e-6), name


def test_equal_rewards_push_nothing_and_still_make_a_step():
    model = random_model()
    for reward in (0.0, 1.0):
        batch = as_batch([Row([1, 2, 3], [0, 1, 1], reward)] * 4, 264, "cpu")
        assert backward(model, batch, 2, 1) == 0.0
    ensure_gradients(model)
    assert all(not p.grad.any() for p in model.parameters())


def test_only_what_the_model_chose_is_a_target():
    batch = as_batch([Row([1, 2, 3, 4], [0, 1, 0, 1], 1.0), Row([1, 2], [0, 1], 0.0)], 99, "cpu")
    assert batch.inputs.tolist() == [[1, 2, 3], [1, 2, 99]]
    assert batch.targets.tolist() == [[2, -1, 4], [2, -1, -1]]
    assert batch.advantages.tolist() == [0.5, -0.5]


def test_seeds_are_the_same_in_every_process_and_differ_between_chunks():
    seeds = {rollout_seed(s, e, c) for s in range(20) for e in range(20) for c in range(4)}
    assert len(seeds) == 1600 and all(0 <= seed < 2**31 for seed in seeds)
    code = "print(hash((3, 5, 1)) & 0x7FFFFFFF)"
    told = {subprocess.run([sys.executable, "-c", code], env={**os.environ, "PYTHONHASHSEED": number}, text=True,
                           capture_output=True, check=True).stdout for number in ("1", "2")}
    assert told == {f"{rollout_seed(3, 5, 1)}\n"}


def test_samples_hold_prompt_and_answer_and_no_end(guessing, bytes_tokenizer):
    engine = Engine(guessing, bytes_tokenizer)
    problem = problem_of({"question": "3?", "answer": "#### 3"})
    prompt = render_for_completion(bytes_tokenizer, problem.messages)
    rows = sample_rows(engine, prompt, 6, settings(), seed=1)
    assert all(ids[: len(prompt)] == prompt and not any(engine.special.ends(i) for i in ids[len(prompt):])
               for ids, _ in rows)
    assert all(len(ids) == len(mask) and not any(mask[: len(prompt)]) for ids, mask in rows)
    assert rows == sample_rows(engine, prompt, 6, settings(), seed=1)
    assert rows != sample_rows(engine, prompt, 6, settings(), seed=2)
    marked = roll_out(engine, bytes_tokenizer, problem, lambda p, text: text == "#### 3", settings(), 0, 0)
    assert len(marked) == 8 and {row.reward for row in marked} <= {0.0, 1.0}


def events(base):
    return [parse_line(line) for line in (base / "events.jsonl").read_bytes().splitlines()]


@pytest.mark.timeout(200)
def test_it_learns_to_be_right(rl_base):
    """Every answer is 2: from one in four by chance to nearly always."""
    context = StageContext(rl_base, EventWriter(rl_base / "events.jsonl"), "chat_rl")
    config = ChatRl(task="sums.jsonl", device_type="cpu", dtype="float32", device_batch_size=8, num_samples=8,
                    examples_per_step=4, max_new_tokens=8, num_iterations=25, save_every=None, eval_every=None,
                    eval_examples=4, init_lr_frac=0.3)
    chat_rl.run(config, context)
    part = json.loads((rl_base / "report" / "chat-rl.json").read_text())["data"]
    assert part["Mean reward of the first tenth"] < 0.4
    assert part["Mean reward of the last tenth"] > 0.7 and part["pass@4"] >= 0.75
    metrics = [e for e in events(rl_base) if e.kind == "metric"]
    assert len(metrics) == 25 and {"reward", "sequence_length", "lrm", "loss", "dt"} <= set(metrics[0].data)
    [measured] = [e for e in events(rl_base) if e.kind == "eval"]
    assert list(measured.data) == [f"pass@{n}" for n in range(1, 9)] and measured.step == 25
    values = list(measured.data.values())
    assert values == sorted(values) and values[0] == part["pass@1"]
    [saved] = [e for e in events(rl_base) if e.kind == "checkpoint"]
    assert saved.data["source"] == "rl" and checkpoint.newest_valid(rl_base / "chatrl_checkpoints" / "d2") == 25


def start(base, *more):
    env = {**os.environ, "NANOCHAT_BASE_DIR": str(base), "OMP_NUM_THREADS": "1", "LLMCONSOLE_THREADS": "1"}
    return subprocess.Popen([sys.executable, "-m", "engine", "chat_rl", *FLAGS, *more], env=env,
                            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


def finish(process):
    _, error = process.communicate(timeout=100)
    assert process.returncode in (0, EXIT_STOPPED), error.decode()
    return process.returncode


def state(base):
    folder, step = checkpoint.resolve(base, "rl")
    return [checkpoint.load_tensors(folder / name) for name in
            (f"model_{step:06d}.pt", f"optim_{step:06d}_rank0.pt")], step


def same(a, b):
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(same, a, b))
    return a == b or (isinstance(a, float) and math.isnan(a) and math.isnan(b))


@pytest.mark.timeout(200)
def test_killed_at_random_and_resumed_gives_the_same_weights(rl_base, tmp_path):
    broken = tmp_path / "broken"
    subprocess.run(["cp", "-r", str(rl_base), str(broken)], check=True)
    assert finish(start(rl_base)) == 0
    victim = start(broken, "--resume")
    deadline = time.monotonic() + 60
    while not list(broken.glob("chatrl_checkpoints/*/manifest_*.json")) and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(random.Random(7).uniform(0, 0.1))
    victim.send_signal(signal.SIGKILL)
    victim.communicate()
    stopped = start(broken, "--resume")
    time.sleep(4)
    stopped.send_signal(signal.SIGTERM)
    stopped.communicate(timeout=100)
    assert stopped.returncode in (0, EXIT_STOPPED, -signal.SIGTERM)  # the last: it had not begun yet
    assert finish(start(broken, "--resume")) == 0
    (ours, step), (theirs, last) = state(broken), state(rl_base)
    assert step == last == 10 and same(ours, theirs)
    reports = [json.loads((base / "report" / "chat-rl.json").read_text())["data"] for base in (broken, rl_base)]
    assert all(reports[0][key] == reports[1][key] for key in ("pass@1", "Mean reward of the last tenth"))


@pytest.mark.parametrize(("more", "words"), [
    ({"num_samples": 10, "device_batch_size": 4}, "multiple"), ({"task": "MMLU"}, "rewards are known for")])
def test_settings_that_do_not_fit_are_refused(rl_base, more, words):
    config = ChatRl(**{"device_type": "cpu", "dtype": "float32", "task": "sums.jsonl", **more})
    with pytest.raises(ConfigError, match=words):
        chat_rl.run(config, StageContext(rl_base, EventWriter(None), "chat_rl"))


def test_without_the_dataset_it_says_what_is_missing(rl_base, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(StageError, match="openai/gsm8k main/train is not on this machine"):
        chat_rl.run(ChatRl(device_type="cpu", dtype="float32"), StageContext(rl_base, EventWriter(None), "chat_rl"))
