"""Proof, at every start, that the walls hold: a program tries to get out in each way that matters, and must fail.

What it achieved is judged twice: by its own report, and by evidence outside (a file, a connection, a signal).
"""

from __future__ import annotations

import os
import socket
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from engine.sandbox.sandbox import Sandbox

_ESCAPES = '''
import ctypes, os, socket, subprocess
def escapes(canary, outside, port, pid):
    libc = ctypes.CDLL(None)
    def read(): return open(canary).read()
    def read_by_libc(): assert libc.open(canary.encode(), 0) >= 0
    def read_environment(): return open(f"/proc/{pid}/environ").read()
    def write(): open(outside, "w").write("out")
    def write_by_libc(): assert libc.creat(outside.encode(), 0o600) >= 0
    def make_folder(): os.mkdir(outside + "-folder")
    def delete(): os.remove(canary)
    def connect(): socket.create_connection(("127.0.0.1", port), 0.2)
    def open_socket(): socket.socket()
    def fork():
        if os.fork() == 0: os._exit(0)
    def run(): subprocess.run(["/bin/true"], check=True)
    def execute(): os.execv("/bin/true", ["true"])
    def signal_parent(): os.kill(pid, 0)
    def trace(): assert libc.ptrace(0x4206, pid, 0, 0) == 0
    def own_variables(): assert os.environ
    def list_root(): return os.listdir("/")
    done = []
    for attempt in (read, read_by_libc, read_environment, write, write_by_libc, make_folder, delete, connect,
                    open_socket, fork, run, execute, signal_parent, trace, own_variables, list_root):
        try:
            attempt()
            done.append(attempt.__name__)
        except BaseException: pass
    return done
'''
_NONE = "def check(escapes):\n    done = escapes(*{args!r})\n    assert done == [], ', '.join(done)\n"
_CONTROLS = (  # code, whether it must pass
    ("def double(x):\n    return 2 * x\n", True),
    ("def double(x):\n    return x\n", False),
    ("import os\ndef double(x):\n    os._exit(0)\n", False),
    ("import sys\nsys.exit(0)\n", False),
)
_DOUBLE = "def check(double):\n    assert double(2) == 4\n"


def prove_isolation(sandbox: Sandbox) -> None:
    """Try to get out, and that verdicts mean something. Raises SandboxUnavailable naming what went wrong."""
    from engine.sandbox.sandbox import SandboxUnavailable

    with tempfile.TemporaryDirectory(prefix="llmconsole-sandbox-") as place, socket.socket() as listener:
        os.chmod(place, 0o755)  # noqa: PTH101 - the program's user must be stopped by the walls, not by this folder
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        listener.setblocking(False)
        canary, outside = Path(place) / "canary", Path(place) / "outside"
        canary.write_text("canary")
        canary.chmod(0o644)
        args = (str(canary), str(outside), listener.getsockname()[1], os.getpid())
        verdict = sandbox.judge(_ESCAPES, "escapes", _NONE.format(args=args))
        if not verdict.passed:
            raise SandboxUnavailable(f"the isolation does not hold on this machine: {verdict.reason}")
        if not canary.exists() or len(list(Path(place).iterdir())) != 1 or _connected(listener):
            raise SandboxUnavailable("the isolation does not hold on this machine: something was changed outside")
    for code, expected in _CONTROLS:
        verdict = sandbox.judge(code, "double", _DOUBLE)
        if verdict.passed != expected:
            raise SandboxUnavailable(f"verdicts cannot be trusted on this machine: {verdict.reason or 'a false pass'}")


def _connected(listener: socket.socket) -> bool:
    try:
        listener.accept()[0].close()
    except BlockingIOError:
        return False
    return True
