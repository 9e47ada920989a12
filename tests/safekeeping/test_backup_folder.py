from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from checkpoint_world import add_checkpoint, contents, write

from remote.backup.folder import FolderSafekeeper
from remote.errors import DamagedCopy, NoSuchFile
from remote.local import LocalHost
from remote.safekeeping import READ_BACK, Transfer

HOST = LocalHost()


def nothing(transfer: Transfer) -> None:
    pass


def test_a_copy_is_whole_proven_and_readable_by_others(kept_base: Path, folder_keeper: FolderSafekeeper,
                                                       never: threading.Event) -> None:
    assert {loss.checkpoint.step for loss in folder_keeper.unproven(HOST, str(kept_base))} == {300, 50}
    told: list[Transfer] = []
    done = folder_keeper.back_up(HOST, str(kept_base), told.append, never)
    assert not done.failed and sorted(r.checkpoint.step for r in done.receipts) == [50, 100, 300]
    assert all(r.level == READ_BACK for r in done.receipts)
    assert folder_keeper.unproven(HOST, str(kept_base)) == []
    assert {t.phase for t in told} == {"hash", "send", "prove"}
    copy = folder_keeper.folder / "runs" / "nanochat" / "base" / "d4" / "000300"
    checked = subprocess.run(["sha256sum", "-c", "--strict", "SHA256SUMS"], cwd=copy, capture_output=True, text=True)
    assert checked.returncode == 0 and "tokenizer/tokenizer.pkl: OK" in checked.stdout, checked
    original = contents(kept_base / "base_checkpoints" / "d4")
    assert contents(copy)["model_000300.pt"] == original["model_000300.pt"]


def test_doing_it_again_sends_nothing(kept_base: Path, folder_keeper: FolderSafekeeper, never: threading.Event) -> None:
    first = folder_keeper.back_up(HOST, str(kept_base), nothing, never)
    before = contents(folder_keeper.folder)
    told: list[Transfer] = []
    assert folder_keeper.back_up(HOST, str(kept_base), told.append, never).receipts == first.receipts
    assert told == [] and contents(folder_keeper.folder) == before
    shutil.rmtree(folder_keeper.folder / "receipts")  # the proof is lost, the bytes are not
    folder_keeper.back_up(HOST, str(kept_base), told.append, never)
    assert {t.phase for t in told} == {"hash", "prove"} and folder_keeper.unproven(HOST, str(kept_base)) == []


def test_another_content_never_takes_the_place_of_an_older_copy(kept_base: Path, folder_keeper: FolderSafekeeper,
                                                                never: threading.Event) -> None:
    folder_keeper.back_up(HOST, str(kept_base), nothing, never)
    before = contents(folder_keeper.folder / "runs")
    write(kept_base / "tokenizer" / "tokenizer.pkl", b"trained again")
    losses = folder_keeper.unproven(HOST, str(kept_base))
    assert {loss.checkpoint.step for loss in losses} == {300, 50}
    folder_keeper.back_up(HOST, str(kept_base), nothing, never)
    after = contents(folder_keeper.folder / "runs")
    assert before.items() < after.items() and len(list(folder_keeper.folder.glob("runs/*/*/*/*"))) == 6
    assert folder_keeper.unproven(HOST, str(kept_base)) == []


def test_the_gate_shuts_when_anything_is_newer_changed_or_unknown(kept_base: Path, folder_keeper: FolderSafekeeper,
                                                                  never: threading.Event) -> None:
    folder_keeper.back_up(HOST, str(kept_base), nothing, never)

    def reasons() -> list[str]:
        return [f"{loss.checkpoint.step}: {loss.reason}" for loss in folder_keeper.unproven(HOST, str(kept_base))]

    write(kept_base / "base_checkpoints" / "d4" / "model_000400.pt", b"half")
    assert reasons() == [
        "400: it is newer than any whole one, and it was not saved to the end: its manifest is missing"]
    (kept_base / "base_checkpoints" / "d4" / "model_000400.pt").unlink()
    assert reasons() == []
    model = kept_base / "base_checkpoints" / "d4" / "model_000300.pt"
    data = bytearray(model.read_bytes())
    data[900] ^= 1
    write(model, bytes(data))  # same size, same time of change
    assert len(reasons()) == 1
    data[900] ^= 1
    write(model, bytes(data))
    assert reasons() == []
    add_checkpoint(kept_base, step=500)
    assert reasons() == ["500: there is no proven copy of it"]
    with pytest.raises(NoSuchFile):
        folder_keeper.unproven(HOST, str(kept_base / "no" / "such"))


