"""The event stream counts without gaps whoever writes, survives torn tails, and reads only what it knows."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.events import Event, EventWriter, parse_line, split_lines


def read_all(path: Path) -> list[Event]:
    lines, used = split_lines(path.read_bytes())
    assert used == path.stat().st_size
    events = [parse_line(line) for line in lines]
    assert all(events)
    return [event for event in events if event]


WRITER = """
import sys
from pathlib import Path
from engine.events import EventWriter
writer = EventWriter(Path(sys.argv[1]), run="r", stage=sys.argv[2])
for i in range(300):
    writer.metric(i, loss=i / 7, text="x" * (i % 50))
"""


def test_writers_in_two_processes_keep_seq_gapless_and_in_file_order(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    writers = [subprocess.Popen([sys.executable, "-c", WRITER, str(path), name]) for name in ("a", "b")]
    here = EventWriter(path, run="r", stage="c")
    for i in range(300):
        here.progress(i, 300, "steps")
    assert [writer.wait(30) for writer in writers] == [0, 0]
    events = read_all(path)
    assert [event.seq for event in events] == list(range(1, 901))
    for name in ("a", "b"):
        assert [event.step for event in events if event.stage == name] == list(range(300))


@given(cut=st.integers(0, 400))
def test_the_next_writer_cuts_a_torn_tail_off(tmp_path_factory: pytest.TempPathFactory, cut: int) -> None:
    path = tmp_path_factory.mktemp("torn") / "events.jsonl"
    writer = EventWriter(path, run="r")
    for step in range(3):
        writer.metric(step, loss=1.0)
    writer.close()
    whole = path.read_bytes()
    left = whole[: len(whole) - min(cut, len(whole))]
    path.write_bytes(left)
    again = EventWriter(path, run="r")
    again.metric(99, loss=2.0)
    again.close()
    assert path.read_bytes().startswith(left[: left.rfind(b"\n") + 1])
    assert [event.seq for event in read_all(path)] == list(range(1, left.count(b"\n") + 2))


def test_a_torn_tail_longer_than_one_look_is_cut_off(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    writer = EventWriter(path)
    writer.emit("sample", {"text": "y" * 300_000})
    with open(path, "ab") as f:
        f.write(b"z" * 200_000)
    writer.metric(1, loss=0.5)
    assert [event.seq for event in read_all(path)] == [1, 2]


@given(st.floats(), st.floats())
def test_every_float_comes_back_and_the_file_is_plain_json(tmp_path_factory: pytest.TempPathFactory, a: float,
                                                           b: float) -> None:
    path = tmp_path_factory.mktemp("floats") / "events.jsonl"
    writer = EventWriter(path)
    writer.metric(1, loss=a, grad_norm=b)
    writer.close()

    def refuse(word: str) -> None:
        raise AssertionError(word)

    json.loads(path.read_bytes(), parse_constant=refuse)
    data = read_all(path)[0].data
    for before, after in ((a, data["loss"]), (b, data["grad_norm"])):
        assert (math.isnan(before) and math.isnan(after)) or before == after


@given(st.text(), st.dictionaries(st.text(), st.text() | st.floats() | st.none()))
def test_hostile_text_stays_on_its_line(tmp_path_factory: pytest.TempPathFactory, text: str,
                                        more: dict[str, object]) -> None:
    path = tmp_path_factory.mktemp("text") / "events.jsonl"
    writer = EventWriter(path)
    writer.emit("sample", {**more, "prompt": "NaN", "text": text})
    writer.emit("log-mark", {"text": "after"})
    writer.close()
    first, second = read_all(path)
    assert first.data["text"] == text and first.data["prompt"] == "NaN" and second.seq == 2


GOOD = {"v": 1, "seq": 1, "t": 0.0, "mono": 0.0, "run": "r", "attempt": 1, "stage": None, "kind": "metric", "step": 1,
        "data": {"loss": 1.0}}


@pytest.mark.parametrize("change", [
    {"data": [1]}, {"data": None}, {"data": "x"}, {"seq": 1e999}, {"seq": 10**30}, {"step": "one"}, {"step": [1]},
    {"stage": 3}, {"t": "soon"}, {"t": 10**400}, {"attempt": None},
])
def test_damaged_events_are_left_out(change: dict[str, object]) -> None:
    assert parse_line(json.dumps(GOOD).encode()) is not None
    assert parse_line(json.dumps({**GOOD, **change}).encode()) is None


@given(st.binary())
def test_foreign_lines_never_raise(line: bytes) -> None:
    parse_line(line)
    lines, used = split_lines(line)
    assert b"".join(each + b"\n" for each in lines) == line[:used]


def test_a_full_disk_raises_and_leaves_no_torn_line(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    code = f"""
import resource, signal
from pathlib import Path
from engine.events import EventWriter
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
writer = EventWriter(Path({str(path)!r}))
for step in range(100):
    try:
        writer.metric(step, loss=1.0)
    except OSError:
        raise SystemExit(step)
"""
    written = subprocess.run([sys.executable, "-c", code], check=False).returncode
    assert 0 < written < 10
    assert len(read_all(path)) == written


def test_a_writer_without_a_path_writes_nowhere(tmp_path: Path) -> None:
    assert EventWriter(None).emit("metric", {"loss": 1.0}) == 0
    assert list(tmp_path.iterdir()) == []
