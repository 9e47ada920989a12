"""Out to transformers' format and back, judged by transformers itself."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from engine.context import StageError
from engine.interchange.exporting import export, import_folder
from engine.model.config import GPTConfig
from engine.model.gpt import GPT
from engine.tokenizer.bpe import Tokenizer
from engine.tokenizer.chat_format import render_conversation, render_for_completion
from engine.train import checkpoint

TEXT = ["Hello world, hello 1234 naïve wörld! don't", "It's 12 o'clock\n\n  and  all's well … 東京", "x <|bos|> y"]


@pytest.fixture(scope="module")
def exported_from(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base directory with a random classic model whose vocabulary rows are padded, in two precisions."""
    base = tmp_path_factory.mktemp("origin") / "base"
    tokenizer = Tokenizer.train_from_iterator(TEXT * 20, 340)
    tokenizer.save(base / "tokenizer")
    vocab = len(tokenizer.vocabulary)
    config = GPTConfig(sequence_len=64, vocab_size=vocab, n_layer=2, n_head=2, n_kv_head=1, n_embd=32)
    model = GPT(config, vocab_rows=-(-vocab // 64) * 64)
    for p in model.parameters():
        torch.nn.init.normal_(p, std=0.2, generator=torch.Generator().manual_seed(p.numel()))
    state = dict(model.state_dict())
    state["transformer.wte.weight"] = state["transformer.wte.weight"].bfloat16()
    meta = {"step": 7, "val_bpb": 0.9, "model_config": config.to_dict()}
    checkpoint.save_checkpoint(base / "chatsft_checkpoints" / "d2", 7, source="sft", model=state, meta=meta)
    (base / "report").mkdir()
    (base / "report" / "report.md").write_text("# Report\n\nbpb 0.9\n")
    return base


@pytest.fixture(scope="module")
def exported(exported_from: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export(exported_from, "sft", None, None, tmp_path_factory.mktemp("out") / "model").folder


@torch.no_grad()
def test_transformers_computes_the_same(exported_from: Path, exported: Path) -> None:
    theirs = AutoModelForCausalLM.from_pretrained(exported, dtype=torch.float32)
    ours, _ = checkpoint.load_model(exported_from / "chatsft_checkpoints" / "d2", 7)
    assert type(theirs).__name__ == "NanoChatForCausalLM"
    ids = torch.arange(120).reshape(2, 60) * 5 % ours.config.vocab_size
    mine, other = ours(ids), theirs(ids).logits
    assert mine.shape == other.shape
    assert (mine - other).abs().max() < 0.05  # nanochat's rotary table is rounded to bfloat16
    exact = ours.architecture.__class__(bf16_rotary=False)
    same = GPT(ours.config, exact, vocab_rows=ours.transformer.wte.weight.shape[0])
    same.load_state_dict(ours.state_dict())
    assert (same(ids) - other).abs().max() < 2e-5


def test_transformers_tokenizes_the_same(exported_from: Path, exported: Path) -> None:
    theirs = AutoTokenizer.from_pretrained(exported)
    ours = Tokenizer.from_directory(exported_from / "tokenizer")
    for text in TEXT[:2]:
        assert theirs.encode(text, add_special_tokens=False) == ours.encode(text)
        assert theirs.decode(ours.encode(text)) == text
    assert theirs.bos_token_id == ours.get_bos_token_id()
    talk = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": TEXT[0]},
            {"role": "assistant", "content": TEXT[1]}, {"role": "user", "content": "And now?"}]
    asked = theirs.apply_chat_template(talk, add_generation_prompt=True, tokenize=True, return_dict=False)
    assert asked == render_for_completion(ours, talk)
    parts = [{"role": "user", "content": "2+2"}, {"role": "assistant", "content": [
        {"type": "text", "text": "It is "}, {"type": "python", "text": "2+2"}, {"type": "python_output", "text": "4"}]}]
    assert theirs.apply_chat_template(parts, tokenize=True, return_dict=False) == render_conversation(ours, parts)[0]


def test_it_comes_back_bit_for_bit(exported_from: Path, exported: Path, tmp_path: Path) -> None:
    done = import_folder(exported, tmp_path / "back")
    assert (done.folder.relative_to(tmp_path), done.step) == (Path("back/chatsft_checkpoints/d2"), 7)
    name = "model_000007.pt"
    origin = torch.load(exported_from / "chatsft_checkpoints" / "d2" / name, weights_only=True)
    back = torch.load(done.folder / name, weights_only=True)
    assert origin.keys() == back.keys()
    for key, tensor in origin.items():
        assert tensor.dtype == back[key].dtype and torch.equal(tensor, back[key]), key
    assert checkpoint.read_meta(done.folder, 7) == checkpoint.read_meta(exported_from / "chatsft_checkpoints" / "d2", 7)
    for file in ("tokenizer.pkl", "token_bytes.pt"):
        assert (tmp_path / "back/tokenizer" / file).read_bytes() == (exported_from / "tokenizer" / file).read_bytes()
    with pytest.raises(StageError, match="already"):
        import_folder(exported, tmp_path / "back")


def test_what_transformers_itself_saved_comes_in_too(exported: Path, tmp_path: Path) -> None:
    AutoModelForCausalLM.from_pretrained(exported).save_pretrained(tmp_path / "theirs", max_shard_size="20KB")
    AutoTokenizer.from_pretrained(exported).save_pretrained(tmp_path / "theirs")
    assert (tmp_path / "theirs" / "model.safetensors.index.json").exists()
    done = import_folder(tmp_path / "theirs", tmp_path / "back", "sft", "d2-theirs")
    model, _ = checkpoint.load_model(done.folder, done.step)
    assert model.config.n_layer == 2 and (tmp_path / "back/tokenizer/tokenizer.pkl").exists()


def test_the_card_tells_what_was_measured(exported: Path) -> None:
    card = (exported / "README.md").read_text()
    assert card.startswith("---\nlibrary_name: transformers") and "| val_bpb | 0.9000 |" in card
    assert "## Report" in card and "from_pretrained" in card


def test_a_later_architecture_is_refused_by_name(tmp_path: Path, fixtures: Path) -> None:
    era = fixtures / "eras" / "head"
    base = tmp_path / "base"
    folder = base / "base_checkpoints" / "d2"
    folder.mkdir(parents=True)
    for file in ("model_000010.pt", "meta_000010.json"):
        (folder / file).write_bytes((era / file).read_bytes())
    Tokenizer.train_from_iterator(TEXT * 20, 300).save(base / "tokenizer")
    with pytest.raises(StageError, match="'head' architecture"):
        export(base, "base", None, None, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("change", [{"model_type": "llama"}, {"intermediate_size": 8192}, {"hidden_act": "gelu"},
                                    {"final_logit_softcapping": None}, {"tie_word_embeddings": True},
                                    {"rope_parameters": {"rope_theta": 100000.0}}, {"vocab_size": "many"}])
def test_a_model_that_computes_otherwise_is_refused(exported: Path, tmp_path: Path, change: dict[str, object]) -> None:
    import shutil

    shutil.copytree(exported, tmp_path / "odd")
    config = json.loads((exported / "config.json").read_text())
    (tmp_path / "odd" / "config.json").write_text(json.dumps({**config, **change}))
    with pytest.raises(StageError):
        import_folder(tmp_path / "odd", tmp_path / "back")
    assert not list((tmp_path / "back").rglob("model_*"))


def test_a_missing_or_extra_tensor_is_refused(exported: Path, tmp_path: Path) -> None:
    import shutil

    for number, change in enumerate((lambda s: s.pop("lm_head.weight"), lambda s: s.update(extra=torch.zeros(2)))):
        odd = tmp_path / f"odd-{number}"
        shutil.copytree(exported, odd)
        state = load_file(exported / "model.safetensors")
        change(state)
        save_file(state, odd / "model.safetensors")
        with pytest.raises(StageError):
            import_folder(odd, tmp_path / "back")


def test_nothing_is_overwritten(exported_from: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    with pytest.raises(StageError, match="nothing is overwritten"):
        export(exported_from, "sft", None, None, tmp_path / "mine")
