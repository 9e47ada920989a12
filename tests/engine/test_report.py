"""The report card: all parts in order, times, one page; damage and hostile text do not spoil it."""

from __future__ import annotations

import json
import math
import os
import subprocess

import pytest

from engine.context import StageContext
from engine.events import EventWriter
from engine.report_page import clock, inline, page, table, value
from engine.rundir import create
from engine.settings.evaluation import Report
from engine.stages import report

STEPS = [{"id": "01-dataset", "stage": "dataset", "title": "Data", "args": {}},
         {"id": "02-chat_sft", "stage": "chat_sft", "title": "SFT", "args": {}}]


@pytest.fixture
def context(tmp_path):
    described = {"v": 1, "run": "tiny-1", "recipe": "tiny", "target": "local", "stages": STEPS}
    run_dir = create(tmp_path, "tiny-1", described)
    run_dir.done_mark("01-dataset").write_text(json.dumps({"v": 1, "stage": "01-dataset", "seconds": 3.25}))
    events = EventWriter(run_dir.events, run="tiny-1", stage="03-report")
    events.emit("run", {"state": "started"}, stage=None)
    for state, seconds in (("stopped", 2.0), ("started", None), ("finished", 1.25)):  # stopped once and resumed
        events.emit("stage", {"state": state, "seconds": seconds}, stage="01-dataset")
    events.emit("stage", {"state": "failed", "seconds": 9.0}, stage="02-chat_sft")
    return StageContext(run_dir.base, events, "report", run_dir.path)


def fill(context):
    context.report("Chat evaluation SFT", {"Score": 0.9725, "Scores": {"add": 1.0, "spell": 0.875}},
                   {"Kinds below 95%": "spell", "Wrong answers": [{"kind": "spell", "asked": "q"}]})
    context.report("Chat SFT", {"Final validation bpb": 0.12345, "Number of training tokens": 819200, "MFU %": None})
    context.report("Base model training", {"Final validation bpb": 0.75, "Number of training tokens": 1638400})
    context.report("Something of my own", {"fun": 1})
    context.report("Dataset", {"Seed": 42})


def test_one_page_with_every_part_in_the_order_of_the_pipeline(context):
    fill(context)
    report.run(Report(), context)
    text = (context.base_dir / "report" / "report.md").read_text()
    heads = [line[3:] for line in text.splitlines() if line.startswith("## ")]
    assert heads == ["Environment", "Summary", "Scores per kind", "Time and cost", "Dataset", "Base model training",
                     "Chat SFT", "Chat evaluation SFT", "Something of my own"]
    assert "| Validation bpb | 0.7500 | 0.1235 |" in text
    assert "| Chat score | - | 97.2% |" in text
    assert "| spell | 87.5% |" in text
    assert "| Data | 3s |" in text and "- Cost: $0.00 (this machine)" in text
    assert "- Number of training tokens: 819,200" in text and "MFU" not in text
    card = json.loads((context.base_dir / "report" / "report.json").read_text())
    assert card["run"] == "tiny-1" and card["timing"]["stages"][0]["seconds"] == 3.25
    assert next(iter(card["sections"])) == "dataset"


def test_a_second_report_does_not_take_itself_for_a_part(context):
    fill(context)
    report.run(Report(), context)
    first = json.loads((context.base_dir / "report" / "report.json").read_text())
    report.run(Report(), context)
    assert json.loads((context.base_dir / "report" / "report.json").read_text())["sections"] == first["sections"]


def test_without_a_run_folder_and_without_parts_there_is_still_a_page(tmp_path):
    report.run(Report(), StageContext(tmp_path / "b", EventWriter(None), "report"))
    text = (tmp_path / "b" / "report" / "report.md").read_text()
    assert "### Hardware" in text and "## Summary" not in text and "Cost" not in text


def test_a_damaged_part_is_left_out_and_said(context, capsys):
    fill(context)
    (context.base_dir / "report" / "chat-sft.json").write_text('{"title": "Chat SFT", "da')
    report.run(Report(), context)
    assert "chat-sft.json" in capsys.readouterr().out
    assert "## Chat SFT" not in (context.base_dir / "report" / "report.md").read_text()
    assert b"report-part" in (context.run_dir / "events.jsonl").read_bytes()


def test_what_is_not_a_number_survives_as_its_name(context):
    context.report("Chat SFT", {"Final validation bpb": math.nan, "list": [math.inf]})
    report.run(Report(), context)
    card = json.loads((context.base_dir / "report" / "report.json").read_text(), parse_constant=pytest.fail)
    assert card["sections"]["chat-sft"]["data"] == {"Final validation bpb": "nan", "list": ["inf"]}


@pytest.mark.parametrize("text", ["# a head", "x\n\n## y", "<script>alert(1)</script>", "a | b", "[link](http://x)",
                                  "`code`", "\x1b[31mred", "**bold**", "__init__", "zero\x00byte", "a\r\nb\u2028c"])
def test_foreign_text_cannot_pose_as_part_of_the_page(text):
    shown = inline(text)
    assert "\n" not in shown and "\x1b" not in shown and "\x00" not in shown
    fenced = shown[0] == shown[-1] == "`" and shown.count("`") == 2
    assert fenced or not set(shown) & set("#<>[]|*`_\\")
    rows = table(["a"], [[text]])
    assert len(rows.splitlines()) == 3 and all(row.count("|") == 2 for row in rows.splitlines())


