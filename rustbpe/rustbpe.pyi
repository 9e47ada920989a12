from collections.abc import Callable, Iterable, Sequence
from os import PathLike
from typing import Literal, overload

import numpy as np
import numpy.typing as npt

Progress = Callable[[int, float, int], object]  # documents, megabytes per second, merges

class Tokenizer:
    """A byte-level BPE tokenizer. A new one knows the 256 bytes and GPT-4's split pattern."""

    def __init__(self) -> None: ...
    @staticmethod
    def from_ranks(pattern: str, ranks: Sequence[tuple[bytes, int]]) -> Tokenizer: ...
    @property
    def vocab_size(self) -> int: ...
    def train_from_iterator(
        self,
        iterator: Iterable[str],
        vocab_size: int,
        buffer_size: int = 8192,
        pattern: str | None = None,
        *,
        threads: int | None = None,
        progress: Progress | None = None,
    ) -> None: ...
    def train_from_files(
        self,
        paths: Sequence[str | PathLike[str]],
        vocab_size: int,
        pattern: str | None = None,
        threads: int | None = None,
        progress: Progress | None = None,
        text_column: str = "text",
        errors: str = "strict",
    ) -> None: ...
    def get_pattern(self) -> str: ...
    def get_mergeable_ranks(self) -> list[tuple[bytes, int]]: ...
    def encode(self, text: str) -> list[int]: ...
    def batch_encode(self, texts: list[str]) -> list[list[int]]: ...
    @overload
    def encode_flat(
        self,
        texts: list[str],
        before: Sequence[int] = (),
        after: Sequence[int] = (),
        threads: int | None = None,
        small: Literal[False] = False,
    ) -> tuple[npt.NDArray[np.uint32], npt.NDArray[np.int64]]: ...
    @overload
    def encode_flat(
        self,
        texts: list[str],
        before: Sequence[int] = (),
        after: Sequence[int] = (),
        threads: int | None = None,
        *,
        small: Literal[True],
    ) -> tuple[npt.NDArray[np.uint16], npt.NDArray[np.int64]]: ...
    def decode(self, ids: list[int]) -> str: ...

class CpuStep:
    """One decode step of a model on the CPU. Tensors are given by address: `owner` must hold them."""

    MOST_ROWS: int
    MOST_TOKENS: int
    def __init__(
        self,
        tensors: dict[str, tuple[int, str, int, int]],
        numbers: dict[str, float],
        windows: Sequence[int],
        threads: int,
        owner: object,
        kernels: str | None = None,
    ) -> None: ...
    def step(
        self,
        rows: Sequence[tuple[int, int, int, int, int, int, int]],
        bf16: bool,
        first_logits: int,
        logits: int,
    ) -> None: ...
    def read(
        self,
        tokens: Sequence[int],
        row: tuple[int, int, int, int, int, int, int],
        bf16: bool,
        logits: int,
    ) -> None: ...
    @staticmethod
    def quantize(source: int, rows: int, cols: int, numbers: int, scales: int, threads: int) -> None: ...
    def read_speed(self, address: int, count: int) -> float: ...
    @property
    def kernels(self) -> str: ...
    @property
    def threads(self) -> int: ...
    @property
    def bytes_per_step(self) -> int: ...

class RowKernels:
    """Functions over the rows of contiguous tensors on the CPU, which are given by address."""

    MOST_DIM: int
    def __init__(self, bf16: bool, threads: int) -> None: ...
    def softcapped_loss(
        self, logits: int, targets: int, losses: int, rows: int, vocab: int, softcap: float, share: float
    ) -> None: ...
    def norm(self, x: int, y: int, scale: int, rows: int, width: int) -> None: ...
    def norm_gradient(self, y: int, scale: int, dy: int, dx: int, rows: int, width: int) -> None: ...
    def relu2(self, x: int, y: int, count: int) -> None: ...
    def relu2_gradient(self, x: int, dy: int, count: int) -> None: ...
    def rotate_norm(
        self, x: int, y: int, scale: int, turn: tuple[int, int], shape: tuple[int, int, int, int], amount: float
    ) -> None: ...
    def rotate_norm_gradient(
        self,
        y: int,
        scale: int,
        dy: int,
        dx: int,
        turn: tuple[int, int],
        shape: tuple[int, int, int, int],
        amount: float,
    ) -> None: ...
    def softmax(
        self, scores: int, shape: tuple[int, int, int], first: int, window: int, scale: float
    ) -> None: ...
    def softmax_gradient(
        self, weights: int, slopes: int, shape: tuple[int, int, int], first: int, window: int, scale: float
    ) -> None: ...
    def add(self, sum: int, part: int, count: int) -> None: ...
