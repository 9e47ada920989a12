"""The native decode step against the model's own forward pass: all architectures, odd shapes, every way of reading."""

from __future__ import annotations

import os
import random
import time

import psutil
import pytest
import torch

from engine.evals.bpb import bits_per_byte
from engine.inference.backend import prepare
from engine.inference.batch import DecodeBatch
from engine.inference.generate import Engine
from engine.inference.native import NativeStepper, NotNative
from engine.inference.quality import stepped_bits_per_byte
from engine.inference.quant import Int8Linear, quantize, quantize_rows
from engine.inference.sampling import Sampling
from engine.inference.stepper import TorchStepper
from engine.model.config import ERAS, GPTConfig
from engine.model.gpt import GPT

NO_SPECIALS = 10_000
SHAPES = [(4, 4, 64, 3, None), (4, 2, 72, 3, "SL"), (6, 1, 132, 4, "SSL"), (2, 2, 256, 2, "L")]


def era_model(era: str, shape: tuple[int, int, int, int, str | None], context: int = 640, vocab: int = 301) -> GPT:
    """All weights random and none zero, so that every part of the architecture matters."""
    heads, kv_heads, width, layers, pattern = shape
    architecture = ERAS[era]
    config = GPTConfig(context, vocab, layers, heads, kv_heads, width, pattern if architecture.modern else None)
    model, generator = GPT(config, architecture).eval(), torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=parameter.shape[-1] ** -0.5, generator=generator)
        model.transformer.wte.weight.normal_(generator=generator)
        model.lm_head.weight.mul_(4)
    return model


@torch.no_grad()
@pytest.mark.parametrize("era", ERAS)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("kernels", [None, "scalar"])  # prompts by the best kernels or by PyTorch, steps by both
def test_logits_are_those_of_the_full_forward(era: str, shape: tuple[int, int, int, int, str | None],
                                              kernels: str | None) -> None:
    model = era_model(era, shape)
    ids = torch.randint(0, 301, (1, 420), generator=torch.Generator().manual_seed(1))
    full, stepper, prompt = model(ids)[0], NativeStepper(model, 2, kernels), ids[0].tolist()

    def close(got: torch.Tensor | None, position: int) -> None:
        assert got is not None and (got[0] - full[position]).abs().max() < 5e-5

    cache = stepper.cache(420)
    close(stepper.read([prompt[:300]], cache), 299)
    for at in range(300, 310):
        close(stepper.read([[prompt[at]]], cache), at)
    close(stepper.read([prompt[310:323]], cache), 322)  # natively, several at once
    close(stepper.read([prompt[323:410]], cache), 409)  # behind what was not read as a prompt
    close(stepper.step([prompt[410]], [cache]), 410)
    assert cache.pos == 411


@pytest.mark.parametrize("era", ["seed", "bigram", "head"])
def test_greedy_tokens_are_those_of_the_naive_way(era: str, byte_tokenizer) -> None:
    model = era_model(era, (4, 2, 64, 3, "SL"), context=400)
    prompt = random.Random(era).choices(range(300), k=70)
    engine = Engine(model, byte_tokenizer(NO_SPECIALS), NativeStepper(model, threads=2))
    got = [tokens[0] for tokens, _ in engine.generate(prompt, max_tokens=60, temperature=0)]
    ids = list(prompt)
    with torch.no_grad():
        for _ in range(60):
            ids.append(int(model(torch.tensor([ids]))[0, -1].argmax()))
    assert got == ids[70:]


@pytest.mark.parametrize("samples", [3, 8, 11])
def test_several_rows_of_one_prompt(random_model, byte_tokenizer, samples: int) -> None:
    model, tokenizer = random_model(1, n_kv_head=2), byte_tokenizer(NO_SPECIALS)
    both = [list(Engine(model, tokenizer, stepper).generate([3, 1, 4], num_samples=samples, max_tokens=20, top_k=20))
            for stepper in (TorchStepper(model), NativeStepper(model, threads=2))]
    assert both[0] == both[1]


