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
from checkpoint_world import add_checkpoint, contents
from fake_hub import FakeHub, Fault

from remote.backup.box import Box
from remote.backup.hub import HubSafekeeper
from remote.errors import CopyRefused, DamagedCopy, HubUnreachable, RemoteError, TokenRefused
from remote.local import LocalHost
from remote.safekeeping import READ_BACK, Transfer

HOST = LocalHost()


def nothing(transfer: Transfer) -> None:
    pass


def test_a_copy_is_private_whole_and_proven_and_the_real_client_reads_it(
        kept_base: Path, hub_keeper: HubSafekeeper, fake_hub: FakeHub, never: threading.Event, tmp_path: Path) -> None:
    told: list[Transfer] = []
    done = hub_keeper.back_up(HOST, str(kept_base), told.append, never)
    assert not done.failed and len(done.receipts) == 3 and all(r.level == READ_BACK for r in done.receipts)
    assert hub_keeper.unproven(HOST, str(kept_base)) == []
    assert fake_hub.repos["me/run7"].private and hub_keeper.name == "me/run7 (private)"
    assert {t.phase for t in told} == {"hash", "send", "prove"}
    script = ("import sys; from huggingface_hub import HfApi, snapshot_download as s\n"
              "s('me/run7', revision=sys.argv[1], local_dir=sys.argv[2])\n"
              "v = HfApi().verify_repo_checksums('me/run7', local_dir=sys.argv[2], revision=sys.argv[1])\n"
              "print(v.checked_count, v.mismatches, v.missing_paths)")
    reply = subprocess.run([sys.executable, "-c", script, fake_hub.head("me/run7").oid, str(tmp_path / "got")],
                           capture_output=True, text=True, timeout=60)
    assert reply.returncode == 0 and reply.stdout.split()[-2:] == ["[]", "[]"], reply.stderr
    place = tmp_path / "got" / "runs" / "nanochat" / "base" / "d4" / "000300"
    assert subprocess.run(["sha256sum", "-c", "--quiet", "SHA256SUMS"], cwd=place).returncode == 0


def test_doing_it_again_sends_nothing(kept_base: Path, hub_keeper: HubSafekeeper, fake_hub: FakeHub,
                                      never: threading.Event) -> None:
    first = hub_keeper.back_up(HOST, str(kept_base), nothing, never)
    puts, commits = len(fake_hub.routes("put")), len(fake_hub.repos["me/run7"].commits)
    assert {r.location for r in hub_keeper.back_up(HOST, str(kept_base), nothing, never).receipts} == {
        r.location for r in first.receipts}
    shutil.rmtree(hub_keeper.receipts.folder)
    hub_keeper.back_up(HOST, str(kept_base), nothing, never)
    assert hub_keeper.unproven(HOST, str(kept_base)) == []
    assert (len(fake_hub.routes("put")), len(fake_hub.repos["me/run7"].commits)) == (puts, commits)


def test_weights_go_before_optimizer_state_and_one_commit_names_all(
        tmp_path: Path, hub_keeper: HubSafekeeper, fake_hub: FakeHub, never: threading.Event) -> None:
    base = tmp_path / "one" / "nanochat"
    add_checkpoint(base)
    hub_keeper.back_up(HOST, str(base), nothing, never)
    order = [row[0] for row in fake_hub.log if row[0] in ("put", "commit", "get")]
    assert order == ["put"] * 5 + ["commit"] + ["get"] * 5
    sizes = [row[3] for row in fake_hub.routes("put")]
    assert min(sizes[3:]) > max(sizes[:3])  # both optimizer files, larger than all else, came last
    assert len(fake_hub.repos["me/run7"].commits) == 2


def test_a_public_repository_is_not_used_by_accident_and_never_changed(
        kept_base: Path, hub_keeper: HubSafekeeper, fake_hub: FakeHub, never: threading.Event, tmp_path: Path) -> None:
    fake_hub.add_repo("me/run7", private=False)
    with pytest.raises(CopyRefused, match="public"):
        hub_keeper.back_up(HOST, str(kept_base), nothing, never)
    assert not fake_hub.routes("put") and not fake_hub.repos["me/run7"].private
    meant = HubSafekeeper("me/run7", tmp_path / "r", endpoint=fake_hub.endpoint, token=fake_hub.token, public=True,
                          settle=0)
    assert not meant.back_up(HOST, str(kept_base), nothing, never).failed
    assert not fake_hub.repos["me/run7"].private


