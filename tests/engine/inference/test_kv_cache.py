"""Storage of keys and values, and that decoding with it equals the plain forward pass."""

from __future__ import annotations

import pytest
import torch

from engine.inference.kv_cache import KVCache


def test_insert_returns_all_that_is_stored_and_keeps_it() -> None:
    cache = KVCache(2, 3, 8, 4, 2)
    first, second = torch.randn(2, 3, 5, 4), torch.randn(2, 3, 1, 4)
    for layer in range(2):
        k, v = cache.insert(layer, first + layer, first - layer)
        assert torch.equal(k, first + layer) and torch.equal(v, first - layer)
    cache.advance(5)
    assert cache.pos == 5
    k, v = cache.insert(1, second, -second)
    assert torch.equal(k, torch.cat([first + 1, second], dim=2))
    assert torch.equal(v, torch.cat([first - 1, -second], dim=2))
    assert k.data_ptr() == cache.k[1].data_ptr(), "a view, not a copy"
    cache.reset()
    assert cache.pos == 0 and cache.max_len == 8


def test_a_full_cache_says_so() -> None:
    cache = KVCache(1, 1, 4, 2, 1)
    cache.insert(0, torch.zeros(1, 1, 4, 2), torch.zeros(1, 1, 4, 2))
    cache.advance(4)
    with pytest.raises(ValueError, match="holds 4 tokens, 5 are needed"):
        cache.insert(0, torch.zeros(1, 1, 1, 2), torch.zeros(1, 1, 1, 2))


def test_mask_lets_a_chunk_see_the_past_and_itself() -> None:
    cache = KVCache(1, 1, 8, 2, 1)
    assert cache.mask(3, None) is None, "an empty cache: plain causal order"
    cache.advance(2)
    assert cache.mask(1, None) is None, "one token sees everything"
    mask, near = cache.mask(3, None), cache.mask(3, 1)
    assert mask is not None and near is not None
    assert mask[0, 0].int().tolist() == [[1, 1, 1, 0, 0], [1, 1, 1, 1, 0], [1, 1, 1, 1, 1]]
    assert near[0, 0].int().tolist() == [[0, 1, 1, 0, 0], [0, 0, 1, 1, 0], [0, 0, 0, 1, 1]]


def test_replicate_copies_one_row_and_only_one() -> None:
    cache = KVCache(1, 2, 4, 3, 2)
    k = torch.randn(1, 2, 3, 3)
    for layer in range(2):
        cache.insert(layer, k * (layer + 1), -k)
    cache.advance(3)
    wide = cache.replicate(5, 10)
    assert (wide.batch_size, wide.max_len, wide.pos) == (5, 10, 3)
    for layer in range(2):
        assert torch.equal(wide.k[layer, :, :, :3], (k * (layer + 1)).expand(5, -1, -1, -1))
        assert torch.equal(wide.v[layer, :, :, :3], (-k).expand(5, -1, -1, -1))
    with pytest.raises(ValueError, match="one row"):
        wide.replicate(2)


@pytest.mark.parametrize(("n_head", "n_kv_head"), [(4, 4), (4, 2), (4, 1), (1, 1)])
@pytest.mark.parametrize("chunks", [(40,), (20, 1, 1, 1, 17), (1,) * 40, (7, 13, 20)])
def test_logits_with_a_cache_equal_those_without(random_model, n_head: int, n_kv_head: int,
                                                 chunks: tuple[int, ...]) -> None:
    model = random_model(n_head * 10 + n_kv_head, n_head=n_head, n_kv_head=n_kv_head)
    ids = torch.randint(0, 300, (2, 40), generator=torch.Generator().manual_seed(1))
    cache = KVCache(2, n_kv_head, 40, model.config.head_dim, model.config.n_layer)
    with torch.no_grad():
        whole = model(ids)
        parts = torch.cat([model(part, kv_cache=cache) for part in ids.split(chunks, dim=1)], dim=1)
    assert cache.pos == 40
    torch.testing.assert_close(parts, whole, rtol=1e-4, atol=1e-4)
