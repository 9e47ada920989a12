"""A model one can talk to: checkpoint and tokenizer that belong together, and one answer at a time.

This is the torch half of the chat worker. It knows nothing of processes, pipes and requests.
"""

from __future__ import annotations

import ctypes
import gc
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import torch

from engine.catalog import DIRECTORIES
from engine.context import StageError
from engine.device import choose_device
from engine.inference.backend import Backend, prepare, torch_backend
from engine.inference.generate import Engine, Finish, ShouldStop, finish_of
from engine.inference.prompt import Prompt, fit_prompt
from engine.inference.sampling import Sampling
from engine.inference.stream import AnswerStream, Piece
from engine.model.gpt import GPT
from engine.tokenizer.bpe import Tokenizer
from engine.tokenizer.chat_format import Message
from engine.tokenizer.store import TokenizerError
from engine.train.checkpoint import load_model, verify
from engine.train.resume import check_tokenizer

_SOURCES = {directory: source for source, directory in DIRECTORIES.items()}

_GAPS = 64  # times between tokens that an answer's statistics keep


@dataclass(frozen=True)
class Stats:
    """What one answer took."""

    ttft_ms: float           # from the request to the first token
    tok_per_s: float         # after the first token
    prompt_tokens: int
    completion_tokens: int
    seconds: float
    dropped_turns: int       # messages that did not fit into the context
    context_used: int
    context: int
    p95_ms: float            # 19 of 20 tokens came within this time after the one before
    gaps_ms: tuple[float, ...]  # time before each token after the first; of long answers the slowest of each stretch

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


class Listener(Protocol):
    """Hears an answer while it is being written."""

    def begin(self, prompt: Prompt) -> None:
        """What the model is given; once, at first."""

    def token(self, ms: float) -> None:
        """A token came, so long after the one before it, or after the request."""

    def piece(self, piece: Piece) -> None:
        """Something to show."""


class Chat:
    """A loaded model with its tokenizer."""

    def __init__(self, model: GPT, tokenizer: Tokenizer, backend: Backend | None = None) -> None:
        self.model, self.tokenizer = model, tokenizer
        self.backend = backend or torch_backend(model)
        self.engine = Engine(model, tokenizer, self.backend.stepper)

    @property
    def context(self) -> int:
        return self.model.config.sequence_len

    def answer(self, messages: Sequence[Message], sampling: Sampling, max_tokens: int, listener: Listener,
               should_stop: ShouldStop) -> tuple[Finish, Stats]:
        """Answer the conversation, piece by piece. Raises ConversationError or ContextFull before the first word."""
        begin = last = time.perf_counter()
        prompt = fit_prompt(self.tokenizer, messages, self.context, max_tokens)
        listener.begin(prompt)
        stream, times, ended = AnswerStream(self.tokenizer), list[float](), False
        for (token,), _ in self.engine.generate(prompt.ids, max_tokens=max_tokens, should_stop=should_stop,
                                                **asdict(sampling)):
            now = time.perf_counter()
            times.append(1000 * (now - last))
            last = now
            listener.token(times[-1])
            ended = self.engine.special.ends(token)
            for piece in stream.push(token) if not ended else ():
                listener.piece(piece)
        for piece in stream.close():
            listener.piece(piece)
        count = len(times) - ended
        finish = finish_of(ended, count, self.engine.room(len(prompt.ids), max_tokens), max_tokens)
        return finish, self._stats(prompt, times, count, time.perf_counter() - begin)

    def _stats(self, prompt: Prompt, times: list[float], count: int, seconds: float) -> Stats:
        """`times` before each token in ms, that before the first from the request on."""
        first, gaps = times[0] if times else 0.0, times[1:]
        return Stats(first, 1000 * len(gaps) / sum(gaps) if gaps else 0.0, len(prompt.ids), count, seconds,
                     prompt.dropped_turns, len(prompt.ids) + count, self.context,
                     sorted(gaps)[int(0.95 * len(gaps))] if gaps else 0.0, _stretches(gaps))


