"""Questions before something is lost: put to a person at a terminal, and to nobody else."""

from __future__ import annotations

import sys

import click

from console.errors import Refused, UsageProblem


def typed(question: str, word: str) -> None:
    """Return when the person typed `word`. Raises Refused for anything else, UsageProblem where nobody can be asked."""
    if not sys.stdin.isatty():
        raise UsageProblem("nobody can be asked here, so nothing was deleted", "add --yes")
    if str(click.prompt(question, default="", show_default=False, err=True)).strip() != word:
        raise Refused("nothing was deleted")
