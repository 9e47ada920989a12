"""The next turn reads only what is new, and answers as if it had read everything."""

from __future__ import annotations

import random

import pytest

from engine.inference.batch import DecodeBatch
from engine.inference.generate import Engine
from engine.inference.native import NativeStepper
from engine.inference.prefix import PrefixStore
from engine.inference.sampling import Sampling
from engine.inference.stepper import TorchStepper
from engine.model.config import ERAS, GPTConfig
from engine.model.gpt import GPT


def make_model(era: str, context: int = 256) -> GPT:
    import torch

    architecture = ERAS[era]
    model = GPT(GPTConfig(context, 290, 3, 4, 2, 64, "SL" if architecture.modern else None), architecture).eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=parameter.shape[-1] ** -0.5, generator=generator)
        model.lm_head.weight.mul_(4)
    return model


class Counting:
    """A stepper that counts the tokens it reads of prompts."""

    def __init__(self, stepper) -> None:
        self._stepper, self.read_tokens = stepper, 0
        self.cache, self.step = stepper.cache, stepper.step

    def read(self, rows, cache, *more):
        self.read_tokens += len(rows[0])
        return self._stepper.read(rows, cache, *more)


@pytest.mark.parametrize("era", ["seed", "bigram", "head"])
@pytest.mark.parametrize("kind", [TorchStepper, NativeStepper])
def test_turns_of_two_conversations(byte_tokenizer, era: str, kind: type) -> None:
    model, tokenizer, rng = make_model(era), byte_tokenizer(10_000), random.Random(era)
    counting = Counting(kind(model))
    engine = Engine(model, tokenizer, counting)
    system = rng.choices(range(290), k=20)
    talks = [[*system, *rng.choices(range(290), k=20)] for _ in range(2)]
    for turn in range(3):
        for talk in talks:
            before = counting.read_tokens
            got = [t[0] for t, _ in engine.generate(talk, max_tokens=12, temperature=0)]
            fresh = Engine(model, tokenizer, TorchStepper(model))
            assert got == [t[0] for t, _ in fresh.generate(talk, max_tokens=12, temperature=0)]
            new = counting.read_tokens - before - 11  # 11 tokens of the answer were read one by one
            assert new == (len(talk) if talk is talks[0] else 20) if not turn else new <= 12 + 1
            talk += [*got[: 12 - turn], *rng.choices(range(290), k=12 - turn)]  # an answer may be cut, too


def test_the_same_prompt_again_and_a_cancelled_one(byte_tokenizer) -> None:
    model, tokenizer = make_model("seed"), byte_tokenizer(10_000)
    engine, prompt = Engine(model, tokenizer), random.Random(1).choices(range(290), k=60)
    first = list(engine.generate(prompt, max_tokens=10, temperature=0))
    assert list(engine.generate(prompt, max_tokens=10, temperature=0)) == first
    stopped = engine.generate(prompt, max_tokens=10, temperature=0)
    next(stopped)
    assert list(engine.generate(prompt, max_tokens=10, temperature=0)) == first, "while another is under way"
    stopped.close()
    assert list(engine.generate(prompt, max_tokens=10, temperature=0, should_stop=lambda: True)) == []
    assert list(engine.generate(prompt, max_tokens=10, temperature=0)) == first
    longer = engine.generate(prompt, max_tokens=150, temperature=0)
    assert [step for step, _ in zip(longer, range(10), strict=False)] == first, "a kept cache may be too short"


def test_idle_caches_take_bounded_memory(byte_tokenizer, monkeypatch) -> None:
    model = make_model("seed")
    store = PrefixStore(model, TorchStepper(model), keep=5)
    caches = [TorchStepper(model).cache(64) for _ in range(8)]
    for i, cache in enumerate(caches):
        cache.rewind(40, 1)
        store.give(cache, [i] * 64)
    assert store.take([7] * 50, 60) is caches[7] and caches[7].pos == 40
    assert store.take([2] * 50, 60) not in caches, "the oldest were let go"
    monkeypatch.setattr("engine.inference.prefix._MOST_BYTES", 2 * caches[0].nbytes)
    store.give(caches[7], [7] * 64)
    assert store.take([5] * 50, 60) not in caches
    assert store.take([6] * 50, 60) is caches[6]


def test_a_batch_reads_only_what_is_new(byte_tokenizer) -> None:
    model, tokenizer = make_model("head"), byte_tokenizer(10_000)
    counting = Counting(NativeStepper(model))
    batch, prompt = DecodeBatch(Engine(model, tokenizer, counting)), random.Random(2).choices(range(290), k=100)

    def run(prompt: list[int]) -> list[int]:
        batch.add(prompt, Sampling(0.0), 10)
        got: list[int] = []
        while batch.active:
            got += [token.id for token in batch.step().values()]
        return got

    answer = run(prompt)
    assert counting.read_tokens == 100
    follow = [*prompt, *answer, 5, 6, 7]
    expected = [t[0] for t, _ in Engine(model, tokenizer).generate(follow, max_tokens=10, temperature=0)]
    assert run(follow) == expected
    assert counting.read_tokens == 100 + 4  # the answer's last token was not read yet