def load_chat(folder: Path, step: int, tokenizer_dir: Path, device: str = "auto", dtype: str = "auto",
              backend: str = "auto") -> Chat:
    """Load a checkpoint and its tokenizer, ready to answer. Raises StageError with what would help."""
    if device == "auto" and not torch.cuda.is_available() and not torch.backends.mps.is_available():
        device = "cpu"
    only_cpu = "int8 weights" if dtype == "int8" else "the native backend" if backend == "native" else ""
    if only_cpu and device not in ("auto", "cpu"):
        raise StageError(f"{only_cpu} cannot be had on {device}: the CPU has them", "use --device-type=cpu", "device")
    place = None if device == "cpu" or only_cpu else choose_device(device, dtype)
    with _room_for(folder), _verified_meanwhile(folder, step):
        tokenizer = _load_tokenizer(tokenizer_dir)
        check_tokenizer(folder, step, tokenizer)
        model, _ = load_model(folder, step, device="cpu" if place is None else place.device, check_hash=False,
                              mapped=place is None)
        if tokenizer.get_vocab_size() != model.config.vocab_size:
            raise StageError(f"the model in {folder} knows {model.config.vocab_size:,} tokens, the tokenizer "
                             f"{tokenizer.get_vocab_size():,}", "use the tokenizer it was trained with", "tokenizer")
        chosen = prepare(model, dtype, backend) if place is None else _on_device(model, place.dtype)
    chat = Chat(model, tokenizer, chosen)
    _hand_back()  # the file's copy of the weights, and the float32 ones; no cycles hold them
    return chat


@contextmanager
def _room_for(folder: Path) -> Iterator[None]:
    """Says in one sentence that a device's memory, or the machine's, is too small."""
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError):
        release_memory()
        raise StageError(f"the model in {folder} does not fit into the memory that is free",
                         "choose a smaller one, or --device=cpu where that has more", "device") from None


@contextmanager
def _verified_meanwhile(folder: Path, step: int) -> Iterator[None]:
    """Compares the checkpoint with its manifest beside the work of the block, which must not be trusted before the end.

    Hashing takes about as long as everything else; what it finds is told rather than what the block stumbled over.
    """
    with ThreadPoolExecutor(1, "verify") as pool:
        verified = pool.submit(verify, folder, step, optimizer=False)
        try:
            yield
        except Exception:
            verified.result()
            raise
        verified.result()


def _stretches(gaps: list[float]) -> tuple[float, ...]:
    """At most _GAPS of them: where there are more, the slowest of each stretch of equal length."""
    step = max(-(-len(gaps) // _GAPS), 1)
    return tuple(round(max(gaps[i : i + step]), 2) for i in range(0, len(gaps), step))


def describe(chat: Chat, folder: Path, step: int, name: str | None) -> dict[str, Any]:
    """What a client may want to show of a loaded model."""
    model, config = chat.model, chat.model.config
    source = _SOURCES.get(folder.parent.name, "unknown")
    return {
        "name": name or f"{source}/{folder.name}@{step}", "source": source, "step": step,
        "n_params": model.parameter_counts()["total"], "n_layer": config.n_layer,
        "n_embd": config.n_embd, "vocab_size": config.vocab_size,
        "context": chat.context, "device": model.device.type, "dtype": chat.backend.weights,
        "bytes": sum(t.numel() * t.element_size() for t in model.state_dict().values()),
        "backend": chat.backend.name, "backend_reason": chat.backend.reason,
    }


def release_memory() -> None:
    """Let go of what nobody needs any more, cycles included: a look at every object there is."""
    gc.collect()
    _hand_back()


def _hand_back() -> None:
    """Return what freed tensors took to the device and to the system, which glibc does not do by itself."""
    torch.cuda.empty_cache()
    if torch.backends.mps.is_available():
        torch.mps.empty_cache()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def _load_tokenizer(folder: Path) -> Tokenizer:
    try:
        return Tokenizer.from_directory(folder)
    except FileNotFoundError as error:
        raise StageError(f"there is no tokenizer in {folder}", "put the one there that the model was trained with",
                         "tokenizer") from error
    except (TokenizerError, OSError) as error:
        raise StageError(str(error), "restore it from where the model came", "tokenizer") from error


def _on_device(model: GPT, dtype: torch.dtype) -> Backend:
    model.to(dtype)
    model.dtype = dtype
    return torch_backend(model, f"the model is on {model.device.type}")