def test_what_is_in_the_repository_stays_as_it_is(kept_base: Path, hub_keeper: HubSafekeeper, fake_hub: FakeHub,
                                                  never: threading.Event) -> None:
    taken = "runs/nanochat/base/d4/000300/model_000300.pt"
    fake_hub.add_repo("me/run7", files={taken: b"somebody else's", "README.md": b"mine"})
    before = dict(fake_hub.head("me/run7").files)
    done = hub_keeper.back_up(HOST, str(kept_base), nothing, never)
    assert not done.failed and before.items() <= fake_hub.head("me/run7").files.items()
    assert any("/000300-" in r.location for r in done.receipts)


@pytest.mark.parametrize("multipart", [None, 2000])
@pytest.mark.parametrize("fault", [
    Fault("create", "status", 2), Fault("info", "cut"), Fault("preupload", "status", 1, 429, {"Retry-After": "0"}),
    Fault("batch", "status", 2, 500), Fault("batch", "stall", seconds=3), Fault("put", "cut", 2),
    Fault("put", "status", 1, 503), Fault("put", "status", 1, 403), Fault("put", "stall", seconds=3),
    Fault("part", "cut", 2, after=1), Fault("part", "status", 1, 500), Fault("part", "status", 1, 403),
    Fault("complete", "status", 1, 500), Fault("verify", "status", 1, 502), Fault("commit", "status", 1, 500),
    Fault("commit", "landed", 1, 500), Fault("commit", "status", 1, 412), Fault("commit", "cut"),
    Fault("tree", "status", 2), Fault("resolve_head", "status", 1), Fault("get", "cut"), Fault("get", "cut_late"),
    Fault("get", "status", 1, 403), Fault("get", "stall", seconds=3), Fault("resolve", "cut"),
], ids=lambda f: f"{f.route}-{f.how}-{f.status}" if isinstance(f, Fault) else str(f))
def test_a_passing_fault_costs_a_retry_and_nothing_else(
        tmp_path: Path, hub_keeper: HubSafekeeper, fake_hub: FakeHub, never: threading.Event, fault: Fault,
        multipart: int | None) -> None:
    if (multipart is None and fault.route in ("part", "complete")) or (multipart and fault.route not in (
            "part", "complete", "put", "commit")):
        pytest.skip("that route is not used")
    base = tmp_path / "one" / "nanochat"
    add_checkpoint(base)
    fake_hub.multipart, fake_hub.faults = multipart, [Fault(**vars(fault))]
    done = hub_keeper.back_up(HOST, str(base), nothing, never)
    assert not done.failed and hub_keeper.unproven(HOST, str(base)) == []
    assert len(fake_hub.repos["me/run7"].commits) == 2  # the first and ours: none was repeated
    assert sum(f.times for f in fake_hub.faults) == 0


@pytest.mark.parametrize("old", [False, True])
def test_parts_that_were_sent_before_the_end_are_not_sent_again(
        tmp_path: Path, hub_keeper: HubSafekeeper, fake_hub: FakeHub, never: threading.Event, old: bool) -> None:
    base = tmp_path / "one" / "nanochat"
    add_checkpoint(base, ranks=0)
    fake_hub.multipart, fake_hub.faults = 500, [Fault("part", "status", times=1000, after=5)]
    hub_keeper.together = 500
    with pytest.raises(HubUnreachable):
        hub_keeper.back_up(HOST, str(base), nothing, never)
    book, = tmp_path.glob("receipts/parts-*.json")
    assert book.stat().st_mode & 0o777 == 0o600 and fake_hub.token not in book.read_text()
    fake_hub.faults, sent = [], len(fake_hub.routes("part"))
    if old:  # the storage has forgotten them
        fake_hub.uploads.clear()
    assert not hub_keeper.back_up(HOST, str(base), nothing, never).failed
    assert hub_keeper.unproven(HOST, str(base)) == [] and not list(tmp_path.glob("receipts/parts-*"))
    numbers = [int(path.rsplit("/", 1)[1].split("?")[0]) for _, _, path, _ in fake_hub.routes("part")[sent:]]
    assert numbers[0] == 6 and (1 in numbers) == old