def test_a_batch_of_rows_at_different_places(random_model, byte_tokenizer) -> None:
    model, tokenizer = random_model(2), byte_tokenizer(NO_SPECIALS)
    rng = random.Random(2)
    prompts = [rng.choices(range(290), k=rng.randrange(1, 60)) for _ in range(11)]
    answers = []
    for stepper in (TorchStepper(model), NativeStepper(model, threads=2)):
        batch, got = DecodeBatch(Engine(model, tokenizer, stepper), slots=11), {}
        for prompt in prompts:
            batch.add(prompt, Sampling(0.0), 25)
        while batch.active:
            for slot, token in batch.step().items():
                got.setdefault(slot, []).append(token)
        answers.append(got)
    assert answers[0] == answers[1]


@torch.no_grad()
def test_bfloat16_and_int8_are_near(random_model) -> None:
    model = random_model(3, n_embd=128, context=64)
    ids = torch.randint(0, 300, (1, 40), generator=torch.Generator().manual_seed(3))
    exact = model(ids)[0, -1]

    def off(stepper: NativeStepper) -> float:
        cache, logits = stepper.cache(40), None
        for token in ids[0].tolist():
            logits = stepper.read([[token]], cache)
        return float((logits - exact).norm() / exact.norm())

    quantize(model)
    assert isinstance(model.lm_head, Int8Linear)
    assert off(NativeStepper(model, threads=2)) < 0.03
    model = random_model(3, n_embd=128, context=64).to(torch.bfloat16)
    model.dtype = torch.bfloat16
    stepper = NativeStepper(model, threads=2)
    assert stepper.cache(4).k.dtype == torch.bfloat16 and off(stepper) < 0.03


@torch.no_grad()
@pytest.mark.parametrize("dtype", ["bfloat16", "int8"])
def test_a_prompt_in_few_bits_is_near(random_model, dtype: str) -> None:
    model = random_model(7, n_embd=128, context=640)
    ids = torch.randint(0, 300, (1, 600), generator=torch.Generator().manual_seed(3))
    exact = model(ids)[0, -1]
    stepper = prepare(model, dtype, "native").stepper
    assert (stepper.read(ids.tolist(), stepper.cache(600))[0] - exact).norm() / exact.norm() < 0.03


def test_int8_rows_keep_their_largest_weight_and_zero_rows() -> None:
    weight = torch.randn(7, 33)
    weight[2] = 0
    numbers, scales = quantize_rows(weight)
    assert numbers.dtype == torch.int8 and numbers.abs().amax(1).tolist() == [127, 127, 0, 127, 127, 127, 127]
    assert torch.equal(scales, weight.abs().amax(1) / 127)
    assert torch.equal(numbers, (weight / scales.clamp(min=1e-37)[:, None]).round().to(torch.int8))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int8"])
def test_bits_per_byte_show_what_a_precision_costs(random_model, dtype: str) -> None:
    model = random_model(6, n_embd=128, context=64)
    ids = torch.randint(0, 300, (3, 65), generator=torch.Generator().manual_seed(6))
    batches, token_bytes = [(ids[:, :-1], ids[:, 1:])], torch.ones(300, dtype=torch.int64)
    exact = bits_per_byte(model, batches, token_bytes)
    stepper = prepare(model, dtype, "native").stepper
    got = stepped_bits_per_byte(stepper, batches, token_bytes)
    assert abs(got / exact - 1) < {"float32": 1e-5, "bfloat16": 2e-3, "int8": 1e-2}[dtype]


def test_what_it_cannot_do_is_said(random_model) -> None:
    model = random_model(4)
    model.dtype = torch.float16
    with pytest.raises(NotNative, match="float16"):
        NativeStepper(model)
    model = random_model(4, context=16)
    stepper = NativeStepper(model, threads=1)
    cache = stepper.cache(3)
    for _ in range(3):
        stepper.read([[1]], cache)
    with pytest.raises(ValueError, match="the cache holds 3"):
        stepper.read([[1]], cache)
    for token in (300, 99_999):
        with pytest.raises(ValueError, match="vocabulary"):
            stepper.read([[token]], stepper.cache(3))


def test_threads_sleep_when_nothing_is_to_do(random_model) -> None:
    stepper = NativeStepper(random_model(5), threads=2)
    stepper.read([[1]], stepper.cache(8))
    time.sleep(0.05)
    process = psutil.Process(os.getpid())
    before = process.cpu_times()
    time.sleep(0.5)
    after = process.cpu_times()
    assert after.user + after.system - before.user - before.system < 0.1
