"""The box's side of a job: start a command exactly once per attempt, detached, and say later what became of it.

    python job_runner.py launch FOLDER ATTEMPT   < {"argv": [...], "env": {...}, "cwd": "..."}
    python job_runner.py state  FOLDER
    python job_runner.py stop   FOLDER GRACE_SECONDS

Each prints one JSON line: {"state": "absent" | "running" | "exited" | "lost", "attempt", "pid", "code", "signal",
"started", "ended", "stopping"}, and `launch` adds "launched". A self-contained file for any Python from 3.9 on with
nothing installed; it is sent to machines that have nothing else of ours. It knows nothing of what the command does.

A keeper process stands between: it is the command's parent, outlives whoever launched it, and writes the exit record.
Its identity (pid, start time, boot) is on disk before the command is started, so no crash at any instant can lead to a
second start of the same attempt. No state is stored: it follows from identity, exit record and the process table.
"""

from __future__ import annotations

import ctypes
import fcntl
import json
import os
import re
import signal
import subprocess
import sys
import time
import traceback
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

EXIT_NO_COMMAND = 127       # as a shell says it
_RECORD_BYTES = 512         # room reserved for the exit record, so that a full disk cannot lose it
_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36


def main(argv: list[str]) -> int:
    verb, folder = argv[0], Path(argv[1]).absolute()
    if verb == "launch":
        reply = launch(folder, int(argv[2]), json.load(sys.stdin))
    elif verb == "stop":
        reply = stop(folder, float(argv[2]))
    else:
        reply = state(folder)
    print(json.dumps(reply), flush=True)
    return 0


# State: what the files and the process table say together.


def state(folder: Path) -> dict[str, Any]:
    """What became of the newest attempt in this folder."""
    numbers = [int(found[1]) for name in _names(folder) if (found := re.fullmatch(r"identity\.(\d+)\.json", name))]
    return attempt_state(folder, max(numbers)) if numbers else {"state": "absent", "attempt": None}


def attempt_state(folder: Path, attempt: int) -> dict[str, Any]:
    identity = _load(folder / f"identity.{attempt}.json")
    if identity is None:
        return {"state": "absent", "attempt": attempt}
    alive = is_alive(identity)
    record = _load(folder / f"exit.{attempt}.json")  # read after the look at the process: its last deed is to write it
    base = {"attempt": attempt, "pid": identity["pid"], "started": identity["started"],
            "stopping": (folder / f"stop.{attempt}.json").exists()}
    if record is not None:
        return {**base, "state": "exited", **record}
    return {**base, "state": "running" if alive else "lost"}


def is_alive(identity: dict[str, Any]) -> bool:
    """Whether that very process still runs: same boot, same start time, and not a zombie."""
    start = process_start(identity["pid"])
    return start is not None and start == identity["start"] and boot_id() == identity["boot"]


def process_start(pid: int) -> str | None:
    """A text that differs between a process and a later one with its number; None when it is dead or a zombie."""
    if Path("/proc/self/stat").exists():
        try:
            fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            return None
        return None if fields[0] in (b"Z", b"X") else fields[19].decode()  # field 22: ticks since boot
    words = _output("ps", "-o", "stat=,lstart=", "-p", str(pid)).split(None, 1)
    return None if len(words) < 2 or words[0].startswith("Z") else words[1].strip()


def boot_id() -> str:
    """A text that changes when the machine restarts."""
    kernel = Path("/proc/sys/kernel/random/boot_id")
    return kernel.read_text().strip() if kernel.exists() else _output("sysctl", "-n", "kern.bootsessionuuid").strip()


def _output(*argv: str) -> str:
    environment = {**os.environ, "LC_ALL": "C", "TZ": "UTC"}
    return subprocess.run(argv, capture_output=True, text=True, check=False, env=environment).stdout


# Launch: one keeper per attempt, whoever asks and however often.


