"""Transfers in words: what a verb writes to stderr, and what the screen shows of them."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable

from console.text import clean_line
from console.widgets.numbers import size
from remote.safekeeping import Transfer

PHASES = {"hash": "reading", "send": "sending", "prove": "proving", "receive": "fetching"}


def transfer_line(transfer: Transfer) -> str:
    """One line about one file: how far, how fast, how long still, and why it waits."""
    done = f"{size(transfer.done)} of {size(transfer.total)}" if transfer.total else ""
    rate = f"{size(int(transfer.rate))}/s" if transfer.rate else ""
    parts = (done, rate, eta(transfer), clean_line(transfer.note, 120))
    file = clean_line(transfer.file, 60) or clean_line(str(transfer.checkpoint), 60)
    return f"{PHASES.get(transfer.phase, transfer.phase):<9}{file}  " + " · ".join(part for part in parts if part)


def eta(transfer: Transfer) -> str:
    """How long the rest takes at this rate."""
    left = transfer.total - transfer.done
    if not transfer.rate or left <= 0:
        return ""
    seconds = left / transfer.rate
    return f"{seconds:.0f} s left" if seconds < 120 else f"{seconds / 60:.0f} min left"


def narrator(quiet: bool) -> Callable[[Transfer], None]:
    """Progress on stderr: one line that is redrawn on a terminal, a line per file elsewhere; retries always."""
    if quiet:
        return lambda transfer: None
    guard, told = threading.Lock(), set()
    live = sys.stderr.isatty()

    def tell(transfer: Transfer) -> None:
        key = (transfer.checkpoint, transfer.file, transfer.phase)
        with guard:
            if live and not transfer.note:
                end = "\n" if transfer.done >= transfer.total else ""
                sys.stderr.write(f"\r\x1b[K{transfer_line(transfer)[:110]}{end}")
            elif transfer.note or (key not in told and transfer.done >= transfer.total):
                sys.stderr.write(("\r\x1b[K" if live else "") + transfer_line(transfer) + "\n")
            if transfer.done >= transfer.total:
                told.add(key)
            sys.stderr.flush()

    return tell
