"""Documents of tokens packed into the rows of a batch, in nanochat's two ways, each exact to resume at any batch.

Stream, of the seed: documents form one endless row of tokens; a batch takes B·T + 1 of them, and the last one is only a
target. Best fit, of later versions: every row of T + 1 tokens begins with a document; of at least 1,000 waiting ones
take the longest that still fits; when none does, the shortest is cut to fill the row, and what is cut off is lost.

Nothing here knows of tensors, devices or threads.
"""

from __future__ import annotations

import bisect
from collections import deque
from collections.abc import Iterator
from dataclasses import asdict
from itertools import chain, repeat
from typing import Any

import numpy as np
import numpy.typing as npt

from engine.context import StageError
from engine.data.row_groups import Group, Place, RowGroups

Ids = npt.NDArray[np.int64]
State = dict[str, Any]

STREAM, BEST_FIT = "stream", "best_fit"
PACKINGS = (STREAM, BEST_FIT)
LOOK_AHEAD = 1000  # documents that best fit chooses from, at least
REFILL = 128       # documents added at a time: which ones wait together decides what fits best


def _other_packing(packing: str) -> StageError:
    return StageError(f"the checkpoint's place in the data is of the packing {packing}",
                      f"resume with --packing={packing}, or start the stage anew", "settings")


def stream(groups: RowGroups, batch_size: int, seq_len: int, start: State | None) -> Iterator[tuple[Ids, State]]:
    """(ids, state behind them): ids (B·T + 1,); the state names row group and token offset of what comes next."""
    where = _stream_start(groups, start)
    need = batch_size * seq_len + 1
    pending: deque[tuple[Place, int, npt.NDArray[np.uint32]]] = deque()  # row group, offset of what is left, the rest
    waiting, skip = 0, where["offset"]
    for group in groups.from_place(Place(where["pq_idx"], where["rg_idx"], where["epoch"])):
        pending.append((group.place, skip, group.ids[skip:]))
        waiting, skip = waiting + len(pending[-1][2]), 0
        while waiting >= need:
            ids = np.empty(need, np.int64)
            place, offset = _take(pending, ids)
            waiting -= need
            yield ids, {**asdict(place), "offset": offset}


def _stream_start(groups: RowGroups, start: State | None) -> State:
    if start is not None and "buffer" in start:
        raise _other_packing(BEST_FIT)
    return {**asdict(groups.first()), "offset": 0, **(start or {})}


def _take(pending: deque[tuple[Place, int, npt.NDArray[np.uint32]]], out: Ids) -> tuple[Place, int]:
    """Fills `out` from the front of `pending`; returns where the next token is."""
    done = 0
    while True:
        place, offset, ids = pending.popleft()
        n = min(len(out) - done, len(ids))
        out[done : done + n] = ids[:n]
        done += n
        if done == len(out):
            pending.appendleft((place, offset + n, ids[n:]))
            return place, offset + n


# One waiting document: length, minus its number in order of arrival, row group and row, ids. Sorted, the last entry of
# those up to (length, 1) is the first that came of the longest that fit.
_Waiting = tuple[int, int, Place, int, npt.NDArray[np.uint32]]


def best_fit(groups: RowGroups, batch_size: int, seq_len: int, start: State | None,
             look_ahead: int = LOOK_AHEAD) -> Iterator[tuple[Ids, State]]:
    """(rows, state behind them): rows (B, T + 1); the state names the documents that wait and what is read next."""
    buffer, refills = _best_fit_start(groups, start)
    arrived, state = len(buffer), {name: value for name, value in (start or {}).items() if name != "buffer"}
    while True:
        rows = np.empty((batch_size, seq_len + 1), np.int64)
        for row in rows:
            filled = 0
            while filled < len(row):
                while len(buffer) < look_ahead:
                    group, first, documents = next(refills)
                    for number in range(first, first + documents):
                        ids = _document(group, number)
                        bisect.insort(buffer, (len(ids), -arrived, group.place, number, ids))
                        arrived += 1
                    state = {**asdict(group.place), "row": first + documents}
                ids = _pop(buffer, len(row) - filled)
                row[filled : filled + len(ids)] = ids
                filled += len(ids)
        yield rows, {**state, "buffer": tuple(buffer)}


def _document(group: Group, number: int) -> npt.NDArray[np.uint32]:
    """A copy: some documents wait for long, and must not keep their row group in memory."""
    return group.ids[group.offsets[number] : group.offsets[number + 1]].copy()


def _pop(buffer: list[_Waiting], room: int) -> npt.NDArray[np.uint32]:
    """The longest document that fits into `room` tokens, or as much of the shortest as does; of equals the first."""
    at = bisect.bisect(buffer, (room, 1)) or bisect.bisect(buffer, (buffer[0][0], 1))
    return buffer.pop(at - 1)[4][:room]


def portable(state: State) -> State:
    """The state as plain JSON values: of a waiting document, its file, row group and row, in order of arrival."""
    if not isinstance(state.get("buffer"), tuple):
        return dict(state)
    waiting = sorted(state["buffer"], key=lambda document: -document[1])
    return {**state, "buffer": [[place.pq_idx, place.rg_idx, number] for _, _, place, number, _ in waiting]}


def _best_fit_start(groups: RowGroups, start: State | None) -> tuple[list[_Waiting], Iterator[tuple[Group, int, int]]]:
    if start is None:
        return [], _refills(groups, groups.first(), 0)
    if "buffer" not in start:
        raise _other_packing(STREAM)
    place = Place(start["pq_idx"], start["rg_idx"], start["epoch"])
    wanted: dict[Place, list[tuple[int, int]]] = {}  # row group -> (row, number in order of arrival)
    for arrived, (pq_idx, rg_idx, row) in enumerate(start["buffer"]):
        wanted.setdefault(Place(pq_idx, rg_idx, place.epoch), []).append((row, arrived))
    waiting: list[_Waiting] = []
    for group, entries in wanted.items():  # of a row group that was read long ago, few documents still wait
        documents = groups.read_rows(group, [row for row, _ in entries])
        for (row, arrived), ids in zip(entries, documents, strict=True):
            waiting.append((len(ids), -arrived, group, row, ids))
    return sorted(waiting, key=lambda document: document[:2]), _refills(groups, place, start["row"])


def _refills(groups: RowGroups, place: Place, row: int) -> Iterator[tuple[Group, int, int]]:
    """(row group, first document, how many), REFILL documents at a time; from document `row` of `place` on."""
    for group, first in zip(groups.from_place(place), chain([row], repeat(0)), strict=False):
        total = len(group.offsets) - 1
        yield from ((group, at, min(REFILL, total - at)) for at in range(first, total, REFILL))
