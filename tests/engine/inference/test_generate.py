"""The engine against the plain forward pass, against nanochat's own ids, and against scripted answers."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from engine.inference.generate import Completion, Engine
from engine.inference.sampling import Sampler, Sampling
from engine.model.config import architecture_of, config_from_meta
from engine.model.gpt import GPT, gpt_from_state

ERAS = Path(__file__).parents[2] / "fixtures" / "eras"
NO_SPECIALS = 10_000  # special ids that no small model can produce


def first_row(steps: Iterator[tuple[list[int], list[int]]]) -> list[int]:
    return [tokens[0] for tokens, _ in steps]


@torch.no_grad()
def naive(model: GPT, ids: list[int], n: int, temperature: float = 0.0) -> list[int]:
    """n tokens, the whole text read again for each."""
    ids, sampler = list(ids), Sampler(Sampling(temperature, seed=42))
    for _ in range(n):
        ids.append(int(sampler(model(torch.tensor([ids]))[:, -1])))
    return ids[-n:]


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("n_head", "n_kv_head"), [(4, 4), (4, 2), (4, 1)])
def test_cached_decoding_equals_naive(random_model, byte_tokenizer, temperature: float, seed: int, n_head: int,
                                      n_kv_head: int) -> None:
    model = random_model(seed, n_head=n_head, n_kv_head=n_kv_head)
    prompt = random.Random(seed).choices(range(300), k=11)
    engine = Engine(model, byte_tokenizer(NO_SPECIALS))
    got = first_row(engine.generate(prompt, max_tokens=50, temperature=temperature))
    assert got == naive(model, prompt, 50, temperature)


def test_a_prompt_of_several_chunks_equals_naive(random_model, byte_tokenizer) -> None:
    model = random_model(5, context=1200, n_kv_head=2)
    prompt = random.Random(5).choices(range(300), k=1100)
    engine = Engine(model, byte_tokenizer(NO_SPECIALS))
    assert first_row(engine.generate(prompt, max_tokens=8, temperature=0)) == naive(model, prompt, 8)


@pytest.mark.parametrize("era", ["seed", "padded"])
def test_ids_are_those_of_nanochat(byte_tokenizer, era: str) -> None:
    state = torch.load(ERAS / era / "model_000010.pt", weights_only=True)
    config = config_from_meta(json.loads((ERAS / era / "meta_000010.json").read_text())["model_config"])
    model = gpt_from_state(config, architecture_of(state), state, dtype=torch.float32).eval()
    expected = np.load(ERAS / era / "expected.npz")
    prompt = expected["ids"][0, :20].tolist()
    engine = Engine(model, byte_tokenizer(NO_SPECIALS))
    assert first_row(engine.generate(prompt, max_tokens=40, temperature=0)) == expected["greedy"].tolist()
    stopping = Engine(model, byte_tokenizer(499))  # 499 is bos: nanochat's engine stopped there
    [completion] = stopping.generate_batch([prompt], max_tokens=40)
    assert completion.tokens == expected["engine_greedy"].tolist()


def test_a_batch_equals_one_by_one(random_model, byte_tokenizer) -> None:
    model = random_model(1, n_kv_head=2)
    tokenizer = byte_tokenizer(291)  # specials are ordinary tokens of the model here, so that some rows end early
    engine, rng = Engine(model, tokenizer), random.Random(1)
    prompts = [rng.choices(range(291), k=rng.randrange(1, 12)) for _ in range(60)]
    done: list[int] = []
    together = engine.generate_batch(prompts, max_tokens=30, batch_size=4, on_done=done.append)
    alone = [engine.generate_batch([prompt], max_tokens=30)[0] for prompt in prompts]
    assert together == alone
    assert done == sorted(done) and done[-1] == 60
    assert {c.finish for c in together} == {"stop", "length"}


def test_samples_of_one_prompt_share_its_prefill(random_model, byte_tokenizer) -> None:
    model = random_model(2)
    engine = Engine(model, byte_tokenizer(NO_SPECIALS))
    rows = list(zip(*[tokens for tokens, _ in engine.generate([5, 6, 7], num_samples=3, max_tokens=12, temperature=0)],
                    strict=True))
    assert [list(row) for row in rows] == [naive(model, [5, 6, 7], 12)] * 3


def test_the_first_token_is_drawn_for_each_row(random_model, byte_tokenizer) -> None:
    engine = Engine(random_model(3), byte_tokenizer(NO_SPECIALS))
    tokens, masks = next(engine.generate([1, 2], num_samples=32, max_tokens=1, temperature=2.0))
    assert len(set(tokens)) > 5 and masks == [1] * 32


def test_a_seed_repeats_and_another_differs(random_model, byte_tokenizer) -> None:
    engine = Engine(random_model(4), byte_tokenizer(NO_SPECIALS))

    def answer(seed: int | None) -> list[int]:
        return first_row(engine.generate([9], max_tokens=20, temperature=1.0, top_k=50, seed=seed))

    assert answer(1) == answer(1)
    assert answer(1) != answer(2)
    assert answer(None) != answer(None)


@pytest.mark.parametrize("max_tokens", [1, 4, 16])
def test_no_forward_pass_is_wasted(scripted_model, byte_tokenizer, max_tokens: int) -> None:
    model = scripted_model([65])
    steps = list(Engine(model, byte_tokenizer()).generate([1, 2], max_tokens=max_tokens, temperature=0))
    assert len(steps) == max_tokens == model.calls


def test_rows_end_at_assistant_end_or_bos(scripted_model, byte_tokenizer) -> None:
    tokenizer = byte_tokenizer()
    end, bos = tokenizer.encode_special("<|assistant_end|>"), tokenizer.get_bos_token_id()
    model = scripted_model([67, end, 66, 66, 66], [67, 68, 69, bos, 70])
    steps = list(Engine(model, tokenizer).generate([1], num_samples=2, max_tokens=20, temperature=0))
    assert [tokens for tokens, _ in steps] == [[67, 67], [end, 68], [66, 69], [66, bos]]
    assert model.calls == 4
    batch = Engine(scripted_model([65, end], [67, 68, 69, bos]), tokenizer).generate_batch([[1], [1]], max_tokens=20)
    assert batch == [Completion([65], [1], "stop"), Completion([67, 68, 69], [1, 1, 1], "stop")]


def test_a_tool_block_forces_its_result(scripted_model, byte_tokenizer) -> None:
    tokenizer = byte_tokenizer()
    ids = {name[2:-2]: i for name, i in tokenizer.vocabulary.specials.items()}
    block = [ids["python_start"], *b"12*3", ids["python_end"]]
    forced = [ids["output_start"], *b"36", ids["output_end"]]
    instead = [ids["python_start"]] * len(forced)  # what it would say, which must not count as a new block
    model = scripted_model([65, *block, *instead, *b"6", ids["python_end"], ids["assistant_end"]])
    [completion] = Engine(model, tokenizer).generate_batch([[1]], max_tokens=40)
    assert completion.tokens == [65, *block, *forced, *b"6", ids["python_end"]]
    assert completion.mask == [1] * 7 + [0] * 4 + [1] * 2
    assert completion.finish == "stop"
    assert [fed[0] for fed in model.fed[1:]] == completion.tokens, "it reads what was forced, not what it would say"


def test_tool_rows_do_not_disturb_each_other(scripted_model, byte_tokenizer) -> None:
    tokenizer = byte_tokenizer()
    ids = {name[2:-2]: i for name, i in tokenizer.vocabulary.specials.items()}
    start, stop, end = ids["python_start"], ids["python_end"], ids["assistant_end"]
    model = scripted_model([start, *b"1+1", stop, 90, 90, 90, end], [65, 66, stop, start, *b"x", stop, 67, 67, end])
    first, second = Engine(model, tokenizer).generate_batch([[1], [1]], max_tokens=40)
    assert first.tokens == [start, *b"1+1", stop, ids["output_start"], ord("2"), ids["output_end"]]
    assert second.tokens == [65, 66, stop, start, ord("x"), stop, 67, 67], "no block, no answer: nothing is forced"
    assert second.mask == [1] * 8


def test_generation_ends_with_the_context(random_model, byte_tokenizer) -> None:
    engine = Engine(random_model(6, context=16), byte_tokenizer(NO_SPECIALS))
    prompts = [[1] * n for n in (4, 10, 15, 16, 17)]
    completions = engine.generate_batch(prompts, max_tokens=6)
    assert [(len(c.tokens), c.finish) for c in completions] == [
        (6, "length"), (6, "length"), (1, "context"), (0, "context"), (0, "context")]
    assert len(engine.generate_batch([[1] * 10])[0].tokens) == 6, "without max_tokens: the rest of the context"
    assert list(engine.generate([1] * 16, max_tokens=5)) == []


def test_it_stops_between_two_tokens(random_model, byte_tokenizer) -> None:
    engine = Engine(random_model(7), byte_tokenizer(NO_SPECIALS))
    looks = iter([False] * 3 + [True])
    assert len(list(engine.generate([1], max_tokens=50, should_stop=lambda: next(looks)))) == 3
    assert list(engine.generate([1], max_tokens=50, should_stop=lambda: True)) == []
    [completion] = engine.generate_batch([[1]], max_tokens=50, should_stop=lambda: True)
    assert completion.finish == "cancelled"
