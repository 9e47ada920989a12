"""CORE against nanochat's own verdicts, and against a slow twin that takes one row at a time."""

from __future__ import annotations

import csv
import functools
import http.server
import json
import random
import shutil
import threading
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from engine.context import StageError
from engine.evals import core
from engine.evals.eval_bundle import find_bundle, read_tasks
from engine.evals.icl import IclTask, common, examples, in_order, prompts
from engine.model.attention import rotary_tables
from engine.model.config import architecture_of, config_from_meta
from engine.model.gpt import gpt_from_state
from engine.tokenizer.bpe import Tokenizer

HERE = Path(__file__).parents[2] / "fixtures" / "pipeline"
REFERENCE = Path(__file__).parents[4] / "shared" / "reference" / "upstream" / "pipeline"


@functools.cache
def upstream(era):
    """Model, tokenizer and upstream's answers of an era."""
    folder = HERE / era if (HERE / era / "train_final.pt").exists() else REFERENCE / era
    if not (folder / "train_final.pt").exists():
        pytest.skip(f"the numbers of the {era} era are not at hand")
    facts = json.loads((folder / "training.json").read_text())
    state = {k: v.float() for k, v in torch.load(folder / "train_final.pt", weights_only=True).items()}
    model = gpt_from_state(config_from_meta(facts["config"]), architecture_of(state), state, dtype=torch.float32)
    return model.eval(), Tokenizer.from_directory(folder / "tokenizer"), facts["core"]


def task_of(entry):
    meta = entry["meta"]
    return IclTask(entry["name"], meta["task_type"], meta["num_fewshot"], meta["continuation_delimiter"], entry["data"])


def slow_verdicts(model, tokenizer, task):
    """One row, one forward, one token at a time; written from the description of the evaluation, not from ours."""
    far = replace(model.config, sequence_len=4096)
    kept, (model.cos, model.sin) = (model.cos, model.sin), rotary_tables(far, model.architecture, model.dtype)
    verdicts = []
    for number, item in enumerate(task.items):
        shown = []
        if task.num_fewshot:
            others = [i for i in range(len(task.items)) if i != number]
            shown = [task.items[i] for i in random.Random(1234 + number).sample(others, task.num_fewshot)]
        texts = prompts(task, item, shown)
        ids = [[tokenizer.get_bos_token_id(), *tokenizer.encode(text)] for text in texts]
        with torch.no_grad():
            logits = [model(torch.tensor([row]))[0] for row in ids]
        if task.kind == "language_modeling":
            before, row = len(ids[0]), ids[1]
            assert row[:before] == ids[0]
            verdicts.append(all(int(logits[1][t - 1].argmax()) == row[t] for t in range(before, len(row))))
            continue
        means = []
        for row, out in zip(ids, logits, strict=True):
            if task.kind == "multiple_choice":
                first = next(t for t in range(len(row)) if len({tuple(r[: t + 1]) for r in ids}) > 1)
            else:
                same = 0
                while len({tuple(r[len(r) - same - 1 :]) for r in ids}) == 1:
                    same += 1
                first = len(row) - same
            nats = [F.cross_entropy(out[t - 1], torch.tensor(row[t])).item() for t in range(first, len(row))]
            means.append(sum(nats) / len(nats))
        verdicts.append(min(range(len(means)), key=means.__getitem__) == item["gold"])
    model.cos, model.sin = kept
    return verdicts


@pytest.mark.parametrize("era", ["seed", "head"])
@pytest.mark.parametrize("number", range(6))
def test_verdicts_and_prompts_are_nanochats_own(era, number):
    model, tokenizer, entries = upstream(era)
    entry, task = entries[number], task_of(entries[number])
    assert prompts(task, task.items[0], []) == entry["prompts_of_item_0_without_examples"]
    assert core.verdicts(model, tokenizer, "cpu", task) == entry["correct"]


@pytest.mark.parametrize("number", [1, 3, 5])
def test_verdicts_are_those_of_the_slow_twin(number, monkeypatch):
    model, tokenizer, entries = upstream("seed")
    task = task_of(entries[number])
    expected = slow_verdicts(model, tokenizer, task)
    assert core.verdicts(model, tokenizer, "cpu", task) == expected
    monkeypatch.setattr(core, "_TOKENS_PER_PASS", {"cpu": 1})  # one row at a time
    monkeypatch.setattr(core, "_LOGITS_PER_PASS", 1)  # one place at a time
    monkeypatch.setattr(core, "_BLOCK", 3)
    assert core.verdicts(model, tokenizer, "cpu", task, range(10)) == expected[:10]


def test_the_model_is_left_as_it_was():
    model, tokenizer, entries = upstream("seed")
    model.train()
    before = model.cos
    core.verdicts(model, tokenizer, "cpu", task_of(entries[5]), range(2))
    assert model.cos is before and model.training
    model.eval()


def test_examples_never_show_the_item_itself():
    task = IclTask("t", "multiple_choice", 10, " ", [{"n": i} for i in range(12)])
    for number in range(12):
        shown = examples(task, number)
        assert len(shown) == 10 and {"n": number} not in shown
    assert in_order(task.items) == in_order(task.items) != task.items
    assert len(in_order(task.items, 5)) == 5


