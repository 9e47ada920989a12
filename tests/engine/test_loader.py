"""The text loader against nanochat's batches, and its exact resume."""

from __future__ import annotations

import json
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch

from engine.data.loader import TextBatches
from engine.evals.bpb import bits_per_byte
from engine.model.config import CLASSIC, config_from_meta
from engine.model.gpt import gpt_from_state
from engine.tokenizer.bpe import Tokenizer

B, T = 4, 96


@pytest.fixture(scope="module")
def seed_era() -> Path:
    return Path(__file__).parent.parent / "fixtures" / "pipeline" / "seed"


@pytest.fixture(scope="module")
def tokenizer(seed_era: Path) -> Tokenizer:
    return Tokenizer.from_directory(seed_era / "tokenizer")


def shards(folder: Path) -> list[Path]:
    return sorted((folder / "shards").glob("*.parquet"))


def test_batches_equal_upstreams(seed_era: Path, tokenizer: Tokenizer) -> None:
    expected = np.load(seed_era / "batches.npz")
    for files, x_name, y_name in ((shards(seed_era)[:-1], "x", "y"), (shards(seed_era)[-1:], "xv", "yv")):
        batches = TextBatches(files, tokenizer, B, T)
        for x, y, (ours_x, ours_y) in zip(expected[x_name], expected[y_name], batches, strict=False):
            assert np.array_equal(x, ours_x.numpy()) and np.array_equal(y, ours_y.numpy())


@pytest.mark.parametrize("cut", [0, 1, 5, 23, 150])
def test_a_resumed_stream_goes_on_at_the_very_next_token(seed_era: Path, tokenizer: Tokenizer, cut: int) -> None:
    """150 batches pass row groups, files and the end of the data."""
    files = shards(seed_era)[:2]
    whole = TextBatches(files, tokenizer, 16, T)
    expected = list(islice(whole, cut + 3))
    first = TextBatches(files, tokenizer, 16, T)
    for _ in islice(first, cut):
        pass
    start = json.loads(json.dumps(first.state()))
    for (x, y), (rx, ry) in zip(expected[cut:], TextBatches(files, tokenizer, 16, T, start=start), strict=False):
        assert torch.equal(x, rx) and torch.equal(y, ry)


def test_ranks_read_different_row_groups(seed_era: Path, tokenizer: Tokenizer) -> None:
    files = shards(seed_era)[:1]
    rows = [next(iter(TextBatches(files, tokenizer, 1, 64, rank=r, world=2)))[0] for r in (0, 1)]
    assert not torch.equal(*rows)


def test_no_files_is_an_error(tokenizer: Tokenizer) -> None:
    with pytest.raises(ValueError, match="no parquet"):
        TextBatches([], tokenizer, B, T)


def test_bits_per_byte_equal_upstreams(seed_era: Path) -> None:
    facts = json.loads((seed_era / "training.json").read_text())
    state = torch.load(seed_era / "train_final.pt", weights_only=True)
    model = gpt_from_state(config_from_meta(facts["config"]), CLASSIC, state, dtype=torch.float32)
    arrays = np.load(seed_era / "batches.npz")
    pairs = zip(arrays["xv"], arrays["yv"], strict=True)
    batches = [(torch.from_numpy(x).long(), torch.from_numpy(y).long()) for x, y in pairs]
    token_bytes = torch.load(seed_era / "tokenizer" / "token_bytes.pt", weights_only=True)
    assert bits_per_byte(model, batches, token_bytes) == pytest.approx(
        facts["bpb_after_training_on_val_batches"], rel=1e-5
    )


def test_special_and_ignored_targets_do_not_count() -> None:
    from engine.model.config import GPTConfig
    from engine.model.gpt import GPT

    model = GPT(GPTConfig(8, 4, 1, 1, 1, 8))
    model.init_weights(torch.Generator().manual_seed(0))
    x = torch.tensor([[0, 1, 2]])
    token_bytes = torch.tensor([1, 2, 0, 1])
    with_noise = bits_per_byte(model, [(x, torch.tensor([[1, 2, -1]]))], token_bytes)
    alone = bits_per_byte(model, [(x, torch.tensor([[1, -1, -1]]))], token_bytes)
    assert with_noise == alone == pytest.approx(2 / 2)  # 2 bits for one of 4 equally likely tokens, over its 2 bytes
    assert bits_per_byte(model, [(x, torch.tensor([[2, -1, -1]]))], token_bytes) == float("inf")
