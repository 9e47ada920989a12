"""What a rented machine costs and does, as lines: the meter of row 1, and the pane beside a run.

Colours only repeat what the numbers say.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

from textual.content import Content

from console.rental.book import Entry
from console.rental.money import Money
from console.rental.rental import WORDS, Phase, Rental, level
from console.text import clean_line
from console.widgets.numbers import clock, line_bar, span
from console.widgets.text_pane import pair

COLOURS = {"": "$text-success", "amber": "$text-warning", "red": "bold $text-error"}


def meter(money: Money, wide: bool) -> Content:
    """`$47.91 of $120 ▕███░░░▏ $21.52/h guard in 3 h`; with little room only the dollars."""
    if not money.per_hour and not money.budget:
        return Content(f"${money.spent:.2f} ")
    colour = COLOURS[level(money.share)]
    parts: list[Content | str | tuple[str, str]] = [(f"${money.living:.2f} of ${money.budget:.0f}", colour)]
    if wide:
        full, rest = line_bar(money.share, 8)
        parts += [" ", (full, colour), (rest, "$foreground 18%"), f" ${money.per_hour:.2f}/h"]
        if money.guard_in is not None:
            parts.append((f" guard in {span(money.guard_in)}", "$foreground-muted"))
    parts.append(" ")
    return Content.assemble(*parts)


def rented_lines(rental: Rental, journal: Sequence[Entry], width: int) -> list[Content]:
    """Phase, reason, time and money; then what happened, the newest first."""
    now = time.time()
    share, shouting = rental.share(now), rental.phase in (Phase.KEPT, Phase.HELD)
    colour = COLOURS[level(share)]
    lines = [Content.styled(clean_line(WORDS[rental.phase], 60), "bold $text-error" if shouting else "bold")]
    if rental.phase is Phase.HELD:
        left = rental.hold_left(now)
        told = f"for {clock(left)} more at ${rental.usd_per_minute:.2f}/min · {rental.proof or 'copying'}"
        lines += [*_wrapped(clean_line(told, 300), width, "$text-error"), Content("M: resume, shell, give back")]
    if note := clean_line(rental.note or rental.reason, 300):
        lines += _wrapped(note, width, "$text-error" if shouting else "$foreground-muted")
    hours = f"{rental.hours(now):.2f} of {rental.budget_hours:g} h"
    spent = f"${rental.spent(now):.2f} of ${rental.budget_usd:.2f}, {hours}"
    lines += [pair("money", Content.styled(spent, colour), width, 8),
              pair("rate", f"${rental.usd_per_hour:.2f}/h", width, 8)]
    if not rental.settled:
        lines.append(pair("so far", clock(now - rental.created), width, 8))
        lines.append(pair("guard", f"in {span(rental.guard_in(now))}: save, prove, end", width, 8))
        if rental.deadline:
            lines.append(pair("timer", f"inside the pod, {_ends(rental)}", width, 8))
    lines += [Content.assemble((time.strftime("%H:%M:%S ", time.localtime(entry.at)), "$foreground-muted"),
                               f"{entry.phase} ", (clean_line(entry.text, 160), "$foreground-muted"))
              for entry in reversed(journal[-6:])]
    return lines


def rented_line(rental: Rental) -> Content:
    """The same in one line, where there is no room for a pane: what it does, its money, and when it ends itself."""
    now = time.time()
    parts = [clean_line(str(rental.detail.get("target", "")), 20) + " " + str(rental.phase),
             f"${rental.spent(now):.2f} of ${rental.budget_usd:g}", f"${rental.usd_per_hour:.2f}/h",
             f"guard {span(rental.guard_in(now))}", *([f"ends {_ends(rental)}"] if rental.deadline else [])]
    return Content.styled(" " + " · ".join(parts), COLOURS[level(rental.share(now))])


def _ends(rental: Rental) -> str:
    """When the pod ends itself; `21:40 → 22:40` while its timer is still to be moved."""
    at = [rental.armed, rental.deadline] if rental.timer_pending else [rental.deadline]
    return " → ".join(time.strftime("%H:%M", time.localtime(moment)) for moment in at)


def _wrapped(text: str, width: int, style: str) -> list[Content]:
    import textwrap

    return [Content.styled(line, style) for line in textwrap.wrap(text, max(width, 10))[:3]]