@pytest.mark.parametrize(("name", "fact", "shown"), [
    ("x", 0.123456, "0.1235"), ("x", 12345, "12,345"), ("x", 999, "999"), ("x", True, "yes"), ("x", None, "-"),
    ("Score", 0.9725, "97.2%"), ("x", 3.2e15, "3.2000e+15"), ("x", 23592960.0, "23,592,960"),
    ("x", "plain words", "plain words"),
    ("x", float("nan"), "nan"), ("x", {"ours": 2.5, "gpt2": 3}, "ours 2.5000, gpt2 3")])
def test_values_read_as_people_expect(name, fact, shown):
    assert value(name, fact) == shown


@pytest.mark.parametrize(("seconds", "shown"), [(0.4, "0s"), (59.4, "59s"), (185, "3m05s"), (13_860, "3h51m")])
def test_clock(seconds, shown):
    assert clock(seconds) == shown


def test_git_facts_of_a_checkout_and_of_none(tmp_path):
    assert report.git_facts(tmp_path) == {}
    env = {**os.environ, "GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull}
    who = ["-c", "user.name=t", "-c", "user.email=t@example.org"]
    for words in (["init", "-q"], ["add", "."], [*who, "commit", "-q", "-m", "First | words"]):
        (tmp_path / "a.txt").write_text("1")
        subprocess.run(["git", *words], cwd=tmp_path, env=env, check=True)
    assert report.git_facts(tmp_path)["Commit"].endswith("(clean)")
    (tmp_path / "a.txt").write_text("2")
    found = report.git_facts(tmp_path)
    assert found["Commit"].endswith("(dirty)") and found["Message"] == "First | words"


def test_the_page_is_made_of_plain_data_only(context):
    fill(context)
    card = json.loads(json.dumps(report.gather(context)))
    assert page(card).count("\n# ") == 0 and page(card).startswith("# nanochat training report")


def test_the_benchmarks_stand_in_the_summary_by_stage(context):
    context.report("Base model evaluation", {"CORE metric": 0.2219, "val bpb": 0.8})
    context.report("Chat evaluation MID", {"ARC-Easy": 0.3561, "GSM8K": 0.025, "HumanEval": 0.0671,
                                           "ChatCORE metric": 0.073})
    context.report("Chat evaluation SFT", {"ARC-Easy": 0.3876, "GSM8K": 0.0455, "HumanEval": "not run: no isolation",
                                           "ChatCORE lacks": ["HumanEval (no isolation)"]})
    context.report("Chat evaluation RL", {"GSM8K": 0.0758})
    report.run(Report(), context)
    text = (context.base_dir / "report" / "report.md").read_text()
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert rows[0] == "| Metric | BASE | MID | SFT | RL |" and rows[2] == "| CORE metric | 0.2219 | - | - | - |"
    assert "| ARC-Easy | - | 0.3561 | 0.3876 | - |" in rows and "| HumanEval | - | 0.0671 | not run | - |" in rows
    assert "| GSM8K | - | 0.0250 | 0.0455 | 0.0758 |" in rows and "MMLU" not in text
    table_end = text.index("## Time") if "## Time" in text else len(text)
    assert text[:table_end].rindex("| ChatCORE metric | - | 0.0730 | - | - |") > text.index("| HumanEval")
    assert "- HumanEval: not run: no isolation" in text


def test_reinforcement_learning_has_its_column(context):
    context.report("Chat RL", {"pass@1": 0.125, "Mean reward of the last tenth": 0.2})
    report.run(Report(), context)
    assert "| RL task, one sample | 0.1250 |" in (context.base_dir / "report" / "report.md").read_text()


def test_a_rented_machine_has_a_cost(context):
    described = json.loads((context.run_dir / "run.json").read_text())
    (context.run_dir / "run.json").write_text(json.dumps({**described, "target": "pod", "usd_per_hour": 24.0}))
    card = report.gather(context)
    card["timing"] |= {"wall_clock_s": 13_860.0, "cost_usd": 24.0 * 3.85}
    assert "- Total wall clock time: 3h51m\n- Cost: $92.40 (at $24.00 per hour)" in page(card)
    assert report.gather(context)["timing"]["cost_usd"] == pytest.approx(0.0, abs=0.1)


@pytest.mark.parametrize(("names", "price"), [([], 0.0), (["NVIDIA H100 80GB HBM3"] * 8, 24.0),
                                              (["NVIDIA A100-SXM4-80GB", "Tesla V100"], 2.34), (["RTX 4090"], 2.0)])
def test_list_prices(names, price):
    assert report.list_price(names) == pytest.approx(price)


def test_the_environment_tells_hardware_software_and_bloat(tmp_path):
    found = report.environment(tmp_path)
    assert found["Bloat"]["Files"] > 100 and found["Bloat"]["Tokens (approx.)"] == found["Bloat"]["Characters"] // 4
    assert found["Software"]["PyTorch"] and found["Hardware"]["CPU cores"] >= 1


def test_bloat_counts_our_own_sources_only(tmp_path):
    from engine.code_size import code_size

    for name, text in (("engine/a.py", "x = 1\n"), ("engine/target/b.rs", "no\n"), ("other/c.py", "no\n"),
                       ("engine/d.bin", "no"), ("README.md", "# hi\n")):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    assert code_size(tmp_path) == {"Characters": 6, "Lines": 1, "Files": 1, "Tokens (approx.)": 1}
    (tmp_path / "pyproject.toml").write_text("")
    (tmp_path / "uv.lock").write_text("a\nb\n")
    found = code_size(tmp_path)
    assert found["Files"] == 3 and found["Dependencies (uv.lock lines)"] == 2
