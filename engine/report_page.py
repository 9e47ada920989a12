"""The report card as one Markdown page. Pure functions from what was gathered (see `engine.stages.report`) to text.

Whatever a model wrote goes between backticks, so that nothing in it can pose as part of the page.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

COLUMNS = ("BASE", "MID", "SFT", "RL")
_TASKS = ("ARC-Easy", "ARC-Challenge", "MMLU", "GSM8K", "HumanEval", "SpellingBee")
_TRAININGS = {"BASE": "base-model-training", "MID": "midtraining", "SFT": "chat-sft", "RL": "chat-rl"}


def page(card: Mapping[str, Any]) -> str:
    """The whole page: header, summary, scores per kind, timing, and then every stage's own section."""
    blocks = ["# nanochat training report", _header(card), _summary(card["sections"]), _scores(card["sections"]),
              _timing(card["timing"]), *map(section, card["sections"].values())]
    return "\n\n".join(block for block in blocks if block) + "\n"


def _header(card: Mapping[str, Any]) -> str:
    lines = [f"Generated: {_when(card['generated'])}", "", "## Environment"]
    for title, facts in card["environment"].items():
        lines += ["", f"### {title}", *_bullets(facts)]
    lines += ["", f"- Run: {inline(card['run'])}", f"- Recipe: {inline(card['recipe'])}"] if card["run"] else []
    if card["started"]:
        lines += ["", f"Run started: {_when(card['started'])}"]
    return "\n".join(lines) + "\n\n---"


def _summary(sections: Mapping[str, Mapping[str, Any]]) -> str:
    rows = {"Validation bpb": {c: _data(sections, slug).get("Final validation bpb") for c, slug in _TRAININGS.items()},
            "Training tokens": {c: _data(sections, slug).get("Number of training tokens") for c,
                                slug in _TRAININGS.items()},
            "Chat score": {c: _data(sections, f"chat-evaluation-{c.lower()}").get("Score") for c in COLUMNS}}
    rows = {**_metric_rows(sections, ("CORE metric",)), **rows, **_metric_rows(sections, (*_TASKS, "ChatCORE metric"))}
    columns = [c for c in COLUMNS if any(row[c] is not None for row in rows.values())]
    if not columns:
        return ""
    body = [[metric, *(value(metric, row[c]) for c in columns)] for metric, row in rows.items()
            if any(fact is not None for fact in row.values())]
    return "## Summary\n\n" + table(["Metric", *columns], body)


def _metric_rows(sections: Mapping[str, Mapping[str, Any]], names: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Those of the evaluations' metrics that some stage has, by stage; what was not run says so."""
    slugs = {"BASE": "base-model-evaluation", **{c: f"chat-evaluation-{c.lower()}" for c in COLUMNS[1:]}}
    rows = {name: {c: _data(sections, slug).get(name) for c, slug in slugs.items()} for name in names}
    pass_1 = _data(sections, "chat-rl").get("pass@1")
    if "GSM8K" in rows and rows["GSM8K"]["RL"] is None and isinstance(pass_1, float):
        rows["RL task, one sample"] = {**dict.fromkeys(COLUMNS), "RL": pass_1}
    shown = {name: {c: "not run" if isinstance(fact, str) else fact for c, fact in row.items()}
             for name, row in rows.items()}
    return {name: row for name, row in shown.items() if any(fact is not None for fact in row.values())}


def _scores(sections: Mapping[str, Mapping[str, Any]]) -> str:
    """Score per kind of question, one column per model that was asked."""
    found = {c: _data(sections, f"chat-evaluation-{c.lower()}").get("Scores") for c in COLUMNS}
    asked = {c: scores for c, scores in found.items() if isinstance(scores, Mapping)}
    if not asked:
        return ""
    kinds = list(dict.fromkeys(kind for scores in asked.values() for kind in scores))
    body = [[kind, *(value("Score", scores.get(kind)) for scores in asked.values())] for kind in kinds]
    return "## Scores per kind\n\n" + table(["Kind", *asked], body)


def _timing(timing: Mapping[str, Any]) -> str:
    if not timing["stages"]:
        return ""
    rows = [[s["title"], clock(s["seconds"])] for s in timing["stages"]]
    lines = ["## Time and cost", "", table(["Stage", "Time"], rows), "",
             f"- Total wall clock time: {clock(timing['wall_clock_s'])}"]
    if timing["cost_usd"] is not None:
        rate = timing.get("usd_per_hour")
        lines.append(f"- Cost: ${timing['cost_usd']:.2f} "
                     + (f"(at ${rate:.2f} per hour)" if rate is not None else "(this machine)"))
    return "\n".join(lines)


def section(part: Mapping[str, Any]) -> str:
    """One stage's section: its title, when it was written, and what it measured."""
    return "\n".join([f"## {inline(part['title'])}", "", f"timestamp: {_when(part['time'])}", "",
                      *_bullets(part["data"])])


def _bullets(facts: Mapping[str, Any]) -> Iterator[str]:
    for name, fact in facts.items():
        if fact is None or fact == "":
            continue
        if isinstance(fact, Mapping):
            yield f"- {inline(name)}:"
            yield from (f"  - {inline(k)}: {value(k, v)}" for k, v in fact.items())
        elif isinstance(fact, Sequence) and not isinstance(fact, str):
            yield f"- {inline(name)}:" if fact else f"- {inline(name)}: none"
            yield from (f"  - {value('', item)}" for item in fact)
        else:
            yield f"- {inline(name)}: {value(name, fact)}"


def value(name: str, fact: Any) -> str:
    """A number as nanochat prints it (4 decimals, commas from 10,000), a score in percent, other text by `inline`."""
    if fact is None:
        return "-"
    if isinstance(fact, Mapping):
        return ", ".join(f"{inline(k)} {value(str(k), v)}" for k, v in fact.items())
    if isinstance(fact, bool):
        return "yes" if fact else "no"
    if isinstance(fact, (int, float)) and "score" in name.lower():
        return f"{fact:.1%}"
    if isinstance(fact, float) and fact.is_integer() and 10_000 <= abs(fact) < 1e15:
        return f"{fact:,.0f}"
    if isinstance(fact, float):
        return f"{fact:.4f}" if abs(fact) < 1e9 else f"{fact:.4e}"
    if isinstance(fact, int):
        return f"{fact:,}" if abs(fact) >= 10_000 else str(fact)
    return inline(fact)


def inline(text: Any) -> str:
    """Foreign text on one line; between backticks when it holds anything that Markdown or HTML could take up."""
    line = " ".join(re.sub(r"[^\S ]|[^\x20-\x7e\u00a0-\uffff]", " ", str(text)).split())
    if re.fullmatch(r"[\w .,:;()/%+='$-]*", line) and "__" not in line:
        return line
    return "`" + line.replace("`", "'") + "`"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table; every cell is foreign text."""
    cells = [[inline(cell).replace("|", "/") for cell in line] for line in (head, *rows)]
    lines = [cells[0], ["-" * max(3, len(cell)) for cell in cells[0]], *cells[1:]]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def clock(seconds: float) -> str:
    """12s, 3m05s, 3h51m."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole}s"
    return f"{whole // 60}m{whole % 60:02d}s" if whole < 3600 else f"{whole // 3600}h{whole % 3600 // 60:02d}m"


def _when(t: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(t))


def _data(sections: Mapping[str, Mapping[str, Any]], slug: str) -> Mapping[str, Any]:
    return sections.get(slug, {}).get("data", {})
