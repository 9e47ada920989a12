"""Rows at different positions in one forward pass: what each gets is what it gets alone, whoever comes and goes."""

from __future__ import annotations

import random

import pytest
import torch

from engine.inference.batch import DecodeBatch
from engine.inference.generate import Engine
from engine.inference.kv_cache import KVCache
from engine.inference.sampling import Sampling
from engine.inference.side_by_side import SideBySide
from engine.inference.stepper import TorchStepper, refresh_state
from engine.model.config import ERAS, Architecture, GPTConfig
from engine.model.gpt import GPT


def era_model(era: str, context: int = 192) -> GPT:
    """All weights random; windows narrow enough to matter."""
    architecture = ERAS[era]
    if architecture.window_multiple > 1:
        architecture = Architecture(**{**architecture.__dict__, "window_multiple": 8})
    config = GPTConfig(context, 290, 3, 4, 2, 64, "SL" if architecture.modern else None)
    model, generator = GPT(config, architecture).eval(), torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=parameter.shape[-1] ** -0.5, generator=generator)
        model.lm_head.weight.mul_(4)
    return model


class Counting(TorchStepper):
    """Counts forward passes and the rows of each."""

    def __init__(self, model: GPT) -> None:
        super().__init__(model)
        self.rows: list[int] = []

    def forward(self, ids, cache):
        self.rows.append(len(ids))
        return super().forward(ids, cache)


@pytest.mark.parametrize("era", ERAS)
def test_logits_of_each_row_are_those_of_the_full_forward(era: str) -> None:
    model, rng = era_model(era), random.Random(era)
    stepper = TorchStepper(model)
    texts = [rng.choices(range(290), k=150) for _ in range(5)]
    caches = [stepper.cache(30 + 40 * i) for i in range(5)]
    with torch.no_grad():
        full = [model(torch.tensor([text]))[0] for text in texts]
    for text, cache in zip(texts, caches, strict=True):
        stepper.read([text[: rng.randrange(1, 28)]], cache)
    for step in range(24):
        there = [i for i in rng.sample(range(5), rng.randrange(2, 6)) if i or caches[i].pos < 30]
        if step == 12:  # one of them goes back and reads on by itself, as a new turn of its conversation does
            back, caches[4] = caches[4].pos - 3, caches[4].replicate(1, 190)
            caches[4].rewind(back, texts[4][back - 1])
            refresh_state(model, caches[4])
            stepper.read([texts[4][back : back + 9]], caches[4])
        for i in there:  # one that sat out may have lost its room
            caches[i] = caches[i] if caches[i].max_len > caches[i].pos else caches[i].replicate(1, 190)
        at = {i: caches[i].pos for i in there}
        logits = stepper.step([texts[i][at[i]] for i in there], [caches[i] for i in there])
        for row, i in zip(logits, there, strict=True):
            torch.testing.assert_close(row, full[i][at[i]], rtol=0, atol=2e-4)


@pytest.mark.parametrize("era", ["seed", "bigram", "head"])
def test_rows_that_come_and_go_share_forward_passes_and_keep_their_answers(byte_tokenizer, era: str) -> None:
    model, rng = era_model(era), random.Random(3)
    counting = Counting(model)
    batch = DecodeBatch(Engine(model, byte_tokenizer(10_000), counting), slots=4)
    asked, got = {}, {}
    waiting = [(rng.choices(range(290), k=rng.randrange(1, 60)), rng.randrange(5, 40)) for _ in range(10)]
    waiting += [([*waiting[0][0], *rng.choices(range(290), k=5)], 12), (waiting[3][0], 9)]  # kept caches are used again
    while waiting or batch.active:
        while waiting and batch.free:
            prompt, count = waiting.pop(0)
            asked[batch.add(prompt, Sampling(0.0), count)] = (prompt, count)
        for slot, token in batch.step().items():
            got.setdefault(slot, []).append(token.id)
    alone = Engine(model, byte_tokenizer(10_000))
    for slot, (prompt, count) in asked.items():
        assert got[slot] == [t[0] for t, _ in alone.generate(prompt, max_tokens=count, temperature=0)]
    decoded = sum(map(len, got.values())) - len(got)
    assert max(counting.rows) == 4 and len(counting.rows) < 0.6 * decoded + len(asked), "one pass serves many rows"


@pytest.mark.parametrize("era", ["seed", "head"])
def test_the_next_turn_may_come_at_once_while_others_go_on(byte_tokenizer, era: str) -> None:
    model, rng = era_model(era), random.Random(5)
    batch, alone = DecodeBatch(Engine(model, byte_tokenizer(10_000))), Engine(model, byte_tokenizer(10_000))
    others = {batch.add(rng.choices(range(290), k=9), Sampling(0.0), 120): [] for _ in range(2)}
    talk = rng.choices(range(290), k=30)
    for _ in range(4):
        slot, answer = batch.add(talk, Sampling(0.0), 8), []
        while len(answer) < 8:
            got = batch.step()
            answer += [got[slot].id] if slot in got else []
            for other in others:
                others[other] += [got[other].id] if other in got else []
        assert answer == [t[0] for t, _ in alone.generate(talk, max_tokens=8, temperature=0)]
        talk += [*answer, *rng.choices(range(290), k=12)]
    assert all(len(tokens) > 30 for tokens in others.values())


def test_a_row_that_left_keeps_what_it_held() -> None:
    caches = [KVCache(1, 1, 8, 2, 1) for _ in range(3)]
    for number, cache in enumerate(caches):
        cache.insert(0, torch.full((1, 1, 3, 2), float(number)), torch.full((1, 1, 3, 2), float(-number)))
        cache.advance(3)
    together = SideBySide()
    assert together.seat(caches) == [0, 1, 2]
    assert together.seat([caches[2], caches[1]]) == [0, 1], "the last row took the free one"
    assert caches[0].max_len == 3 and caches[0].k.untyped_storage().nbytes() == 3 * 2 * 4, "and no more than that"
    assert together.seat([caches[0], caches[1], KVCache(1, 1, 90, 2, 1)]) == [0, 1, 2], "longer ones need more memory"
    for number, cache in enumerate(caches):
        assert cache.k[0, 0, 0, :3, 0].tolist() == [number] * 3 and cache.v[0, 0, 0, :3, 0].tolist() == [-number] * 3
