"""Values under the crosshair are those of the run log, at the step itself or the newest before it; runs line up."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest

from console.crosshair import Place, StepDesk, StepWish
from console.report_compare import compare
from console.workspace import Workspace
from engine.events import EventWriter

STAGE = "01-base_train"
Make = Callable[..., Any]


def train(writer: EventWriter, first: int, last: int, scale: float = 1.0, every: int = 1) -> None:
    for step in range(first, last, every):
        writer.metric(step, loss=scale * 100 / (step + 1), mfu=40.0 + step)
        if step % 10 == 0:
            writer.evaluation(step, val_bpb=scale * (2 - step / 100))


@pytest.fixture
def desk(make_run: Make, workspace: Workspace) -> StepDesk:
    """tiny-1 went back from step 30 to 20 after a stop; other logs every third step and got to step 18."""
    _, writer = make_run("tiny-1")
    train(writer, 0, 31)
    train(writer, 20, 41, scale=2.0)
    writer.metric(41, loss=math.nan, mfu=1.0)
    _, other = make_run("other")
    train(other, 0, 20, scale=3.0, every=3)
    workspace.ingest()
    return StepDesk(workspace.queries)


def at(desk: StepDesk, step: int | None, move: int = 0) -> Any:
    return desk.serve(StepWish((Place("tiny-1", STAGE),), step, move)).found[0]


def test_values_are_exact_and_sparse_curves_say_where_they_were_measured(desk: StepDesk) -> None:
    here = at(desk, 7)
    assert here.step == 7
    assert here.values == {"loss": (100 / 8, 7), "mfu": (47.0, 7), "val_bpb": (2.0, 0)}
    assert at(desk, 10).values["val_bpb"] == (1.9, 10)


def test_keys_move_by_measured_steps_and_stop_at_the_ends(desk: StepDesk) -> None:
    assert at(desk, None).step == 41 and math.isnan(at(desk, None).values["loss"][0])
    assert [at(desk, 7, move).step for move in (-10, -1, 1, 10, 1000)] == [0, 6, 8, 17, 41]


def test_what_a_later_attempt_repeated_counts_once_and_as_it_came_out_last(desk: StepDesk) -> None:
    assert at(desk, 19).values["loss"] == (100 / 20, 19)
    assert at(desk, 20).values["loss"] == (200 / 21, 20)
    assert at(desk, 20, -1).step == 19
    assert at(desk, 25).values["val_bpb"] == (2 * (2 - 20 / 100), 20)


def test_other_runs_are_read_at_the_same_place_of_the_axis(desk: StepDesk) -> None:
    def other(step: int, factor: float = 1.0) -> Any:
        places = (Place("tiny-1", STAGE), Place("other", STAGE, 0.0, factor))
        return desk.serve(StepWish(places, step)).found[1]

    assert other(7).step == 6 and other(7).values["loss"] == (300 / 7, 6)
    assert other(12, 2.0).step == 6  # twice the tokens per step
    assert other(40) is None


def test_a_stage_without_steps_has_no_crosshair(desk: StepDesk) -> None:
    assert desk.serve(StepWish((Place("tiny-1", "09-none"), Place("other", STAGE)), None)).found == (None, None)


def test_report_cards_side_by_side(make_run: Make, workspace: Workspace, cli_json: Any) -> None:
    for run, accuracy, bpb in (("a", 0.5, 0.9), ("b", 0.75, 0.8)):
        _, writer = make_run(run)
        writer.evaluation(9, val_bpb=bpb)
        writer.evaluation(None, **{"chat/GSM8K": accuracy, "note": "text"})
    make_run("none")
    workspace.ingest()
    workspace.close()
    code, found = cli_json("run", "compare", "a", "b", "none")
    assert code == 0 and found["runs"] == ["a", "b", "none"]
    assert found["results"] == [
        {"name": "chat/GSM8K", "values": [0.5, 0.75, None], "best": 1, "difference": 0.25},
        {"name": "base_train val bpb", "values": [0.9, 0.8, None], "best": 1, "difference": pytest.approx(-0.1)}]
    assert compare([]) == []
    assert cli_json("run", "compare", "a", "nobody")[0] == 8
