"""What is printed when the console closes: what keeps running, and how to come back."""

from __future__ import annotations

import time
from collections.abc import Sequence

from console.rental.rental import Rental, sentence
from console.runstate import RunState
from console.text import clean_line


def exit_lines(state: RunState | None, rented: Sequence[Rental] = ()) -> str:
    """What keeps running and what keeps costing, for the terminal after the app."""
    back = "Come back with: llmconsole"
    if rented:
        return "\n".join([*map(_billing, rented), back])
    if state is None:
        return f"Nothing is running. {back}"
    run = clean_line(state.run, 80)
    if state.alive:
        where = f" ({clean_line(state.stage, 40)})" if state.stage else ""
        return f"{run} keeps running{where} and costs nothing.\n{back}\nStop it with:   llmconsole run stop {run}"
    return f"Nothing is running; {run} is {state.word}. {back}"


def _billing(rental: Rental) -> str:
    """A machine goes on costing money after the screen is closed: say so, and when that ends by itself."""
    now = time.time()
    ends = time.strftime("%H:%M", time.localtime(rental.deadline)) if rental.deadline else "its deadline"
    run = clean_line(rental.run, 80)
    return (f"{run}: {clean_line(sentence(rental, now), 200)}, ${rental.usd_per_hour:.2f}/h goes on. It ends itself at "
            f"{ends}; while llmconsole is open it is saved and ended in order.\n"
            f"Drive it without a screen: llmconsole run wait {run}    End it: llmconsole target down {run}")