@pytest.mark.parametrize("harm", ["gone", "cut", "manifest", "receipt"])
def test_the_gate_shuts_when_the_copy_is_not_there_any_more(kept_base: Path, folder_keeper: FolderSafekeeper,
                                                            never: threading.Event, harm: str) -> None:
    folder_keeper.back_up(HOST, str(kept_base), nothing, never)
    copy = folder_keeper.folder / "runs" / "nanochat" / "base" / "d4" / "000300"
    if harm == "gone":
        shutil.rmtree(copy)
    elif harm == "cut":
        os.truncate(copy / "optim_000300_rank1.pt", 10)
    elif harm == "manifest":
        text = (copy / "manifest.json").read_text()
        (copy / "manifest.json").write_text(text.replace('"step": 300', '"step": 301'))
    else:
        for path in (folder_keeper.folder / "receipts").glob("receipt-*"):
            path.write_bytes(path.read_bytes().replace(b'"level": 3', b'"level": 4'))
    assert 300 in {loss.checkpoint.step for loss in folder_keeper.unproven(HOST, str(kept_base))}
    folder_keeper.back_up(HOST, str(kept_base), nothing, never)
    assert folder_keeper.unproven(HOST, str(kept_base)) == []


def test_rot_is_found_by_reading_and_a_new_copy_is_made(kept_base: Path, folder_keeper: FolderSafekeeper,
                                                        never: threading.Event) -> None:
    folder_keeper.back_up(HOST, str(kept_base), nothing, never)
    copy = folder_keeper.folder / "runs" / "nanochat" / "base" / "d4" / "000300"
    data = bytearray((copy / "model_000300.pt").read_bytes())
    data[700] ^= 4
    (copy / "model_000300.pt").write_bytes(bytes(data))
    (kept,) = [k for k in folder_keeper.receipts.all() if k.place.endswith("000300")]
    with pytest.raises(DamagedCopy, match=r"model_000300.pt differs"):
        folder_keeper.prove(kept, nothing, never)
    assert [loss.reason for loss in folder_keeper.unproven(HOST, str(kept_base))] == [
        "its copy does not count: model_000300.pt differs from the original"]
    folder_keeper.back_up(HOST, str(kept_base), nothing, never)
    assert folder_keeper.unproven(HOST, str(kept_base)) == []
    assert (copy / "model_000300.pt").read_bytes() == bytes(data)  # left as it was found


def test_a_damaged_original_is_never_called_safe(kept_base: Path, folder_keeper: FolderSafekeeper,
                                                 never: threading.Event) -> None:
    model = kept_base / "base_checkpoints" / "d4" / "model_000300.pt"
    data = bytearray(model.read_bytes())
    data[700] ^= 4
    write(model, bytes(data))
    done = folder_keeper.back_up(HOST, str(kept_base), nothing, never)
    assert [(loss.checkpoint.step, "damaged" in loss.reason) for loss in done.failed] == [(300, True)]
    assert 300 in {loss.checkpoint.step for loss in folder_keeper.unproven(HOST, str(kept_base))}


def test_files_still_being_written_wait_for_the_next_round(kept_base: Path, folder_keeper: FolderSafekeeper,
                                                           never: threading.Event) -> None:
    folder = add_checkpoint(kept_base, step=900, manifest=False, when=time.time())
    (folder / "manifest_000300.json").unlink()
    (folder / "manifest_000100.json").unlink()
    stop = threading.Event()

    def grow() -> None:
        while not stop.wait(0.02):
            with open(folder / "optim_000900_rank1.pt", "ab") as f:
                f.write(b"more")

    writer = threading.Thread(target=grow)
    writer.start()
    try:
        done = folder_keeper.back_up(HOST, str(kept_base), nothing, never)
    finally:
        stop.set()
        writer.join()
    assert [(loss.checkpoint.step, loss.reason) for loss in done.failed] == [(900, "it is still being written")]
    assert {r.checkpoint.step for r in done.receipts} == {50, 100, 300}


