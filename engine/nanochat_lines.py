"""One console line of unmodified nanochat, taken apart: numbers in every spelling it uses, prefixes of launchers gone.

Pure functions on text; which stage a line belongs to and what it means in a run is `engine.nanochat_log`'s business.
Fields are read by name, in any order, and unknown ones are kept, because the format changed many times.
"""

from __future__ import annotations

import json
import math
import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

_ESCAPE = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\|$)|[P^_X].*?(?:\x1b\\|$)|[ -/]*[0-~])"
                     r"|[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")
_RANK = re.compile(r"\[?(?:default|rank)(\d+)\]?:?\s?|\[(\d+)\]:\s?")
_STAMP = re.compile(r"\[?(\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d)([.,]\d+)?(Z|[+-]\d\d:?\d\d)?\]?\s+")
_LOGGING = re.compile(r"- (?P<name>[\w.]+) - (?P<level>[A-Z]+) - (?P<text>.*)")
_NUMBER = re.compile(r"([+-]?(?:\d[\d,]*(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?|[+-]?(?:nan|inf))\s?(ms|s|m|h|%|MiB|GiB)?$",
                     re.IGNORECASE)
_SCALE = {"ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0, "MiB": 1 / 1024, "GiB": 1.0, "%": 1.0}
_NAMES = {"tok/sec": "tok_per_sec", "bf16_mfu": "mfu", "total time": "train_time", "eta": "eta_s",
          "Validation bpb": "val_bpb", "Validation loss": "val_loss", "CORE metric": "core_metric",
          "ChatCORE": "chatcore_metric", "ChatCORE_cat": "chatcore_cat", "Training loss": "loss",
          "Average reward": "reward", "Average sequence length": "sequence_length",
          "mmlu_acc": "chat/MMLU", "arc_easy_acc": "chat/ARC-Easy", "gsm8k_acc": "chat/GSM8K"}
_TAGS = {"argv", "config", "params", "eval", "core", "chatcore", "prefill", "bench", "summary", "model", "cm"}

CONFIG = {"Vocab size": "vocab_size", "num_layers": "n_layer", "model_dim": "n_embd", "num_heads": "n_head",
          "num_kv_heads": "n_kv_head", "Number of parameters": "n_params", "total": "n_params",
          "Estimated FLOPs per token": "flops_per_token", "Total number of training tokens": "total_tokens",
          "Total training FLOPs estimate": "total_flops", "Tokens : Params ratio": "param_data_ratio",
          "Tokens : Scaling params ratio": "param_data_ratio", "Autodetected device type": "device",
          "Distributed world size": "world_size", "COMPUTE_DTYPE": "dtype",
          "Auto-computed optimal batch size": "tokens_per_step"}
"""Our names for what is printed before the first step, as `name: value` or in a table."""

FORMS = (
    (r"step (?P<step>\d{1,12})(?:/(?P<total>\d{1,12}))?(?: \((?P<percent>[\d.]+)%\))? \|(?P<rest>.*)",
     "trained"),
    (r"Step (?P<step>\d{1,12})/(?P<total>\d{1,12}) \|(?P<rest> Training loss:.*)", "tuned"),
    (r"Step (?P<step>\d{1,12})/(?P<total>\d{1,12}) \|(?P<rest>.*(?:reward|Example step).*)",
     "reinforced"),
    (r"Step (?P<step>\d{1,12}) \|(?P<rest>.*)", "evaluated"),
    (r"Rank 0 \| (?P<done>\d+)/(?P<total>\d+)", "asked"),
    (r"Evaluating: (?P<task>\S+) \((?P<shots>[^)]*)\)\.\.\.(?P<rest>.*)", "core_task"),
    (r"(?P<name>train bpb|val bpb|CORE metric): (?P<value>\S+)$", "base_result"),
    (r"ChatCORE metric: (?P<value>\S+)$", "chatcore"),
    (r"\s*(?P<task>ARC-Easy|ARC-Challenge|MMLU|GSM8K|HumanEval|SpellingBee)(?P<how>(?: accuracy)?): "
     r"(?P<value>[\d.]+%)$", "chat_result"),
    (r"<\|bos\|>(?P<text>.*)", "said"),
    (r"Saved (?P<what>model parameters|metadata|optimizer state) to: (?P<path>\S.*)", "saved"),
    (r"(?P<name>Peak memory usage|Total training time|Minimum validation bpb): (?P<value>\S+)$",
     "over"),
    (r"Overriding: (?P<name>\w{1,60}) = (?P<value>.*)", "setting"),
    (r"Total batch size (?P<tokens>[\d,]+) => gradient accumulation steps: (?P<times>\d+)", "batch"),
    (r"(?:Calculated number of iterations from .*|Using user-provided number of iterations): ([\d,]+)$", "horizon"),
    (r"GPU: (?P<name>.*) \| Peak FLOPS \(BF16\): (?P<peak>\S+)$", "gpu"),
    (r"Model config:(?P<brace> ?\{)?$", "model"),
    (r"Inherited \w+=\S+ from pretrained checkpoint$", "inherited"),
    (r"Progress: \d+% \((?P<done>\d+)/(?P<total>\d+) merges\)", "merged"),
    (r"Training time: (?P<value>[\d.]+s)$", "tokenizer_done"),
    (r"(?:Successfully downloaded \S+|Skipping \S+ \(already exists\)|Done! Downloaded: "
     r"(?P<done>\d+)/(?P<total>\d+) shards to .*)$", "downloaded"),
    (r"Traceback \(most recent call last\):$", "broke"),
)
"""(pattern, meaning) of every other line that says something, the frequent ones first."""


@dataclass(frozen=True)
class Line:
    """A line without its wrapping. `t` is wall time in seconds where its stamp names a zone; `rank` is 0 if unsaid."""

    text: str
    rank: int = 0
    t: float | None = None
    logger: str = ""


def unwrap(raw: str) -> Line:
    """Escapes, rank prefixes, time stamps and the logging module's own prefix off."""
    text, rank, t = _ESCAPE.sub("", raw).rstrip(), 0, None
    for _ in range(3):
        found = _RANK.match(text)
        if found:
            rank, text = int((found[1] or found[2])[:6]), text[found.end():]
        stamped = _STAMP.match(text)
        if stamped:
            t, text = _moment(stamped) or t, text[stamped.end():]
        if not found and not stamped:
            break
    logged = _LOGGING.match(text)
    return Line(logged["text"] if logged else text, rank, t, logged["name"] if logged else "")


def _moment(found: re.Match[str]) -> float | None:
    """A stamp without a zone is some machine's local time, which nobody here knows."""
    if not found[3]:
        return None
    zone = "+00:00" if found[3] == "Z" else found[3] if ":" in found[3] else f"{found[3][:3]}:{found[3][3:]}"
    try:
        moment = datetime.fromisoformat(f"{found[1].replace(' ', 'T')}{zone}")
        return moment.timestamp() + float("0." + (found[2] or ",0")[1:])
    except (ValueError, OverflowError, OSError):
        return None


def number(text: str) -> float | None:
    """`1,076,301`, `487.12ms` (seconds), `3.97m` (seconds), `2.34%` (2.34), `75422.02MiB` (GiB), `nan`; else None."""
    found = _NUMBER.match(text.strip())
    if not found:
        return None
    try:
        value = float(found[1].replace(",", ""))
    except (ValueError, OverflowError):
        return None
    return value * _SCALE[found[2]] if found[2] in _SCALE else value


def count(text: str) -> int | None:
    """A whole number that SQLite can hold too."""
    value = number(text)
    return int(value) if value is not None and math.isfinite(value) and abs(value) < 1 << 62 else None


def fields(text: str) -> dict[str, float]:
    """`name: value` pairs separated by `|` or by `, ` before another name; what is no number is left out."""
    found: dict[str, float] = {}
    for part in re.split(r"\||,\s+(?=[A-Za-z_@])", text):
        name, colon, value = part.partition(":")
        name = name.strip()
        if name == "epoch":
            value = value.split()[0] if value.split() else ""  # `1 pq: 12 rg: 40`
        amount = number(value) if colon else None
        if amount is not None and 0 < len(name) <= 60:
            found[field_name(name)] = amount
    return found


def field_name(name: str) -> str:
    """Our name for one of theirs."""
    if name in _NAMES:
        return _NAMES[name]
    return name.lower() if name.startswith("Pass@") else re.sub(r"[^A-Za-z0-9_@/-]+", "_", name)


def tagged(text: str) -> tuple[str, dict[str, Any]] | None:
    """(tag, values) of `<tag> key=value ...`; None for prose, which has at least one word without `=`."""
    tag, _, rest = text.partition(" ")
    if tag not in _TAGS or "=" not in rest:
        return None
    try:
        words = shlex.split(rest)
    except ValueError:
        return None
    if not all("=" in word for word in words):
        return None
    return tag, {key: _value(value) for key, _, value in (word.partition("=") for word in words) if key}


def _value(text: str) -> Any:
    try:
        whole = int(text) if len(text) < 20 else None
    except ValueError:
        whole = None
    if whole is not None:
        return whole
    try:
        return float(text)
    except ValueError:
        return text


def json_object(text: str) -> Mapping[str, Any] | None:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None
