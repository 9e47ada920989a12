"""Runs a piece of work in a process of its own and kills it, or any process below it, at one chosen system call.

The kernel's tracing interface is used directly: no library, no change to what is traced, and the call that is chosen
does not happen. Only calls that change something outside the process count; they are numbered per process in the order
in which it makes them, threads included, and processes are numbered in the order in which they are made. Linux only.
"""

from __future__ import annotations

import ctypes
import json
import os
import platform
import signal
import struct
import sys
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field

_X86 = {1: "write", 18: "pwrite64", 20: "writev", 26: "msync", 33: "dup2", 40: "sendfile", 44: "sendto", 46: "sendmsg",
        56: "clone", 57: "fork", 58: "vfork", 59: "execve", 61: "wait4",
        62: "kill", 73: "flock", 74: "fsync", 75: "fdatasync", 76: "truncate", 77: "ftruncate", 82: "rename",
        83: "mkdir", 84: "rmdir", 85: "creat", 86: "link", 87: "unlink", 88: "symlink", 90: "chmod", 91: "fchmod",
        109: "setpgid", 112: "setsid", 157: "prctl", 200: "tkill", 231: "exit_group", 234: "tgkill", 257: "openat",
        258: "mkdirat", 263: "unlinkat", 264: "renameat", 285: "fallocate", 292: "dup3", 293: "pipe2",
        296: "pwritev", 316: "renameat2", 424: "pidfd_send_signal", 435: "clone3", 38: "setitimer"}
_ARM = {64: "write", 68: "pwrite64", 66: "writev", 227: "msync", 24: "dup3", 71: "sendfile", 206: "sendto",
        211: "sendmsg", 220: "clone", 221: "execve", 260: "wait4",
        129: "kill", 32: "flock", 82: "fsync", 83: "fdatasync", 45: "truncate", 46: "ftruncate", 34: "mkdirat",
        35: "unlinkat", 37: "linkat", 36: "symlinkat", 52: "fchmod", 53: "fchmodat", 154: "setpgid", 157: "setsid",
        167: "prctl", 130: "tkill", 94: "exit_group", 131: "tgkill", 56: "openat", 38: "renameat", 47: "fallocate",
        59: "pipe2", 70: "pwritev", 276: "renameat2", 424: "pidfd_send_signal", 435: "clone3", 103: "setitimer"}
_CALLS = {"x86_64": _X86, "aarch64": _ARM}.get(platform.machine(), {})

_SEIZE, _INTERRUPT, _SYSCALL, _DETACH, _LISTEN, _INFO = 0x4206, 0x4207, 24, 17, 0x4208, 0x420E
_OPTIONS = 0x1 | 0x2 | 0x4 | 0x8  # system calls are told from signals; forks, vforks and clones are traced too
_EVENT_STOP = 128
_ENTRY = 1
_WALL = 0x40000000
_CREATES = os.O_CREAT | os.O_TRUNC
_libc = ctypes.CDLL(None, use_errno=True)


@dataclass
class Trace:
    """What was seen. `calls[p]` are the names of process p's calls in order; `killed` says whether the point came.

    `code` is how the work itself ended: its exit code, or minus the signal.
    """

    calls: list[list[str]] = field(default_factory=list)
    killed: bool = False
    code: int | None = None

    @property
    def points(self) -> list[tuple[int, int]]:
        return [(process, number) for process, calls in enumerate(self.calls) for number in range(len(calls))]


def allowed() -> bool:
    """Whether this machine lets a process trace its children."""
    if not _CALLS or sys.platform != "linux":
        return False
    return bool(run(lambda: os.mkdir("/nonexistent/x") if os.getpid() == 0 else None).calls)  # noqa: PTH102


def run(work: Callable[[], object], at: tuple[int, int] | None = None, limit_s: float = 180.0) -> Trace:
    """Do `work` in a fork; with `at` = (process, number) that process is killed where it would make that call.

    Returns when the work has ended and either the kill is done or nobody is left; what outlives it is left alone.
    Raises TimeoutError after `limit_s` seconds, with everything that was traced killed.
    """
    heard, said = os.pipe()
    tracer = os.fork()
    if tracer == 0:
        code = 1
        try:
            os.close(heard)
            found = _Tracer(at, limit_s).follow(work)
            os.write(said, json.dumps([found.calls, found.killed, found.code]).encode())
            code = 0
        except BaseException:  # noqa: BLE001 - a fork must not return into its caller's stack
            traceback.print_exc()
        finally:
            os._exit(code)
    os.close(said)
    with open(heard, "rb") as pipe:
        data = pipe.read()
    os.waitpid(tracer, 0)
    if not data:
        raise TimeoutError(f"the work did not end, or could not be traced, at {at}")
    return Trace(*json.loads(data))


