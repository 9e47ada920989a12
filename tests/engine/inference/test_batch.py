"""Continuous batching: whoever else is in the batch, an answer is the one that its prompt gets alone."""

from __future__ import annotations

import random

import pytest

from engine.inference.batch import BatchFull, DecodeBatch, Token
from engine.inference.generate import Engine
from engine.inference.sampling import Sampling

NO_SPECIALS = 10_000
GREEDY = Sampling(0.0)


def drain(batch: DecodeBatch, got: dict[int, list[Token]], steps: int = 10_000) -> dict[int, list[Token]]:
    while batch.active and steps:
        for slot, token in batch.step().items():
            got.setdefault(slot, []).append(token)
        steps -= 1
    return got


def alone(engine: Engine, prompt: list[int], sampling: Sampling, max_tokens: int) -> list[int]:
    return [tokens[0] for tokens, _ in engine.generate(
        prompt, max_tokens=max_tokens, temperature=sampling.temperature, top_k=sampling.top_k, seed=sampling.seed)]


def test_rows_that_come_and_go_get_their_own_answers(random_model, byte_tokenizer) -> None:
    engine = Engine(random_model(1, n_kv_head=2), byte_tokenizer(NO_SPECIALS))
    rng, batch = random.Random(1), DecodeBatch(engine, slots=3)
    waiting = [(rng.choices(range(290), k=rng.randrange(1, 20)), Sampling(rng.choice([0.0, 1.0]), 20, seed=i),
                rng.randrange(1, 25)) for i in range(12)]
    asked, got = {}, {}
    while waiting or batch.active:
        while waiting and batch.free:
            prompt, sampling, max_tokens = waiting.pop()
            asked[batch.add(prompt, sampling, max_tokens)] = (prompt, sampling, max_tokens)
        drain(batch, got, steps=1)
    assert len(asked) == 12
    for slot, (prompt, sampling, max_tokens) in asked.items():
        assert [token.id for token in got[slot]] == alone(engine, prompt, sampling, max_tokens)
        assert [token.finish for token in got[slot]] == [None] * (max_tokens - 1) + ["length"]


def test_a_full_batch_says_so_and_a_removed_slot_is_free(random_model, byte_tokenizer) -> None:
    batch = DecodeBatch(Engine(random_model(2), byte_tokenizer(NO_SPECIALS)), slots=2)
    first, second = batch.add([1], GREEDY, 50), batch.add([2], GREEDY, 50)
    with pytest.raises(BatchFull):
        batch.add([3], GREEDY, 50)
    got = drain(batch, {}, steps=4)
    batch.remove(first)
    batch.remove(first)
    assert (batch.free, batch.active) == (1, 1)
    third = batch.add([3], GREEDY, 5)
    assert third not in (first, second)
    drain(batch, got)
    assert len(got[first]) == 4 and len(got[second]) == 50 and len(got[third]) == 5


def test_an_answer_ends_with_the_context_or_a_stop_token(random_model, byte_tokenizer, scripted_model) -> None:
    batch = DecodeBatch(Engine(random_model(3, context=16), byte_tokenizer(NO_SPECIALS)))
    slot = batch.add([1] * 10, GREEDY, 50)
    tokens = drain(batch, {})[slot]
    assert len(tokens) == 6 and tokens[-1].finish == "context"
    for prompt in ([], [1] * 16, [1] * 99):
        with pytest.raises(ValueError, match="no room"):
            batch.add(prompt, GREEDY, 5)
    tokenizer = byte_tokenizer()
    end = tokenizer.encode_special("<|assistant_end|>")
    batch = DecodeBatch(Engine(scripted_model([65, 66, end]), tokenizer))
    slot = batch.add([1], GREEDY, 50)
    assert drain(batch, {})[slot] == [Token(65, False, None), Token(66, False, None), Token(end, False, "stop")]


def test_a_tool_answers_only_its_own_row(scripted_model, byte_tokenizer) -> None:
    tokenizer = byte_tokenizer()
    ids = {name[2:-2]: i for name, i in tokenizer.vocabulary.specials.items()}
    block = [ids["python_start"], *b"2*3", ids["python_end"]]
    batch = DecodeBatch(Engine(scripted_model([*block, 90, 90, 90, ids["assistant_end"]]), tokenizer))
    slot = batch.add([1], GREEDY, 50)
    got = drain(batch, {})[slot]
    assert [t.id for t in got] == [*block, ids["output_start"], ord("6"), ids["output_end"], ids["assistant_end"]]
    assert [t.forced for t in got] == [False] * 5 + [True] * 3 + [False]


def test_a_long_prompt_does_not_hold_up_the_others(random_model, byte_tokenizer) -> None:
    engine = Engine(random_model(4, context=1024), byte_tokenizer(NO_SPECIALS))
    batch, prompt = DecodeBatch(engine), random.Random(4).choices(range(290), k=700)
    quick = batch.add([1, 2], GREEDY, 40)
    batch.step()
    slow = batch.add(prompt, GREEDY, 3)
    steps = [set(batch.step()) for _ in range(6)]
    assert steps[:5] == [{quick}] * 5 and steps[5] == {quick, slow}
    assert [t.id for t in drain(batch, {})[slow]] == alone(engine, prompt, GREEDY, 3)[1:]