@pytest.mark.parametrize("route", ["create", "preupload", "batch", "put", "commit", "tree", "resolve_head", "get"])
@pytest.mark.parametrize("how", ["status", "cut"])
def test_a_lasting_fault_never_ends_in_safe(tmp_path: Path, hub_keeper: HubSafekeeper, fake_hub: FakeHub,
                                            never: threading.Event, route: str, how: str) -> None:
    base = tmp_path / "one" / "nanochat"
    add_checkpoint(base, ranks=0)
    fake_hub.faults = [Fault(route, how, times=1000)]
    with pytest.raises(HubUnreachable):
        hub_keeper.back_up(HOST, str(base), nothing, never)
    fake_hub.faults = []
    assert len(hub_keeper.unproven(HOST, str(base))) == 1
    assert not hub_keeper.back_up(HOST, str(base), nothing, never).failed
    assert hub_keeper.unproven(HOST, str(base)) == []
    assert len(fake_hub.repos["me/run7"].commits) == 2


@pytest.mark.parametrize("lie", ["garbage", "flip", "truncate", "missing", "sizes", "headers"])
def test_the_liar_never_opens_the_gate(tmp_path: Path, hub_keeper: HubSafekeeper, fake_hub: FakeHub,
                                       never: threading.Event, lie: str) -> None:
    base = tmp_path / "one" / "nanochat"
    add_checkpoint(base)
    fake_hub.lie = lie
    done = hub_keeper.back_up(HOST, str(base), nothing, never)
    assert len(fake_hub.repos["me/run7"].commits) >= 2  # every answer was yes
    assert not done.receipts and "not what was sent" in done.failed[0].reason
    assert len(hub_keeper.unproven(HOST, str(base))) == 1
    fake_hub.lie = None
    if lie != "garbage":  # it has the bytes after all: a new path, a new proof
        assert not hub_keeper.back_up(HOST, str(base), nothing, never).failed
        assert hub_keeper.unproven(HOST, str(base)) == []


def test_a_copy_that_rots_later_is_found_and_shuts_the_gate(kept_base: Path, hub_keeper: HubSafekeeper,
                                                            fake_hub: FakeHub, never: threading.Event) -> None:
    hub_keeper.back_up(HOST, str(kept_base), nothing, never)
    (kept,) = [k for k in hub_keeper.receipts.all() if k.place.endswith("000300")]
    fake_hub.lie = "flip"
    with pytest.raises(DamagedCopy):
        hub_keeper.prove(kept, nothing, never)
    assert [loss.checkpoint.step for loss in hub_keeper.unproven(HOST, str(kept_base))] == [300]


def test_the_gate_needs_an_answer(kept_base: Path, hub_keeper: HubSafekeeper, fake_hub: FakeHub,
                                  never: threading.Event) -> None:
    hub_keeper.back_up(HOST, str(kept_base), nothing, never)
    fake_hub.faults = [Fault("tree", "status", 1000)]
    with pytest.raises(HubUnreachable):
        hub_keeper.unproven(HOST, str(kept_base))
    fake_hub.faults = []
    fake_hub.repos.pop("me/run7")
    assert {loss.checkpoint.step for loss in hub_keeper.unproven(HOST, str(kept_base))} == {300, 50}


def test_a_wrong_token_is_told_at_once(kept_base: Path, fake_hub: FakeHub, tmp_path: Path,
                                       never: threading.Event) -> None:
    keeper = HubSafekeeper("me/run7", tmp_path / "r", endpoint=fake_hub.endpoint, token="wrong", settle=0)
    with pytest.raises(TokenRefused):
        keeper.back_up(HOST, str(kept_base), nothing, never)
    fake_hub.can_write = False
    reader = HubSafekeeper("me/run7", tmp_path / "r", endpoint=fake_hub.endpoint, token=fake_hub.token, settle=0)
    with pytest.raises(TokenRefused):
        reader.back_up(HOST, str(kept_base), nothing, never)
    assert not fake_hub.routes("put")


def test_a_damaged_original_is_never_committed(kept_base: Path, hub_keeper: HubSafekeeper, fake_hub: FakeHub,
                                               never: threading.Event) -> None:
    model = kept_base / "base_checkpoints" / "d4" / "model_000300.pt"
    data = bytearray(model.read_bytes())
    data[700] ^= 4
    model.write_bytes(bytes(data))
    done = hub_keeper.back_up(HOST, str(kept_base), nothing, never)
    assert [(loss.checkpoint.step, "damaged" in loss.reason) for loss in done.failed] == [(300, True)]
    assert not any("000300" in path for path in fake_hub.head("me/run7").files)