def launch(folder: Path, attempt: int, request: dict[str, Any]) -> dict[str, Any]:
    """Start the command unless this attempt was started before, or another one lives or is newer; then say which."""
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / "launch.lock", "ab") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # the keeper inherits it: free only once its identity is on disk
        known = state(folder)
        if known["state"] == "running" or (known["attempt"] or 0) >= attempt:
            return {**known, "launched": False}
        _sweep(folder)
        heard, said = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(heard)
            _become_keeper(folder, attempt, request, lock.fileno(), said)
    os.close(said)
    with open(heard, "rb") as pipe:
        durable = pipe.read() == b"1"  # empty: the keeper died before its identity was on disk
    os.waitpid(child, 0)
    return {**attempt_state(folder, attempt), "launched": durable}


def _become_keeper(folder: Path, attempt: int, request: dict[str, Any], lock: int, said: int) -> NoReturn:
    """In a fork of the launcher: leave its session, fork again, and never return."""
    try:
        os.setsid()
        if os.fork():
            os._exit(0)
        _detach(folder / f"output.{attempt}.log", keep=(lock, said))
        keep(folder, attempt, request, lock, said)
    except BaseException:  # noqa: BLE001 - a fork must not return into its launcher, whatever happens
        traceback.print_exc()  # to the attempt's own log
        os._exit(1)


def _detach(log: Path, keep: tuple[int, ...]) -> None:
    """Null for stdin, the attempt's log for the rest, no hang-up, and no descriptor of the launcher's but `keep`."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    os.chdir("/")
    null, out = os.open(os.devnull, os.O_RDONLY), os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    for source, target in ((null, 0), (out, 1), (out, 2)):
        os.dup2(source, target)
    for fd in [int(name) for name in _names(Path("/dev/fd"))]:
        if fd > 2 and fd not in keep:
            with suppress(OSError):  # the one that listed the folder is closed by now
                os.close(fd)


def _sweep(folder: Path) -> None:
    """Remove what crashed writers left; nobody writes here now, since no attempt lives and we hold the lock."""
    for path in folder.glob(".*.tmp"):
        path.unlink()


# The keeper.


def keep(folder: Path, attempt: int, request: dict[str, Any], lock: int, said: int) -> NoReturn:
    """Make this attempt's identity durable, tell the launcher, run the command, write its exit record."""
    reserved = _reserve(folder / f".exit.{attempt}.tmp")
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})  # until someone can act on it
    write_durably(folder / f"identity.{attempt}.json", {
        "attempt": attempt, "pid": os.getpid(), "start": process_start(os.getpid()), "boot": boot_id(),
        "host": os.uname().nodename, "started": time.time(), "argv": request["argv"]})
    with suppress(BrokenPipeError):  # the launcher is dead; its request is on disk all the same
        os.write(said, b"1")
    os.close(said)
    os.close(lock)
    if sys.platform == "linux":  # orphans of the command become ours, so that a kill finds them
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1)
    command = _start(request, folder)
    guard = _Guard(folder / f"stop.{attempt}.json", command)
    guard.arm()
    ended = _wait_for(command)
    guard.disarm()
    _write_exit(reserved, folder / f"exit.{attempt}.json", ended)
    os._exit(0)


class _Guard:
    """Carries out a stop request: SIGTERM to the command's group, and SIGKILL to all below us when grace is over."""

    def __init__(self, request: Path, command: int) -> None:
        self._request, self._command = request, command

    def arm(self) -> None:
        signal.signal(signal.SIGALRM, self._kill)
        signal.signal(signal.SIGTERM, self._asked)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})

    def disarm(self) -> None:
        signal.setitimer(signal.ITIMER_REAL, 0)
        for number in (signal.SIGTERM, signal.SIGALRM):
            signal.signal(number, signal.SIG_IGN)

    def _asked(self, *_: object) -> None:
        request = _load(self._request)
        if request is None:  # a SIGTERM that nobody recorded, as at a shutdown: the command may save, without a limit
            os.killpg(self._command, signal.SIGTERM)
            return
        if request["grace_s"] > 0:
            os.killpg(self._command, signal.SIGTERM)
        signal.setitimer(signal.ITIMER_REAL, max(request["grace_s"], 0.001), 0.5)

    def _kill(self, *_: object) -> None:
        for pid in descendants(os.getpid()):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def _start(request: dict[str, Any], folder: Path) -> int:
    """Fork the command into a process group of its own; returns its pid, which stays ours until we reap it."""
    keeper = os.getpid()
    child = os.fork()
    if child == 0:
        try:
            os.setpgid(0, 0)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
            if sys.platform == "linux":
                ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
                if os.getppid() != keeper:
                    os._exit(EXIT_NO_COMMAND)
            os.chdir(request.get("cwd") or folder)
            os.execvpe(request["argv"][0], request["argv"], {**os.environ, **(request.get("env") or {})})
        except OSError as error:
            print(f"{request['argv'][0]}: {error}", file=sys.stderr, flush=True)
        os._exit(EXIT_NO_COMMAND)
    with suppress(PermissionError, ProcessLookupError):  # it did so itself and went on, or has ended
        os.setpgid(child, child)  # by both sides, so that the group exists before anyone signals it
    return child