def test_common_beginnings():
    assert common([1, 2, 3], [1, 2, 4]) == 2 and common([1], [1, 2]) == 1 and common([2], [1]) == 0


class Shares:
    """Rank `rank` of two, whose sum over ranks is added up by the test."""

    size, alone, device = 2, False, torch.device("cpu")

    def __init__(self, rank):
        self.rank = rank

    def total(self, value):
        self.counts = value.clone()
        return value


def test_two_ranks_share_the_items():
    model, tokenizer, entries = upstream("seed")
    task = task_of(entries[2])
    whole = core.evaluate_task(model, tokenizer, "cpu", task)
    ranks = [Shares(0), Shares(1)]
    for rank in ranks:
        core.evaluate_task(model, tokenizer, "cpu", task, world=rank)
    right, count = (ranks[0].counts + ranks[1].counts).tolist()
    assert count == 30 and right / count == pytest.approx(whole)


@pytest.fixture
def bundle(tmp_path):
    """A bundle of the six small tasks, laid out as the real one."""
    entries = upstream("seed")[2]
    folder = tmp_path / "made" / "eval_bundle"
    (folder / "eval_data" / "small").mkdir(parents=True)
    lines = ["icl_tasks:"]
    for entry in entries:
        path = f"small/{entry['name']}.jsonl"
        (folder / "eval_data" / path).write_text("".join(json.dumps(item) + "\n" for item in entry["data"]))
        lines += [f"- label: {entry['name']}", f"  dataset_uri: {path}",
                  f"  num_fewshot: [{entry['meta']['num_fewshot']}]", f"  icl_task_type: {entry['meta']['task_type']}"]
        if entry["meta"]["continuation_delimiter"] != " ":
            lines.append(f"  continuation_delimiter: {json.dumps(entry['meta']['continuation_delimiter'])}")
    (folder / "core.yaml").write_text("\n".join(lines) + "\n")
    with open(folder / "eval_meta_data.csv", "w", newline="") as f:
        writer = csv.writer(f)
        writer.writerow(["Eval Task", "Task Category", "Random baseline"])
        writer.writerows([e["name"], "x", {"mc0": 25, "mc3": 25, "schema0": 50, "schema2": 50}.get(e["name"], 0)]
                         for e in entries)
    return folder


def test_the_metric_is_the_mean_of_centered_accuracies(bundle):
    model, tokenizer, _ = upstream("seed")
    told = []
    found = core.evaluate_core(model, tokenizer, "cpu", bundle, progress=lambda *what: told.append(what))
    accuracy = found["results"]
    for name, guess in (("mc3", 0.25), ("schema0", 0.5), ("lm2", 0.0)):
        assert found["centered_results"][name] == pytest.approx((accuracy[name] - guess) / (1 - guess))
    assert found["core_metric"] == pytest.approx(sum(found["centered_results"].values()) / 6)
    assert told[-1] == ("lm2", 30, 30)
    few = core.evaluate_core(model, tokenizer, "cpu", bundle, max_per_task=7)
    assert [t.items for t in few["tasks"]] == [7] * 6


def test_a_local_bundle_is_used_and_a_damaged_one_is_named(bundle, tmp_path):
    assert find_bundle(tmp_path, str(bundle)) == bundle
    with pytest.raises(StageError, match=r"no core.yaml"):
        find_bundle(tmp_path, str(tmp_path / "elsewhere"))
    text = (bundle / "core.yaml").read_text()
    for damage in ("icl_tasks: 3", "{", text.replace("small/mc0", "../../secret"), text.replace("schema", "riddle"),
                   "!!python/object/apply:os.system ['true']"):
        (bundle / "core.yaml").write_text(damage)
        with pytest.raises(StageError, match="cannot be read"):
            read_tasks(bundle)


def test_the_bundle_is_fetched_once_and_unpacked_whole(bundle, tmp_path, monkeypatch):
    shutil.make_archive(str(tmp_path / "bundle"), "zip", bundle.parent)
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(tmp_path))
    monkeypatch.setattr(http.server.SimpleHTTPRequestHandler, "log_message", lambda *args: None)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    monkeypatch.setenv("LLMCONSOLE_EVAL_BUNDLE_URL", f"http://127.0.0.1:{server.server_port}/bundle.zip")
    said = []
    folder = find_bundle(tmp_path / "base", log=said.append)
    assert folder == tmp_path / "base" / "eval_bundle" and len(read_tasks(folder)) == 6 and len(said) == 1
    server.shutdown()
    server.server_close()
    assert find_bundle(tmp_path / "base") == folder
    assert [p.name for p in (tmp_path / "base").iterdir() if p.is_dir()] == ["eval_bundle"]


def test_without_bundle_and_network_it_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setenv("LLMCONSOLE_EVAL_BUNDLE_URL", "http://127.0.0.1:9/eval_bundle.zip")
    with pytest.raises(StageError, match="CORE needs the eval bundle") as error:
        find_bundle(tmp_path, log=lambda text: None)
    assert "--eval=bpb,sample" in error.value.next