class _Tracer:
    def __init__(self, at: tuple[int, int] | None, limit_s: float) -> None:
        self._at = tuple(at) if at else None
        signal.signal(signal.SIGALRM, self._too_late)
        signal.setitimer(signal.ITIMER_REAL, limit_s)
        self._trace = Trace()
        self._process: dict[int, int] = {}  # process id -> its number
        self._threads: dict[int, int] = {}  # every traced thread -> its process id
        self._root = 0

    def follow(self, work: Callable[[], object]) -> Trace:
        go_read, go_write = os.pipe()
        self._root = os.fork()
        if self._root == 0:
            os.close(go_write)
            _child(work, go_read)
        os.close(go_read)
        self._process[self._root], self._threads[self._root] = 0, self._root
        self._trace.calls.append([])
        _ptrace(_SEIZE, self._root, 0, _OPTIONS)
        _ptrace(_INTERRUPT, self._root, 0, 0)
        self._one()  # it stops, and goes on to wait for this:
        os.write(go_write, b"g")
        os.close(go_write)
        while self._threads and not (self._trace.killed and self._trace.code is not None):
            self._one()
        return self._trace

    def _too_late(self, *_: object) -> None:
        for each in set(self._threads.values()):
            with suppress(ProcessLookupError):
                os.kill(each, signal.SIGKILL)
        raise TimeoutError

    def _one(self) -> None:
        pid, status = os.waitpid(-1, _WALL)
        if os.WIFEXITED(status) or os.WIFSIGNALED(status):
            self._threads.pop(pid, None)
            if pid == self._root:
                self._trace.code = os.waitstatus_to_exitcode(status)
            return
        self._stopped(pid, status)

    def _stopped(self, pid: int, status: int) -> None:
        process = self._owner(pid)
        number, event = os.WSTOPSIG(status), status >> 16
        give = 0
        if number == signal.SIGTRAP | 0x80:
            if self._enters(pid, process):
                return
        elif event == _EVENT_STOP and number in (signal.SIGSTOP, signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU):
            _ptrace(_LISTEN, pid, 0, 0, may_fail=True)  # a real stop of the whole process: leave it stopped
            return
        elif event == 0:
            give = number  # a signal of its own
        _ptrace(_DETACH if self._trace.killed else _SYSCALL, pid, 0, give, may_fail=True)
        if self._trace.killed and pid != self._root:
            self._threads.pop(pid, None)

    def _owner(self, pid: int) -> int:
        """The number of the process that a thread belongs to."""
        if pid not in self._threads:
            self._threads[pid] = _process_of(pid)
        owner = self._threads[pid]
        if owner not in self._process:
            self._process[owner] = len(self._process)
            self._trace.calls.append([])
        return self._process[owner]

    def _enters(self, pid: int, process: int) -> bool:
        """Note a call that begins; True when the process was killed at it."""
        info = ctypes.create_string_buffer(88)
        _ptrace(_INFO, pid, 88, ctypes.addressof(info), may_fail=True)
        if info.raw[0] != _ENTRY or self._trace.killed:
            return False
        call, *words = struct.unpack_from("<7Q", info.raw, 24)
        name = _CALLS.get(call)
        if name is None or (name == "openat" and not words[2] & _CREATES):
            return False
        made = self._trace.calls[process]
        if self._at == (process, len(made)):
            os.kill(self._threads[pid], signal.SIGKILL)
            self._trace.killed = True
            return True
        made.append(name)
        return False


def _child(work: Callable[[], object], go: int) -> None:
    code = 1
    try:
        os.read(go, 1)  # what comes before this may or may not be traced
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        os.close(go)
        work()
        code = 0
    except BaseException:  # noqa: BLE001 - a fork must not return into its caller's stack
        traceback.print_exc()
    finally:
        os._exit(code)


def _process_of(thread: int) -> int:
    try:
        with open(f"/proc/{thread}/status") as f:
            return next(int(line.split()[1]) for line in f if line.startswith("Tgid:"))
    except (FileNotFoundError, ProcessLookupError, StopIteration):
        return thread


def _ptrace(request: int, pid: int, address: int, data: int, *, may_fail: bool = False) -> None:
    _libc.ptrace.argtypes = (ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p)
    _libc.ptrace.restype = ctypes.c_long
    if _libc.ptrace(request, pid, address, data) < 0 and not may_fail:
        raise OSError(ctypes.get_errno(), f"ptrace {request:#x}")
