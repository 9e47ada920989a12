"""The text loader against nanochat's batches of both eras, and its exact resume."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from itertools import islice, product
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from engine.context import StageError
from engine.data.loader import TextBatches
from engine.data.prefetch import prefetch
from engine.data.text_packing import BEST_FIT, PACKINGS, STREAM
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


@pytest.mark.parametrize(("era", "packing", "look_ahead"), [("seed", STREAM, 1000), ("head", BEST_FIT, 200)])
def test_batches_equal_upstreams(seed_era: Path, tokenizer: Tokenizer, era: str, packing: str, look_ahead: int) -> None:
    """Shards and tokenizer are the same in both eras."""
    expected = np.load(seed_era.parent / era / "batches.npz")
    facts = json.loads((seed_era.parent / era / "training.json").read_text())
    for files, x_name, y_name in ((shards(seed_era)[:-1], "x", "y"), (shards(seed_era)[-1:], "xv", "yv")):
        batches = TextBatches(files, tokenizer, B, T, packing=packing, look_ahead=look_ahead)
        states = facts.get("loader", {}).get("train_states" if x_name == "x" else "val_states", [])
        count = 0
        for x, y, (ours_x, ours_y) in zip(expected[x_name], expected[y_name], batches, strict=False):
            assert np.array_equal(x, ours_x.numpy()) and np.array_equal(y, ours_y.numpy())
            if states and packing == BEST_FIT:
                state = batches.state()
                assert {name: state[name] for name in states[count]} == states[count]
            count += 1
        assert count == len(expected[x_name])


def slow_best_fit(files: list[Path], tokenizer: Tokenizer, rows: int, room: int, look_ahead: int, rank: int,
                  world: int) -> Iterator[list[list[int]]]:
    """The definition, on lists."""
    def documents() -> Iterator[list[list[int]]]:
        while True:
            for path in files:
                file = pq.ParquetFile(path)
                for group in range(rank, file.num_row_groups, world):
                    texts = file.read_row_group(group).column("text").to_pylist()
                    for at in range(0, len(texts), 128):
                        yield tokenizer.encode(texts[at : at + 128], prepend="<|bos|>")

    source, buffer = documents(), []
    while True:
        batch = []
        for _ in range(rows):
            row: list[int] = []
            while len(row) < room:
                while len(buffer) < look_ahead:
                    buffer += next(source)
                fitting = [i for i, ids in enumerate(buffer) if len(ids) <= room - len(row)]
                if fitting:
                    row += buffer.pop(max(fitting, key=lambda i: (len(buffer[i]), -i)))
                else:
                    row += buffer.pop(min(range(len(buffer)), key=lambda i: len(buffer[i])))[: room - len(row)]
            batch.append(row)
        yield batch


@pytest.mark.parametrize(("world", "seq_len", "look_ahead"), [(1, 300, 1000), (2, 40, 64), (3, 700, 150)])
def test_best_fit_equals_its_definition(seed_era: Path, tokenizer: Tokenizer, world: int, seq_len: int,
                                        look_ahead: int) -> None:
    files = shards(seed_era)[:2]
    for rank in range(world):
        slowly = slow_best_fit(files, tokenizer, 8, seq_len + 1, look_ahead, rank, world)
        ours = TextBatches(files, tokenizer, 8, seq_len, rank=rank, world=world, packing=BEST_FIT,
                           look_ahead=look_ahead)
        for rows, (x, y) in islice(zip(slowly, ours, strict=False), 40):
            assert x.tolist() == [row[:-1] for row in rows] and y.tolist() == [row[1:] for row in rows]


@pytest.mark.parametrize(("packing", "cut"), [*product(PACKINGS, [0, 1, 5, 23, 150])])
def test_a_resumed_stream_goes_on_at_the_very_next_token(seed_era: Path, tokenizer: Tokenizer, packing: str,
                                                         cut: int) -> None:
    """150 batches pass row groups, files and the end of the data; what was made ahead is made again."""
    files = shards(seed_era)[:2]

    def loader(start: dict[str, object] | None = None, ahead: int = 2) -> TextBatches:
        return TextBatches(files, tokenizer, 16, T, start=start, packing=packing, ahead=ahead)

    expected = list(islice(loader(ahead=0), cut + 3))
    first = loader()
    for _ in islice(first, cut):
        pass
    start = json.loads(json.dumps(first.state()))
    second = loader(start)
    for (x, y), (rx, ry) in zip(expected[cut : cut + 1], second, strict=False):
        assert torch.equal(x, rx) and torch.equal(y, ry)
    third = loader(json.loads(json.dumps(second.state())))  # resumed once more, without a new refill perhaps
    for (x, y), (rx, ry) in zip(expected[cut + 1 :], third, strict=False):
        assert torch.equal(x, rx) and torch.equal(y, ry)


@pytest.mark.parametrize("packing", PACKINGS)
def test_a_place_of_the_other_packing_is_refused(seed_era: Path, tokenizer: Tokenizer, packing: str) -> None:
    other = next(name for name in PACKINGS if name != packing)
    start = TextBatches(shards(seed_era), tokenizer, B, T, packing=other).state()
    with pytest.raises(StageError, match=f"of the packing {other}"):
        next(iter(TextBatches(shards(seed_era), tokenizer, B, T, packing=packing, start=start)))


@pytest.mark.parametrize("packing", PACKINGS)
def test_a_place_in_a_shard_that_is_gone_is_said(seed_era: Path, tokenizer: Tokenizer, packing: str) -> None:
    start = {**TextBatches(shards(seed_era), tokenizer, B, T, packing=packing).state(), "pq_idx": 2}
    with pytest.raises(StageError, match=r"in shard 3, and there are 2"):
        next(iter(TextBatches(shards(seed_era)[:2], tokenizer, B, T, packing=packing, start=start)))


def test_ranks_share_the_text(seed_era: Path, tokenizer: Tokenizer) -> None:
    """Row groups of two ranks together are those of one."""
    files = shards(seed_era)[:2]
    seen = [set[tuple[int, int]](), set[tuple[int, int]]()]
    for rank in (0, 1):
        batches = TextBatches(files, tokenizer, 1, 64, rank=rank, world=2)
        for group in islice(batches.groups.from_place(batches.groups.first()), 8):
            seen[rank].add((group.place.pq_idx, group.place.rg_idx))
    assert not seen[0] & seen[1] and len(seen[0] | seen[1]) == 16


def test_more_ranks_than_row_groups_is_an_error(seed_era: Path, tokenizer: Tokenizer) -> None:
    with pytest.raises(StageError, match=r"rank 9 of 10 finds no row group"):
        next(iter(TextBatches(shards(seed_era)[:1], tokenizer, 1, 64, rank=9, world=10)))


def test_a_broken_shard_is_named(seed_era: Path, tokenizer: Tokenizer, tmp_path: Path) -> None:
    whole = shards(seed_era)[0].read_bytes()
    broken = tmp_path / "shard_00000.parquet"
    broken.write_bytes(whole[:2000] + bytes(3000) + whole[5000:])
    with pytest.raises(StageError, match=r"shard_00000.parquet: row group 0 is not readable"):
        next(iter(TextBatches([broken], tokenizer, 1, 64)))


def test_leaving_early_ends_the_thread_and_errors_come_through() -> None:
    def numbers() -> Iterator[int]:
        yield from range(5)
        raise OSError("no more")

    assert list(islice(prefetch(iter(range(100)), 2), 3)) == [0, 1, 2]
    got = []
    with pytest.raises(OSError, match="no more"):
        for number in prefetch(numbers(), 2):
            got.append(number)
    assert got == [0, 1, 2, 3, 4]
    assert not [thread for thread in threading.enumerate() if thread.name == "prefetch"]


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
