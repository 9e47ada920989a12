"""Stats for nerds: this reply, the context, the model, the session; as lines, or as one line for narrow screens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from textual.content import Content

from console.chat.conversation import Conversation, Turn
from console.text import clean_line
from console.widgets.numbers import compact, grouped, line_bar, short, size, span
from console.widgets.text_pane import pair

_LINE_GAPS = 12  # newest times between tokens that the one line shows


def stat_lines(conversation: Conversation, model: Mapping[str, Any], width: int) -> list[Content]:
    """Everything, for the side pane."""
    last = _last_answer(conversation)
    stats = last.figures if last else {}
    in_out = f"{_of(stats, 'prompt_tokens', '{:,.0f}')} / {_of(stats, 'completion_tokens', '{:,.0f}')} tok"
    stopped = f" · {conversation.stopped} stopped" if conversation.stopped else ""
    lines = [
        _head("this reply"),
        pair("  first", _of(stats, "ttft_ms", "{:.0f} ms"), width),
        pair("  speed", f"{short(_number(stats, 'tok_per_s'))} tok/s" if "tok_per_s" in stats else "–", width),
        pair("  p95 gap", _of(stats, "p95_ms", "{:.1f} ms"), width),
        pair("  in / out", in_out, width),
        pair("  took", _took(_number(stats, "seconds")), width),
        *_gaps(stats, width),
        _head("context"), *_context(stats, model, width),
        _head("model"), *_model(model, width),
        _head("session"),
        pair("  replies", f"{conversation.replies}{stopped}", width),
        pair("  in / out", f"{grouped(conversation.tokens_in)} / {grouped(conversation.tokens_out)} tok", width),
    ]
    if conversation.seconds:
        lines.append(pair("  mean", f"{short(conversation.tokens_out / conversation.seconds)} tok/s", width))
    return lines


def _gaps(stats: Mapping[str, Any], width: int) -> list[Content]:
    """The time between tokens as a row of bars, highest where it took longest."""
    values = _gap_values(stats)
    if len(values) < 2:
        return []
    bars = spark(values, max(width - 12, 8))
    return [Content.assemble("  ", (bars, "$primary"), (" per token", "$foreground-muted"))]


def _gap_values(stats: Mapping[str, Any]) -> list[float]:
    return [v for v in stats.get("gaps_ms") or () if isinstance(v, (int, float))]


def spark(values: Sequence[float], width: int) -> str:
    """`values` as bars of one cell, at most `width`: of several in one cell the largest."""
    step = max(-(-len(values) // max(width, 1)), 1)
    shown = [max(values[i : i + step]) for i in range(0, len(values), step)]
    top = max(shown, default=0.0) or 1.0
    return "".join("▁▂▃▄▅▆▇█"[min(int(value / top * 8), 7)] for value in shown)


def _took(seconds: float | None) -> str:
    return f"{1000 * seconds:.0f} ms" if seconds is not None and seconds < 1 else span(seconds)


def _context(stats: Mapping[str, Any], model: Mapping[str, Any], width: int) -> list[Content]:
    used, room = _number(stats, "context_used") or 0.0, _number(stats, "context") or _number(model, "context")
    if not room:
        return [pair("  used", "–", width)]
    text = f" {used:,.0f} / {room:,.0f}"
    cells = max(min(width - 2 - len(text), 12), 0)
    full, rest = line_bar(used / room, cells)
    lines = [Content.assemble("  ", (full, "$primary"), (rest, "$foreground 18%"), text)]
    dropped = _number(stats, "dropped_turns")
    if dropped:
        lines.append(Content.styled(f"  {dropped:.0f} oldest turns left out", "$text-warning"))
    return lines


def _model(model: Mapping[str, Any], width: int) -> list[Content]:
    if not model:
        return [Content.styled("  none loaded", "$foreground-muted")]
    return [
        pair("  size", f"{compact(_number(model, 'n_params') or 0)} weights", width),
        pair("  shape", f"{_of(model, 'n_layer', '{:.0f}')} layers × {_of(model, 'n_embd', '{:.0f}')}", width),
        pair("  vocab", f"{_of(model, 'vocab_size', '{:,.0f}')} tokens", width),
        pair("  memory", size(_number(model, "bytes")), width),
        pair("  on", clean_line(f"{model.get('device', '?')} · {model.get('dtype', '?')}", 30), width),
        *([pair("  by", clean_line(str(model["backend"]), 30), width)] if model.get("backend") else []),
    ]


def stat_line(conversation: Conversation) -> str:
    """The newest reply in one line."""
    last = _last_answer(conversation)
    stats = last.figures if last else {}
    if not stats:
        return ""
    return (f"{_of(stats, 'ttft_ms', '{:.0f} ms')} to first · {short(_number(stats, 'tok_per_s'))} tok/s · "
            f"in {_of(stats, 'prompt_tokens', '{:,.0f}')} out {_of(stats, 'completion_tokens', '{:,.0f}')} · "
            f"context {_of(stats, 'context_used', '{:,.0f}')}/{_of(stats, 'context', '{:,.0f}')} "
            f"{spark(_gap_values(stats)[-_LINE_GAPS:], _LINE_GAPS)}".rstrip())


def _head(text: str) -> Content:
    return Content.styled(text, "bold")


def _last_answer(conversation: Conversation) -> Turn | None:
    return next((turn for turn in reversed(conversation.turns) if turn.role == "assistant"), None)


def _number(values: Mapping[str, Any], key: str) -> float | None:
    value = values.get(key)
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else None


def _of(values: Mapping[str, Any], key: str, form: str) -> str:
    value = _number(values, key)
    return "–" if value is None else form.format(value)