def _wait_for(command: int) -> dict[str, Any]:
    """Reap whatever ends below us until the command itself has; its exit code or signal."""
    while True:
        pid, status = os.waitpid(-1, 0)
        if pid == command:
            code = os.waitstatus_to_exitcode(status)
            return {"code": code if code >= 0 else None, "signal": -code if code < 0 else None, "ended": time.time()}


def descendants(root: int) -> list[int]:
    """Every process below `root`, parents first."""
    children: dict[int, list[int]] = {}
    for pid, parent in _process_table():
        children.setdefault(parent, []).append(pid)
    found, todo = [], [root]
    while todo:
        below = children.get(todo.pop(0), [])
        found += below
        todo += below
    return found


def _process_table() -> list[tuple[int, int]]:
    """(pid, parent) of every process."""
    if not Path("/proc/self/stat").exists():
        rows = (line.split() for line in _output("ps", "-axo", "pid=,ppid=").splitlines())
        return [(int(pid), int(parent)) for pid, parent in rows]
    return [(int(name), parent) for name in _names(Path("/proc")) if name.isdigit() and (parent := _parent(name))]


def _parent(pid: str) -> int:
    try:
        return int(Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[1])
    except (FileNotFoundError, ProcessLookupError):
        return 0


# Stop.


def stop(folder: Path, grace_s: float) -> dict[str, Any]:
    """Ask the living attempt to end: SIGTERM now, SIGKILL after `grace_s` seconds. The request survives us."""
    known = state(folder)
    if known["state"] != "running":
        return known
    attempt = known["attempt"]
    write_durably(folder / f"stop.{attempt}.json", {"grace_s": grace_s, "asked": time.time()})
    identity = _load(folder / f"identity.{attempt}.json")
    if identity is not None:
        _signal(identity, signal.SIGTERM)
    return attempt_state(folder, attempt)


def _signal(identity: dict[str, Any], number: int) -> None:
    """Signal that very process, never a later one with its number."""
    try:
        if not hasattr(os, "pidfd_open"):
            if is_alive(identity):
                os.kill(identity["pid"], number)
            return
        handle = os.pidfd_open(identity["pid"])
        try:
            if is_alive(identity):
                signal.pidfd_send_signal(handle, number)
        finally:
            os.close(handle)
    except ProcessLookupError:
        return


# Files that are there whole or not at all, a power cut included.


def write_durably(path: Path, body: dict[str, Any]) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with open(temporary, "wb") as f:
        f.write(json.dumps(body).encode() + b"\n")
        f.flush()
        os.fsync(f.fileno())
    _rename(temporary, path)


def _reserve(path: Path) -> Path:
    """Take the disk space of the exit record now."""
    with open(path, "wb") as f:
        f.write(b" " * _RECORD_BYTES)
        f.flush()
        os.fsync(f.fileno())
    return path


def _write_exit(reserved: Path, path: Path, body: dict[str, Any]) -> None:
    with open(reserved, "r+b") as f:
        f.write(json.dumps(body).encode().ljust(_RECORD_BYTES - 1) + b"\n")
        f.flush()
        os.fsync(f.fileno())
    _rename(reserved, path)


def _rename(source: Path, target: Path) -> None:
    os.replace(source, target)
    folder = os.open(target.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _load(path: Path) -> dict[str, Any] | None:
    try:
        return json.loads(path.read_bytes())
    except FileNotFoundError:
        return None


def _names(folder: Path) -> list[str]:
    try:
        return [entry.name for entry in folder.iterdir()]
    except FileNotFoundError:
        return []


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