def test_another_machine_gets_signed_urls_and_never_the_token(
        tmp_path: Path, hub_keeper: HubSafekeeper, fake_hub: FakeHub, never: threading.Event,
        monkeypatch: pytest.MonkeyPatch) -> None:
    base = tmp_path / "far" / "nanochat"
    add_checkpoint(base, ranks=1, size=6 << 20)
    sent: list[bytes] = []
    far = Box.__init__

    def as_far(self: Box, *args: object, **kwargs: object) -> None:
        far(self, *args, **kwargs)  # type: ignore[arg-type]
        self.here = not isinstance(self.host, Far)

    class Far(LocalHost):
        def run_script(self, script, argv, *, stdin=b"", timeout=60.0):  # type: ignore[no-untyped-def]
            sent.append(" ".join(argv).encode() + stdin)
            return super().run_script(script, argv, stdin=stdin, timeout=timeout)

    monkeypatch.setattr(Box, "__init__", as_far)
    monkeypatch.delenv("HF_TOKEN")
    done = hub_keeper.back_up(Far(), str(base), nothing, never)
    assert not done.failed and hub_keeper.unproven(Far(), str(base)) == []
    assert any(b'"pieces"' in text for text in sent) and not any(fake_hub.token.encode() in text for text in sent)
    assert contents(base).keys() == {p.replace("//", "/") for p in contents(base)}
    assert not list(base.glob("transfer-*"))


KILLED = """
import sys, threading
from pathlib import Path
from remote.backup.hub import HubSafekeeper
from remote.local import LocalHost
print("up", flush=True)
HubSafekeeper("me/run7", Path(sys.argv[2]), settle=0).back_up(LocalHost(), sys.argv[1], lambda t: None,
                                                              threading.Event())
"""


def test_killed_at_any_point_nothing_half_counts_and_nothing_is_sent_twice(
        tmp_path: Path, fake_hub: FakeHub, never: threading.Event) -> None:
    """As many points as LLMCONSOLE_KILL_POINTS says; each is some milliseconds into the work."""
    points, chance = int(os.environ.get("LLMCONSOLE_KILL_POINTS", "4")), random.Random(4)
    base = tmp_path / "one" / "nanochat"
    add_checkpoint(base)
    for point in range(points):
        receipts = tmp_path / f"kill-{point}"
        fake_hub.repos.clear()
        shutil.rmtree(fake_hub.objects)
        fake_hub.objects.mkdir()
        child = subprocess.Popen([sys.executable, "-c", KILLED, str(base), str(receipts)], stdout=subprocess.PIPE,
                                 cwd=Path(__file__).parents[2])
        assert child.stdout is not None
        child.stdout.readline()
        time.sleep(chance.uniform(0, 0.2))
        child.send_signal(signal.SIGKILL)
        child.wait()
        child.stdout.close()
        keeper = HubSafekeeper("me/run7", receipts, settle=0)
        for kept in keeper.receipts.all():
            keeper.prove(kept, nothing, never)
        held = {path.name for path in fake_hub.objects.iterdir() if "." not in path.name}
        fake_hub.log.clear()
        assert not keeper.back_up(HOST, str(base), nothing, never).failed
        assert keeper.unproven(HOST, str(base)) == []
        sent = {row[2].split("/")[3].partition("?")[0] for row in fake_hub.routes("put")}
        assert not sent & held
        assert len(fake_hub.repos["me/run7"].commits) == 2


def test_a_long_listing_is_read_to_its_end(kept_base: Path, hub_keeper: HubSafekeeper, fake_hub: FakeHub,
                                           never: threading.Event) -> None:
    fake_hub.page = 2
    assert not hub_keeper.back_up(HOST, str(kept_base), nothing, never).failed
    assert hub_keeper.unproven(HOST, str(kept_base)) == []


def test_errors_are_ours(tmp_path: Path) -> None:
    keeper = HubSafekeeper("me/run7", tmp_path / "r", endpoint="http://127.0.0.1:9", token="t", attempts=2, pause=0.01)
    add_checkpoint(tmp_path / "b" / "nanochat")
    with pytest.raises(RemoteError, match="no answer from the Hub"):
        keeper.back_up(HOST, str(tmp_path / "b" / "nanochat"), nothing, threading.Event())
