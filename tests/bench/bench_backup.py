"""How fast checkpoints are backed up, proven and restored on loopback, beside what the machine can do at all.

    python tests/bench/bench_backup.py [--megabytes 512] [--repeats 3]

Prints ratios; each is taken from runs that take turns. The Hub is a process of its own. The restore goes through a
relay that delays both directions by half of 50 ms and lets each connection have 1 MiB in flight, as TCP would far away.
"""

from __future__ import annotations

import argparse
import hashlib
import http.client
import json
import os
import resource
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.parse
from collections import deque
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "safekeeping")]

from checkpoint_world import add_tokenizer  # noqa: E402

from remote.backup.box import Box  # noqa: E402
from remote.backup.checkpoint_files import inventory  # noqa: E402
from remote.backup.hub import HubSafekeeper  # noqa: E402
from remote.backup.manifest import of_checkpoint  # noqa: E402
from remote.backup.restore import read_manifest, restore  # noqa: E402
from remote.backup.sources import HubSource  # noqa: E402
from remote.local import LocalHost  # noqa: E402

RTT_S, WINDOW = 0.05, 1 << 20


def checkpoint(base: Path, megabytes: int, seed: int) -> None:
    """Model and optimizer state of incompressible bytes in two stored zips, with our manifest."""
    import zipfile

    folder = base / "base_checkpoints" / "d20"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    block = hashlib.shake_256(str(seed).encode()).digest(1 << 20)
    for name, share in (("model_000300.pt", 0.4), ("optim_000300_rank0.pt", 0.6)):
        with zipfile.ZipFile(folder / name, "w", zipfile.ZIP_STORED) as archive, \
                archive.open("archive/data/0", "w", force_zip64=True) as entry:
            for number in range(int(megabytes * share)):
                entry.write(number.to_bytes(8, "little") + block[8:])
    (folder / "meta_000300.json").write_text(json.dumps({"model_config": {"n_layer": 20}}))
    files = {path.name: {"bytes": path.stat().st_size, "sha256": sha256(path)} for path in sorted(folder.iterdir())}
    (folder / "manifest_000300.json").write_text(json.dumps({"v": 1, "step": 300, "source": "base", "files": files,
                                                             "tokenizer_sha256": "", "created": 1.0}))
    add_tokenizer(base)
    for path in base.rglob("*"):
        os.utime(path, (1_700_000_000, 1_700_000_000))


def sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as f:
        while chunk := f.read(4 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def timed(work: object) -> float:
    begin = time.perf_counter()
    work()  # type: ignore[operator]
    return time.perf_counter() - begin


def plain_put(endpoint: str, path: Path) -> None:
    """One file by one PUT, nothing hashed."""
    parts = urllib.parse.urlsplit(endpoint)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port)
    connection.putrequest("PUT", f"/storage/put/{hashlib.sha256(os.urandom(8)).hexdigest()}")
    connection.putheader("Content-Length", str(path.stat().st_size))
    connection.endheaders()
    with open(path, "rb") as f:
        while chunk := f.read(4 << 20):
            connection.sock.sendall(chunk)
    connection.getresponse().read()
    connection.close()


def plain_get(endpoint: str, sha: str, target: Path) -> None:
    """One file by one GET to the disk, as any downloader does it; nothing hashed."""
    parts = urllib.parse.urlsplit(endpoint)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port)
    connection.request("GET", f"/storage/get/{sha}")
    reply = connection.getresponse()
    with open(target, "wb") as f:
        shutil.copyfileobj(reply, f, 1 << 20)
    connection.close()


