"""Which backend a loaded model gets, in which precision, and that it answers the same."""

from __future__ import annotations

import pytest
import torch

from engine.context import StageError
from engine.inference.backend import prepare
from engine.inference.chat import describe, load_chat
from engine.inference.sampling import Sampling

GREEDY = Sampling(0.0)


class Ear:
    """Hears an answer while it is being written."""

    def __init__(self) -> None:
        self.prompt, self.times, self.text = None, [], ""

    def begin(self, prompt) -> None:
        assert not self.times
        self.prompt = prompt

    def token(self, ms: float) -> None:
        self.times.append(ms)

    def piece(self, piece) -> None:
        self.text += piece.text


def answer(chat) -> str:
    ear = Ear()
    _, stats = chat.answer([{"role": "user", "content": "hi"}], GREEDY, 20, ear, lambda: False)
    assert len(ear.prompt.ids) == stats.prompt_tokens and len(ear.times) == stats.completion_tokens
    assert ear.times[0] == stats.ttft_ms and 19 * 1000 / sum(ear.times[1:]) == pytest.approx(stats.tok_per_s)
    return ear.text


@pytest.mark.parametrize("dtype", ["auto", "float32", "bfloat16", "int8"])
@pytest.mark.parametrize("backend", ["auto", "native", "torch"])
def test_every_backend_and_precision_answers(tmp_path, save_chain, dtype: str, backend: str) -> None:
    folder, tokenizer = save_chain(tmp_path, 3, [*b"world", 264])
    chat = load_chat(folder, 3, tokenizer, "cpu", dtype, backend)
    assert answer(chat).startswith("world")
    told = describe(chat, folder, 3, None)
    assert told["backend"] == ("torch" if backend == "torch" else "native") and told["backend_reason"] == (
        "asked for" if (backend, dtype) == ("torch", "int8") else "")
    assert told["n_params"] == sum(p.numel() for p in load_chat(folder, 3, tokenizer, "cpu").model.parameters())
    if dtype != "auto":
        size = {"float32": 4, "bfloat16": 2, "int8": 1}[dtype]
        assert told["dtype"] == dtype and told["bytes"] < 1.4 * size * told["n_params"]


def test_auto_keeps_a_small_model_exact_and_halves_a_large_one(random_model, monkeypatch) -> None:
    assert prepare(random_model(), "auto", "auto").weights == "float32"
    monkeypatch.setattr("engine.inference.backend._SMALL", 1000)
    model = random_model()
    assert prepare(model, "auto", "auto").weights == "bfloat16"
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16}


def test_what_native_cannot_do_falls_back_or_is_refused(random_model) -> None:
    got = prepare(random_model(), "float16", "auto")
    assert (got.name, got.reason) == ("torch", "the native step has no float16")
    with pytest.raises(StageError, match="float16"):
        prepare(random_model(), "float16", "native")


def test_a_gpu_has_no_native_backend(tmp_path, save_chain) -> None:
    folder, tokenizer = save_chain(tmp_path, 3, [*b"x", 264])
    with pytest.raises(StageError, match="native backend cannot be had on cuda"):
        load_chat(folder, 3, tokenizer, "cuda", "auto", "native")
    with pytest.raises(StageError, match="int8 weights cannot be had on mps"):
        load_chat(folder, 3, tokenizer, "mps", "int8")


def test_a_model_without_room_is_refused_in_one_sentence(tmp_path, save_chain, monkeypatch) -> None:
    folder, tokenizer = save_chain(tmp_path, 3, [*b"x", 264])

    def no_room(*words, **options):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    monkeypatch.setattr("engine.inference.chat.load_model", no_room)
    with pytest.raises(StageError, match="does not fit into the memory") as error:
        load_chat(folder, 3, tokenizer)
    assert error.value.code == "device" and "smaller" in error.value.next
