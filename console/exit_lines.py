"""What is printed when the console closes: what keeps running, and how to come back."""

from __future__ import annotations

from console.runstate import RunState
from console.text import clean_line


def exit_lines(state: RunState | None) -> str:
    """Three lines at most, for the terminal after the app."""
    back = "Come back with: llmconsole"
    if state is None:
        return f"Nothing is running. {back}"
    run = clean_line(state.run, 80)
    if state.alive:
        where = f" ({clean_line(state.stage, 40)})" if state.stage else ""
        return f"{run} keeps running{where} and costs nothing.\n{back}\nStop it with:   llmconsole run stop {run}"
    return f"Nothing is running; {run} is {state.word}. {back}"
