"""README.md for an exported model: what it is, how it was measured, how to load it. Made from the report and the meta.

Only what a file says is told; where nothing was measured the card says nothing. No tensors.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from engine.model.config import GPTConfig

_KEYS = ("val_bpb", "core_metric", "arc_easy_acc", "arc_challenge_acc", "mmlu_acc", "gsm8k_acc", "humaneval_acc")


def card(name: str, source: str, step: int, config: GPTConfig, meta: Mapping[str, Any], report: Path | None) -> str:
    """The whole file. `report` is the folder of a run's report, if there is one."""
    shape = (f"{config.n_layer} layers, {config.n_embd} channels, {config.n_head} heads, context "
             f"{config.sequence_len:,}, {config.vocab_size:,} tokens")
    rows = [("stage", source), ("step", f"{step:,}"), ("shape", shape), *_measured(meta)]
    table = "\n".join(f"| {key} | {value} |" for key, value in rows)
    return (f"---\nlibrary_name: transformers\ntags:\n- nanochat\npipeline_tag: text-generation\n---\n\n# {name}\n\n"
            f"A nanochat model in transformers' format, exported by llmconsole.\n\n| | |\n|---|---|\n{table}\n\n"
            "```python\nfrom transformers import AutoModelForCausalLM, AutoTokenizer\n\n"
            'model = AutoModelForCausalLM.from_pretrained(".")\ntokenizer = AutoTokenizer.from_pretrained(".")\n```\n\n'
            "nanochat rounds its rotary table to bfloat16 and transformers does not, so that logits agree to about two "
            "decimals; the weights are the very same.\n" + _report_text(report))


def _measured(meta: Mapping[str, Any]) -> list[tuple[str, str]]:
    found = [(key, meta[key]) for key in _KEYS if isinstance(meta.get(key), (int, float))]
    return [(key, f"{value:.4f}") for key, value in found]


def _report_text(report: Path | None) -> str:
    """The report card itself, below its own heading."""
    if report is None:
        return ""
    try:
        text = (report / "report.md").read_text(encoding="utf-8")[:200_000]
    except (OSError, UnicodeDecodeError):
        return ""
    lines = [f"#{line}" if line.startswith("#") else line for line in text.splitlines()]
    return "\n" + "\n".join(lines) + "\n"
