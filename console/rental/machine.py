"""What is done on the machine behind a pod, as whoever carries a life on sees it.

Only the words are here: `console.rental.bench` does it over SSH, simulations do it on a virtual clock.
"""

from __future__ import annotations

from typing import Protocol

from console.rental.rental import Rental


class Bench(Protocol):
    """Everything may be repeated; all of it raises RemoteError."""

    def reach(self, rental: Rental) -> None:
        """Log in once at `rental.address`, and make the machine known as a target."""

    def prepare(self, rental: Rental) -> None:
        """Put our program there; returns quickly when it is there already."""

    def extend(self, rental: Rental, deadline: float) -> None:
        """Move the moment at which the pod ends itself, wall time in seconds."""

    def launch(self, rental: Rental) -> None:
        """Start the attempt of the run that is due, exactly once."""

    def running(self, rental: Rental) -> bool:
        """Whether the run is at work; False when it has ended, however."""

    def failure(self, rental: Rental) -> str:
        """Why a run that has ended did not end well; '' when it did, or was stopped on request."""

    def stop(self, rental: Rental) -> None:
        """Ask the run to save and end; harmless when it has ended."""

    def back_up(self, rental: Rental) -> None:
        """Copy every checkpoint to the other place."""

    def unproven(self, rental: Rental) -> list[str]:
        """What would be lost with the machine, a sentence each; [] means that nothing would."""

    def forget(self, rental: Rental) -> None:
        """The machine is no more: drop its address and its key."""

    def bring_home(self, rental: Rental) -> None:
        """Put the run's most trained model here, from its proven copy, to talk to; what cannot come is told."""
