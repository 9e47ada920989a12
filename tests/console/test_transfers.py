"""One job at a time, told a few times a second, its end always told."""

from __future__ import annotations

import threading
import time

from console.errors import Refused
from console.keeping.shelf import Item, Name
from console.keeping.transfer_lines import eta, transfer_line
from console.keeping.transfers import Board, Ended, TransferDesk
from console.screens.checkpoint_lines import moving
from remote.errors import HubUnreachable
from remote.safekeeping import CheckpointId, Transfer

STEP = CheckpointId("base_checkpoints/d4", 300)


def desk() -> tuple[TransferDesk, list[Board], list[Ended]]:
    boards: list[Board] = []
    ends: list[Ended] = []
    return TransferDesk(boards.append, ends.append), boards, ends


def wait_for(ends: list[Ended]) -> Ended:
    deadline = time.monotonic() + 10
    while not ends:
        assert time.monotonic() < deadline
        time.sleep(0.005)
    return ends[-1]


def test_a_second_job_waits_for_nobody_and_is_refused() -> None:
    work, boards, ends = desk()
    go = threading.Event()
    assert work.start("first", lambda progress, stop: go.wait(10) and Ended("done"))  # type: ignore[arg-type,return-value]
    assert not work.start("second", lambda progress, stop: Ended("never"))
    assert work.board().job == "first"
    go.set()
    assert wait_for(ends).text == "done" and not work.board().busy
    assert boards[-1] == work.board()


def test_a_flood_of_progress_becomes_a_few_pictures() -> None:
    work, boards, ends = desk()

    def job(progress: object, stop: threading.Event) -> Ended:
        for done in range(20_000):
            progress(Transfer(STEP, "model_000300.pt", "send", done, 20_000, 5.0))  # type: ignore[operator]
        progress(Transfer(STEP, "model_000300.pt", "send", 0, 9, 0.0, "503 from the Hub, try 2"))  # type: ignore[operator]
        return Ended("done")

    work.start("sending", job)
    wait_for(ends)
    assert len(boards) <= 5 and boards[-1].retries == ("model_000300.pt: 503 from the Hub, try 2",)


def test_what_goes_wrong_is_how_it_ended() -> None:
    for error, words in ((Refused("the disk is full", "free some"), "disk is full"),
                         (HubUnreachable("503 from the Hub"), "503"), (OSError("no such disk"), "no such disk")):
        work, _, ends = desk()

        def job(progress: object, stop: threading.Event, error: Exception = error) -> Ended:
            raise error

        work.start("x", job)
        end = wait_for(ends)
        assert not end.good and words in end.text and end.next


def test_stopping_is_asked_of_the_job() -> None:
    work, _, ends = desk()
    work.start("x", lambda progress, stop: Ended("stopped") if stop.wait(10) else Ended("ran on"))
    work.stop()
    assert wait_for(ends).text == "stopped"


def test_a_row_says_what_moves() -> None:
    item = Item(Name("tiny-1", "base", "d4", 300))
    sending = Transfer(STEP, "model_000300.pt", "send", 50, 100, 10.0)
    assert moving(item, Board("copy", (sending,))) == "sending 50%"
    assert moving(item, Board("", (sending,))) == ""
    of_a_run = Transfer(CheckpointId("runs/other/base/base_checkpoints/d4", 300), "model_000300.pt", "send", 1, 2)
    assert moving(item, Board("copy", (of_a_run,))) == ""
    assert "5 s left" in transfer_line(sending) and eta(Transfer(STEP, "x", "send", 1, 2)) == ""
