"""Keeps every rented life going while a console is open: one thread per life, and the sweep from time to time.

What nobody drives ends at its deadline, inside the pod. What goes wrong is said in `trouble`, never swallowed.
"""

from __future__ import annotations

import sqlite3
import threading
import time
from typing import TYPE_CHECKING

from console.errors import ConsoleError
from remote.errors import RemoteError

if TYPE_CHECKING:
    from console.rental.rentals import Rentals

SWEEP_EVERY_S = 300.0


class Minder:
    """`wake` is set when something was decided; `stopped` when the console closes."""

    def __init__(self, rentals: Rentals) -> None:
        self._rentals = rentals
        self.wake, self.stopped = threading.Event(), threading.Event()
        self.trouble = ""  # why the account could not be compared with the ledger, '' when it was
        self._drivers: dict[str, threading.Thread] = {}
        self._watch: threading.Thread | None = None

    def start(self) -> None:
        if self._watch is None:
            self._watch = threading.Thread(target=self._mind, name="rentals", daemon=True)
            self._watch.start()

    def stop(self) -> None:
        self.stopped.set()
        self.wake.set()

    def _mind(self) -> None:
        next_sweep = 0.0
        while not self.stopped.is_set():
            try:
                if not self._rentals.read_only:
                    if time.monotonic() >= next_sweep:
                        next_sweep = time.monotonic() + SWEEP_EVERY_S
                        self._compare()
                    self._start_drivers()
            except (ConsoleError, RemoteError, OSError, sqlite3.Error) as error:
                self.trouble = f"rented machines are not looked after: {error}"
            self.wake.wait(2.0)
            self.wake.clear()

    def _compare(self) -> None:
        """The sweep, where there is a key at all; without one, living rentals are a reason to shout."""
        from console.credentials import MissingCredential

        try:
            self._rentals.sweep()
            self._rentals.settle_bills()
            self.trouble = self._rentals.balance_trouble()
        except MissingCredential as error:
            alive = self._rentals.book.unsettled()
            self.trouble = f"{len(alive)} rented machine(s) may be billing and {error}" if alive else ""
        except RemoteError as error:
            self.trouble = f"the account could not be compared with the ledger: {error}"

    def _start_drivers(self) -> None:
        for rental in self._rentals.book.unsettled():
            thread = self._drivers.get(rental.id)
            if thread is None or not thread.is_alive():
                thread = threading.Thread(target=self._go_on, args=(rental.id,), name="rental", daemon=True)
                self._drivers[rental.id] = thread
                thread.start()

    def _go_on(self, rental_id: str) -> None:
        try:
            self._rentals.drive(rental_id, lambda rental: False, lambda rental: None, self.stopped)
        except (ConsoleError, RemoteError, OSError, sqlite3.Error) as error:  # a full disk here, say
            self.trouble = f"a rented machine is not looked after: {error}"
            self.stopped.wait(5.0)
