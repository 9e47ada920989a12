"""Other machines, measured side by side: downloads beside scp over a slow link, following beside tail, cuts, deadlines.

    python tests/bench/bench_remote.py download [--mb 200] [--rtt 0.05]
    python tests/bench/bench_remote.py tail     [--lines 1500000]
    python tests/bench/bench_remote.py catchup  [--lines 1000000]
    python tests/bench/bench_remote.py replay   [--seconds 60] [--cut 1 20]
    python tests/bench/bench_remote.py frozen   [--rounds 5]
    python tests/bench/bench_remote.py deadline [--lives 1000] [--faults 0.05]

Each needs OpenSSH's server on this machine (`deadline` does not) and uses loopback only. Peers run in the same run, in
turn. The exit code says whether the goal was met where there is one.
"""

from __future__ import annotations

import argparse
import hashlib
import multiprocessing
import os
import queue
import random
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[2]), str(Path(__file__).parents[1] / "remote")]

import conftest as bench  # noqa: E402 - the server and the relay that the tests use

from remote.fake_runpod.cloud import FakeCloud  # noqa: E402
from remote.fake_runpod.server import FakeRunPod  # noqa: E402

LINE = ("step {0:05d}/99999 (2.34%) | loss: 3.712345 | lrm: 1.00 | dt: 487.12ms | tok/sec: 1,076,301 | mfu: 47.50 | "
        "total time: 3.97m\n")


