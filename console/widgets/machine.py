"""What the machine does, as a run's system events tell it: processor, memory, and per GPU power before utilisation.

Utilisation says 100 % while a GPU waits; watts do not. Foreign names are cleaned here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from textual.content import Content

from console.text import clean_line
from console.widgets.numbers import line_bar
from console.widgets.text_pane import pair

_FULL_POWER_W = 700.0  # an H100's; only the bar's scale


def machine_lines(data: Mapping[str, Any], width: int) -> list[Content]:
    """All facts, one per line."""
    if not data:
        return [Content.styled("no measurements yet", "$foreground-muted")]
    lines = []
    if (share := _number(data, "cpu_percent")) is not None:
        lines.append(_gauge("cpu", share / 100, f"{share:.0f} %", width))
    used, total = _number(data, "mem_used_gb"), _number(data, "mem_total_gb")
    if used is not None and total:
        lines.append(_gauge("memory", used / total, f"{used:.1f} of {total:.0f} GB", width))
    if (rss := _number(data, "rss_gb")) is not None:
        lines.append(pair("this stage", f"{rss:.1f} GB", width))
    gpus = [gpu for gpu in data.get("gpus") or [] if isinstance(gpu, Mapping)]
    if gpus:
        lines.append(Content.styled("#  power      W  util   mem  °C".ljust(width)[:width], "$foreground-muted"))
    return lines + [_gpu(gpu, width) for gpu in gpus]


def machine_summary(data: Mapping[str, Any]) -> str:
    """The same in a few words for narrow screens."""
    words = []
    if (share := _number(data, "cpu_percent")) is not None:
        words.append(f"cpu {share:.0f} %")
    if (used := _number(data, "mem_used_gb")) is not None:
        words.append(f"mem {used:.1f} GB")
    gpus = [gpu for gpu in data.get("gpus") or [] if isinstance(gpu, Mapping)]
    if gpus:
        watts = sum(_number(gpu, "power_w") or 0 for gpu in gpus)
        words.append(f"{len(gpus)} GPU{'s' * (len(gpus) > 1)} {watts:.0f} W")
    return " · ".join(words)


def _gauge(label: str, share: float, text: str, width: int) -> Content:
    room = max(min(width - 11 - len(text) - 1, 12), 0)
    full, rest = line_bar(share, room)
    return Content.assemble((label.ljust(11), "$foreground-muted"), (full, "$primary"), (rest, "$foreground 18%"),
                            " " * bool(room), text)


def _gpu(gpu: Mapping[str, Any], width: int) -> Content:
    watts = _number(gpu, "power_w")
    words = [clean_line(str(gpu.get("index", "?")), 3).ljust(2),
             f"{watts:4.0f}" if watts is not None else "   –",
             _cell(gpu, "util", "{:4.0f}%"), _cell(gpu, "mem_gb", "{:5.1f}"), _cell(gpu, "temp_c", "{:3.0f}")]
    full, rest = line_bar((watts or 0) / _FULL_POWER_W, 8)
    return Content.assemble(words[0], " ", (full, "$primary"), (rest, "$foreground 18%"),
                            " ", " ".join(words[1:]))


def _cell(gpu: Mapping[str, Any], key: str, form: str) -> str:
    value = _number(gpu, key)
    return form.format(value) if value is not None else "–".rjust(len(form.format(0)))


def _number(data: Mapping[str, Any], key: str) -> float | None:
    value = data.get(key)
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) and value == value else None