class Relay:
    """Forwards connections to a port with a delay, at most WINDOW bytes of each under way."""

    def __init__(self, port: int) -> None:
        self._target = port
        self._server = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.port = self._server.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            near, _ = self._server.accept()
            far = socket.create_connection(("127.0.0.1", self._target))
            for source, sink in ((near, far), (far, near)):
                source.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                threading.Thread(target=self._pump, args=(source, sink), daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket) -> None:
        waiting: deque[tuple[float, bytes]] = deque()
        ready, flying = threading.Condition(), [0]

        def deliver() -> None:
            while True:
                with ready:
                    while not waiting:
                        ready.wait()
                    at, data = waiting.popleft()
                time.sleep(max(at - time.monotonic(), 0))
                if not data:
                    sink.close()
                    return
                try:
                    sink.sendall(data)
                except OSError:
                    source.close()
                    return
                threading.Timer(RTT_S / 2, landed, (len(data),)).start()

        def landed(count: int) -> None:
            with ready:
                flying[0] -= count
                ready.notify_all()

        threading.Thread(target=deliver, daemon=True).start()
        while True:
            try:
                data = source.recv(WINDOW // 4)
            except OSError:
                data = b""
            with ready:
                while data and flying[0] + len(data) > WINDOW:
                    ready.wait()
                flying[0] += len(data)
                waiting.append((time.monotonic() + RTT_S / 2, data))
                ready.notify_all()
            if not data:
                return


def measure(work: Path, megabytes: int, repeats: int, endpoint: str) -> None:
    base = work / "nanochat"
    turns = [measure_once(work, base, megabytes, endpoint, turn) for turn in range(repeats)]
    best = {name: statistics.median(turn[name] for turn in turns) for name in turns[0]}
    size = megabytes * 1.048576
    for name, seconds in best.items():
        print(f"{name:<8}{size / seconds:8.0f} MB/s")
    slower = max(best["sha256"], best["put"])
    print(f"backup / slower of sha256 and PUT: {slower / best['backup']:.2f}   (aim 0.8)")
    print(f"verify L3 / plain download:        {best['get'] / best['prove']:.2f}   (aim 0.8)")


def measure_once(work: Path, base: Path, megabytes: int, endpoint: str, turn: int) -> dict[str, float]:
    """Seconds of each way to move one checkpoint."""
    checkpoint(base, megabytes, turn)
    files = [base / "base_checkpoints" / "d20" / name for name in ("model_000300.pt", "optim_000300_rank0.pt")]
    shas = [sha256(path) for path in files]
    keeper = HubSafekeeper(f"me/bench{turn}", work / f"receipts{turn}", endpoint=endpoint, token="secret-token")
    box = Box(LocalHost())
    (found,) = inventory(box, str(base)).checkpoints
    keeper._open()
    manifest = of_checkpoint(found, keeper._promised(box, found, lambda t: None), "bench")
    kept = []
    return {
        "sha256": timed(lambda: [sha256(path) for path in files]),
        "put": timed(lambda: [plain_put(endpoint, path) for path in files]),
        "backup": timed(lambda: kept.append(keeper._copy(box, found, manifest, lambda t: None))),
        "get": timed(lambda: [plain_get(endpoint, sha, work / "got") for sha in shas]),
        "prove": timed(lambda: keeper.prove(kept[0], lambda t: None, threading.Event(), box)),
    }


def measure_restore(work: Path, port: int, megabytes: int) -> None:
    """Over the relay: our eight ranges beside one, of the same copy."""
    relay = Relay(port)
    endpoint = f"http://127.0.0.1:{relay.port}"
    base = work / "far" / "nanochat"
    checkpoint(base, megabytes, 99)
    keeper = HubSafekeeper("me/far", work / "receipts-far", endpoint=f"http://127.0.0.1:{port}", token="secret-token")
    keeper.back_up(LocalHost(), str(base), lambda t: None, threading.Event())
    rates = {}
    for streams in (1, 8):
        wire = HubSafekeeper("me/far", work / "r", endpoint=endpoint, token="secret-token").wire()
        source = HubSource(wire, "runs/nanochat/base/d20/000300")
        source.streams = streams
        source._url = lambda path, source=source: _through(relay, source, path)  # type: ignore[method-assign]
        manifest = read_manifest(source)
        seconds = timed(lambda source=source, manifest=manifest, streams=streams: restore(
            source, manifest, work / f"back{streams}", lambda t: None, threading.Event()))
        rates[streams] = megabytes * 1.048576 / seconds
        print(f"restore, {streams} range{'s' if streams > 1 else ' '} at a time: {rates[streams]:6.0f} MB/s at 50 ms")
    print(f"restore, 8 beside 1: {rates[8] / rates[1]:.1f}   (aim 3)")


def _through(relay: Relay, source: HubSource, path: str) -> str:
    """The storage's signed URL, by way of the relay."""
    url = source.wire.file_url(source.commit, source._full(path))
    if source.wire.is_own(url):
        return url
    return urllib.parse.urlsplit(url)._replace(netloc=f"localhost:{relay.port}").geturl()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--megabytes", type=int, default=512)
    parser.add_argument("--repeats", type=int, default=3)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        script = str(ROOT / "tests/safekeeping/fake_hub.py")
        hub = subprocess.Popen([sys.executable, script, "--dir", str(work / "hub")], stdout=subprocess.PIPE, text=True)
        assert hub.stdout is not None
        endpoint = hub.stdout.readline().split()[0].partition("=")[2]
        try:
            measure(work, asked.megabytes, asked.repeats, endpoint)
            measure_restore(work, urllib.parse.urlsplit(endpoint).port or 0, max(asked.megabytes // 8, 32))
        finally:
            hub.terminate()
            hub.wait()
    print(f"memory at its highest: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3:.0f} MB")


if __name__ == "__main__":
    main()