def test_stopping_keeps_what_arrived(tmp_path: Path, folder_keeper: FolderSafekeeper) -> None:
    base = tmp_path / "big" / "nanochat"
    add_checkpoint(base, ranks=1, size=9 << 20)
    stop, told = threading.Event(), []

    def after_one_piece(transfer: Transfer) -> None:
        told.append(transfer)
        if transfer.phase == "send" and transfer.file.startswith("optim") and transfer.done:
            stop.set()

    done = folder_keeper.back_up(HOST, str(base), after_one_piece, stop)
    assert not done.receipts and "not sent again" in done.failed[0].reason
    told.clear()
    folder_keeper.back_up(HOST, str(base), told.append, threading.Event())
    sent = [t for t in told if t.phase == "send"]
    assert {t.file for t in sent} == {"optim_000300_rank0.pt"} and sent[0].done >= 8 << 20
    assert folder_keeper.unproven(HOST, str(base)) == []


KILLED = """
import sys, threading
from pathlib import Path
from remote.backup.folder import FolderSafekeeper
from remote.local import LocalHost
FolderSafekeeper(Path(sys.argv[2]), settle=0).back_up(LocalHost(), sys.argv[1], lambda t: None, threading.Event())
"""


def test_killed_at_any_point_nothing_half_counts(kept_base: Path, tmp_path: Path, never: threading.Event) -> None:
    """As many points as LLMCONSOLE_KILL_POINTS says; each is some milliseconds into the work."""
    points, chance = int(os.environ.get("LLMCONSOLE_KILL_POINTS", "6")), random.Random(4)
    for point in range(points):
        folder = tmp_path / f"kill-{point}"
        child = subprocess.Popen([sys.executable, "-c", KILLED, str(kept_base), str(folder)],
                                 cwd=Path(__file__).parents[2])
        waited = time.monotonic() + 20
        while not folder.exists() and child.poll() is None and time.monotonic() < waited:
            time.sleep(0.001)
        time.sleep(chance.uniform(0, 0.06))
        child.send_signal(signal.SIGKILL)
        child.wait()
        keeper = FolderSafekeeper(folder, settle=0)
        proven = {kept.receipt.checkpoint for kept in keeper.receipts.all() if kept.stands}
        assert keeper.receipts.damaged() == []
        for kept in keeper.receipts.all():
            keeper.prove(kept, nothing, never)  # raises when it was called proven and is not
        lost = {loss.checkpoint for loss in keeper.unproven(HOST, str(kept_base))}
        assert not lost & proven
        assert not keeper.back_up(HOST, str(kept_base), nothing, never).failed
        assert keeper.unproven(HOST, str(kept_base)) == []


def test_every_mutation_of_a_copy_is_noticed(tmp_path: Path, folder_keeper: FolderSafekeeper,
                                             never: threading.Event) -> None:
    """As many as LLMCONSOLE_MUTATIONS says: bits flipped, bytes cut, added, moved, in every file of a copy."""
    base, count = tmp_path / "small" / "nanochat", int(os.environ.get("LLMCONSOLE_MUTATIONS", "150"))
    add_checkpoint(base, ranks=1, size=400)
    folder_keeper.back_up(HOST, str(base), nothing, never)
    (kept,) = folder_keeper.receipts.all()
    copy, chance = folder_keeper.folder / kept.place, random.Random(7)
    files = sorted(p for p in copy.rglob("*") if p.is_file())
    unnoticed = []
    for number in range(count):
        path = files[number % len(files)]
        good = path.read_bytes()
        bad = mutated(good, chance)
        path.write_bytes(bad)
        try:
            folder_keeper.prove(kept, nothing, never)
            unnoticed.append(f"{path.name} #{number}")
        except DamagedCopy:
            pass
        path.write_bytes(good)
    assert unnoticed == []
    folder_keeper.prove(kept, nothing, never)


def mutated(data: bytes, chance: random.Random) -> bytes:
    at = chance.randrange(len(data))
    way = chance.randrange(5)
    if way == 0:
        return data[:at] + bytes([data[at] ^ 1 << chance.randrange(8)]) + data[at + 1:]
    if way == 1:
        return data[:at]
    if way == 2:
        return data + chance.randbytes(3)
    if way == 3:
        return data[:at] + data[at + 1:]
    return data[:at] + b" " + data[at:]


def test_a_full_disk_is_told_before_anything_is_written(
        kept_base: Path, folder_keeper: FolderSafekeeper, never: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: type("Usage", (), {"free": 1000})())
    done = folder_keeper.back_up(HOST, str(kept_base), nothing, never)
    assert len(done.failed) == 3 and all("GB free" in loss.reason for loss in done.failed)
    assert not list(folder_keeper.folder.rglob("*.pt"))