def slow_relay(to: int, rtt: float, told: multiprocessing.connection.Connection) -> None:
    """A TCP relay that delays every byte by half the round trip, in a process of its own."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=64)
    told.send(listener.getsockname()[1])

    def carry(source: socket.socket, sink: socket.socket) -> None:
        held: queue.Queue[tuple[float, bytes]] = queue.Queue(maxsize=4096)

        def deliver() -> None:
            while True:
                due, data = held.get()
                time.sleep(max(due - time.monotonic(), 0))
                if not data:
                    sink.shutdown(socket.SHUT_WR)
                    return
                sink.sendall(data)

        threading.Thread(target=deliver, daemon=True).start()
        try:
            while data := source.recv(1 << 18):
                held.put((time.monotonic() + rtt / 2, data))
        except OSError:
            pass
        held.put((time.monotonic(), b""))

    while True:
        near, _ = listener.accept()
        far = socket.create_connection(("127.0.0.1", to))
        for end in (near, far):
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for pair in ((near, far), (far, near)):
            threading.Thread(target=carry, args=pair, daemon=True).start()


def rate(work: Callable[[], object], size: float) -> float:
    begun = time.monotonic()
    work()
    return size / (time.monotonic() - begun)


def download(args: argparse.Namespace, folder: Path, box: bench.Box) -> bool:
    """Goal: at least five times scp at 50 ms, and the bytes are the same."""
    source = folder / "source.bin"
    with open(source, "wb") as f:
        for _ in range(args.mb):
            f.write(os.urandom(1_000_000))
    here, there = multiprocessing.Pipe()
    relay = multiprocessing.Process(target=slow_relay, args=(box.port, args.rtt, there), daemon=True)
    relay.start()
    port = here.recv()
    host = box.host(port)
    known = folder / "scp_hosts"
    known.write_text(f"box {box.host_key}\n")
    words = ["scp", "-q", "-P", str(port), "-i", str(box.key), "-o", f"UserKnownHostsFile={known}", "-o",
             "HostKeyAlias=box", f"127.0.0.1:{source}", str(folder / "by_scp")]
    host.connect()
    ours, scp = [], []
    for _ in range(args.rounds):
        (folder / "ours").unlink(missing_ok=True)
        ours.append(rate(lambda: host.get(str(source), folder / "ours"), args.mb))
        scp.append(rate(lambda: subprocess.run(words, check=True), args.mb))
        print(f"ours {ours[-1]:7.1f} MB/s   scp {scp[-1]:7.1f} MB/s   ratio {ours[-1] / scp[-1]:.2f}", flush=True)
    same = (folder / "ours").read_bytes() == source.read_bytes()
    relay.kill()
    host.close()
    print(f"median ratio {sorted(a / b for a, b in zip(ours, scp, strict=True))[args.rounds // 2]:.2f} at "
          f"{1000 * args.rtt:.0f} ms, bytes {'the same' if same else 'DIFFERENT'}")
    return same and (args.rtt < 0.05 or max(ours) >= 5 * max(scp))


def tail(args: argparse.Namespace, folder: Path, box: bench.Box) -> bool:
    """Goal: two million lines a second from disk."""
    path = folder / "log"
    path.write_text("".join(LINE.format(n) for n in range(args.lines)))
    host, size = box.host(), path.stat().st_size

    def ours() -> None:
        stop, seen, lines = threading.Event(), 0, 0
        for piece in host.follow(str(path), 0, stop):
            seen += len(piece)
            lines += piece.count(b"\n")
            if seen == size:
                stop.set()
        assert lines == args.lines

    words = [*host.shell_argv(["cat", str(path)])]
    words.remove("-t")
    for _ in range(args.rounds):
        mine = rate(ours, args.lines)
        plain = rate(lambda: subprocess.run(words, stdout=subprocess.DEVNULL, check=True), args.lines)
        print(f"follow {mine / 1e6:.2f} M lines/s   ssh cat {plain / 1e6:.2f} M lines/s   ratio {mine / plain:.2f}",
              flush=True)
    host.close()
    return mine >= 2e6


def catchup(args: argparse.Namespace, folder: Path, box: bench.Box) -> bool:
    """Goal: a million lines that were written while nobody looked are here within 15 s."""
    path = folder / "events.jsonl"
    with open(path, "w") as f:
        for n in range(args.lines):
            f.write(f'{{"v":1,"seq":{n},"t":1.0,"mono":1.0,"run":"r","attempt":1,"stage":"base_train","kind":"metric",'
                    f'"step":{n},"data":{{"loss":3.1,"dt":0.4,"tok_per_sec":1000000}}}}\n')
    host, size, stop, seen = box.host(), path.stat().st_size, threading.Event(), 0
    begun = time.monotonic()
    for piece in host.follow(str(path), 0, stop):
        seen += len(piece)
        if seen == size:
            stop.set()
    took = time.monotonic() - begun
    host.close()
    print(f"{args.lines:,} lines, {size / 1e6:.0f} MB, in {took:.2f} s (goal 15 s)")
    return took <= 15


def replay(args: argparse.Namespace, folder: Path, box: bench.Box) -> bool:
    """Goal: byte for byte the same through a relay that cuts."""
    relay = bench.Relay(box.port)
    host, stop, dice = box.host(relay.port), threading.Event(), random.Random(1)
    path, seen, written = folder / "log", hashlib.sha256(), hashlib.sha256()
    done, cuts, ended = [0, 0], 0, threading.Event()

    def write() -> None:
        with open(path, "ab", buffering=0) as f:
            until, number = time.monotonic() + args.seconds, 0
            while time.monotonic() < until:
                data = "".join(LINE.format(number + n) for n in range(200)).encode()
                f.write(data)
                written.update(data)
                done[0] += len(data)
                number += 200
                time.sleep(0.005)
        ended.set()
        while done[0] != done[1]:  # what is still on its way
            time.sleep(0.05)
        stop.set()

    def cut() -> None:
        nonlocal cuts
        while not ended.wait(dice.uniform(*args.cut)):
            relay.cut()
            cuts += 1

    threads = [threading.Thread(target=work) for work in (write, cut)]
    for thread in threads:
        thread.start()
    for piece in host.follow(str(path), 0, stop):
        seen.update(piece)
        done[1] += len(piece)
    for thread in threads:
        thread.join()
    host.close()
    relay.close()
    same = seen.digest() == written.digest()
    print(f"{done[0] / 1e6:.1f} MB through {cuts} cuts: {'byte-identical' if same else 'DIFFERENT'}")
    return same


def frozen(args: argparse.Namespace, folder: Path, box: bench.Box) -> bool:
    """Goal: a peer that stops answering is noticed within 15 s, with the settings that are shipped."""
    worst = 0.0
    for _ in range(args.rounds):
        relay = bench.Relay(box.port)
        host = box.host(relay.port)
        session = host.start(["sleep", "600"])
        relay.frozen.set()
        begun = time.monotonic()
        try:
            session.recv()
        except Exception as error:  # noqa: BLE001 - only the time counts here
            print(f"noticed after {time.monotonic() - begun:.1f} s: {error}", flush=True)
        worst = max(worst, time.monotonic() - begun)
        relay.frozen.clear()
        host.close()
        relay.close()
    return worst <= 15


def deadline(args: argparse.Namespace, folder: Path, box: bench.Box | None) -> bool:
    """Goal: no pod that outlives its deadline by five minutes (here: by 5 of its looks), whatever the API does."""
    from remote.runpod.deadline import start_command

    dice, cloud = random.Random(2), FakeCloud(placing_s=0, pulling_s=0, balance=1e9, spend_limit=1e9)
    start = folder / "start.sh"
    start.write_text("#!/bin/sh\nwhile :; do sleep 60; done\n")
    start.chmod(0o755)
    late: list[float] = []
    with FakeRunPod(cloud) as server:
        for begun in range(0, args.lives, args.at_once):
            processes, lives = [], []
            for _ in range(min(args.at_once, args.lives - begun)):
                due = time.time() + dice.uniform(1, 4)
                body = {"name": "x", "image": "i", "gpu": {"id": "NVIDIA GeForce RTX 4090", "count": 1}}
                life = cloud.create(body)
                for fault in ("terminate_fails", "terminate_ignored"):
                    if dice.random() < args.faults:
                        cloud.plan(fault)
                lives.append((life, due))
                processes.append(subprocess.Popen(
                    start_command(due, api=server.base, every_s=1.0), start_new_session=True,
                    stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env={
                        "PATH": os.environ["PATH"], "RUNPOD_POD_ID": life.id, "RUNPOD_API_KEY": life.key,
                        "POD_START_PROGRAM": str(start), "HOME": str(folder)}))
            limit = time.monotonic() + 60
            while any(life.ended is None for life, _ in lives) and time.monotonic() < limit:
                time.sleep(0.05)
            for process in processes:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
            late += [(life.ended or 1e12) - due for life, due in lives]
    print(f"{args.lives} lives, {args.faults:.0%} faults: none left {sum(each > 1e9 for each in late) == 0}, latest "
          f"{max(late):.1f} s after its deadline, earliest {min(late):.1f} s, with a look every second")
    return max(late) <= 10 and min(late) > -1.5


def main() -> int:
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("what", choices=["download", "tail", "catchup", "replay", "frozen", "deadline"])
    words.add_argument("--mb", type=int, default=200)
    words.add_argument("--rtt", type=float, default=0.05)
    words.add_argument("--rounds", type=int, default=3)
    words.add_argument("--lines", type=int, default=1_000_000)
    words.add_argument("--seconds", type=float, default=60)
    words.add_argument("--cut", type=float, nargs=2, default=(1, 20))
    words.add_argument("--lives", type=int, default=1000)
    words.add_argument("--at-once", type=int, default=50)
    words.add_argument("--faults", type=float, default=0.05)
    args = words.parse_args()
    with tempfile.TemporaryDirectory(prefix="bench-remote-") as name:
        folder = Path(name)
        box = None if args.what == "deadline" else bench.start_sshd(folder / "sshd")
        try:
            return 0 if globals()[args.what](args, folder, box) else 1
        finally:
            if box is not None:
                box.process.terminate()


if __name__ == "__main__":
    sys.exit(main())
