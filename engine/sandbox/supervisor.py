"""The process that runs models' programs: bare interpreter, empty environment, and one pair of processes per program.

The program lives in one process, the tests in another. They share nothing but two pipes, over which the tests call the
function and get plain values back, so a program can neither see the tests, nor skip them, nor say that they passed:
the verdict comes from the process of the tests alone. Both are confined (`engine.sandbox.confine`) before the first
line of foreign code, and killed at the deadline.

Started by `engine.sandbox.sandbox`; speaks frames (`engine.sandbox.wire`) on stdin and stdout. Standard library only.
"""

from __future__ import annotations

import builtins
import gc
import importlib
import os
import select
import signal
import sys
import time
import types
from collections.abc import Callable
from typing import Any, NoReturn

from engine.sandbox import confine, wire

# No file can be opened once confined, so what a program may import is imported here.
MODULES = (
    "abc", "array", "ast", "base64", "binascii", "bisect", "calendar", "cmath", "collections", "collections.abc",
    "contextlib", "copy", "ctypes", "dataclasses", "datetime", "decimal", "difflib", "enum", "fnmatch", "fractions",
    "functools", "gc", "hashlib", "heapq", "hmac", "inspect", "io", "itertools", "json", "keyword", "locale", "math",
    "numbers", "operator", "os", "pprint", "queue", "random", "re", "secrets", "signal", "socket", "statistics",
    "string", "struct", "subprocess", "sys", "tempfile", "textwrap", "threading", "time", "timeit", "traceback",
    "types", "typing", "unicodedata", "unittest", "uuid", "warnings", "weakref", "zlib",
)
_STDIN, _STDOUT = 0, 1
_VERDICT_BYTES = 64 << 10


def main() -> None:
    """Answer requests until stdin ends."""
    os.environ.clear()  # Python itself may have put a locale there
    for name in MODULES:
        importlib.import_module(name)
    walls = confine.build_walls()
    gc.collect()
    gc.freeze()
    wire.send(_STDOUT, {"ready": walls.describe()})
    while True:
        try:
            request = wire.receive(_STDIN)
        except wire.WireError:
            return
        wire.send(_STDOUT, _judge(request, walls))


def _judge(request: dict[str, Any], walls: confine.Walls) -> dict[str, Any]:
    """Run one program against its tests; {"passed", "reason"}."""
    seconds = float(request["seconds"])
    deadline = time.monotonic() + seconds
    calls_read, calls_write = os.pipe()
    answers_read, answers_write = os.pipe()
    # Only now come the tests: the program's process must not have them in its memory.
    program = _forked(lambda: _be_program(request["code"], request["entry_point"]), (calls_read, answers_write), walls,
                      seconds)
    tests = wire.receive(_STDIN)
    verdict_read, verdict_write = os.pipe()
    checker = _forked(lambda: _be_checker(tests, request["entry_point"]), (answers_read, calls_write, verdict_write),
                      walls, seconds)
    for fd in (calls_read, calls_write, answers_read, answers_write, verdict_write):
        os.close(fd)
    said = _read_until(verdict_read, deadline)
    os.close(verdict_read)
    for pid in (program, checker):
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    return _verdict(said)


def _verdict(said: bytes | None) -> dict[str, Any]:
    if said is None:
        return {"passed": False, "reason": "timeout"}
    if said == b"passed":
        return {"passed": True, "reason": ""}
    return {"passed": False, "reason": said.decode("utf-8", "replace") or "the tests' process died"}


def _read_until(fd: int, deadline: float) -> bytes | None:
    """Everything up to the end of the pipe; None when the deadline comes first."""
    parts, size = [], 0
    while size < _VERDICT_BYTES:
        ready, _, _ = select.select([fd], [], [], max(0.0, deadline - time.monotonic()))
        if not ready:
            return None
        part = os.read(fd, _VERDICT_BYTES)
        if not part:
            break
        parts.append(part)
        size += len(part)
    return b"".join(parts)


def _forked(body: Callable[[], object], keep: tuple[int, ...], walls: confine.Walls, seconds: float) -> int:
    """A new process that has only the descriptors `keep` (as 3, 4, ...) and is confined before `body` runs."""
    parent = os.getpid()
    pid = os.fork()
    if pid:
        return pid
    try:
        _settle(keep, walls, seconds, parent)
        body()
    except BaseException:  # noqa: BLE001 - whatever a program raises ends its process, without a word
        os._exit(1)
    os._exit(0)


def _settle(keep: tuple[int, ...], walls: confine.Walls, seconds: float, parent: int) -> None:
    os.setsid()
    null = os.open(os.devnull, os.O_RDWR)
    high = [os.dup2(fd, 100 + i) for i, fd in enumerate(keep)]
    rules = os.dup2(walls.landlock_fd, 99) if walls.landlock_fd >= 0 else -1
    for fd in (0, 1, 2):
        os.dup2(null, fd)
    os.closerange(3, 99 if rules >= 0 else 100)
    for i, fd in enumerate(high):
        os.dup2(fd, 3 + i)
    os.closerange(100, 1 << 16)
    confine.drop_user()
    confine.tie_to(parent)  # after the change of user, which would undo it
    confine.limit(seconds)
    confine.wall_in(confine.Walls(walls.program, rules, walls.landlock_abi))


def _be_program(code: str, entry_point: str) -> None:
    """Define what the program defines, then answer calls of its function: descriptor 3 asks, 4 answers."""
    module = types.ModuleType("solution")
    sys.modules["solution"] = module  # dataclasses look their module up there
    try:
        exec(compile(code, "solution.py", "exec"), module.__dict__)
        function = module.__dict__[entry_point]
    except BaseException as error:  # noqa: BLE001 - the program's own failure is its answer
        wire.send(4, {"broken": _words(error)})
        return
    wire.send(4, {"ready": True})
    while True:
        args, kwargs = wire.unpack(wire.receive(3))
        try:
            answer = {"value": wire.pack(function(*args, **kwargs))}
        except Exception as error:  # noqa: BLE001 - goes back to the tests
            answer = {"raised": type(error).__name__, "words": _words(error)}
        wire.send(4, answer)


def _be_checker(tests: dict[str, Any], entry_point: str) -> None:
    """Run the tests against the other process; descriptor 3 has its answers, 4 takes calls, 5 the verdict."""
    try:
        ready = wire.receive(3)
        if "broken" in ready:
            raise _Failed(str(ready["broken"]))
        names: dict[str, Any] = {"__name__": "tests"}
        exec(compile(tests["prelude"], "prelude.py", "exec"), names)
        names[entry_point] = names["candidate"] = _call
        exec(compile(tests["tests"], "tests.py", "exec"), names)
        if "check" in names:
            names["check"](_call)
        verdict = "passed"
    except BaseException as error:  # noqa: BLE001 - any way out of the tests but their end is a failure
        verdict = _words(error)
        verdict = verdict if verdict != "passed" else "failed"
    os.write(5, verdict.encode("utf-8", "replace")[:_VERDICT_BYTES])


class _Failed(Exception):
    """The program could not be asked, or its function raised."""


def _call(*args: Any, **kwargs: Any) -> Any:
    """The function under test, as the tests see it."""
    wire.send(4, wire.pack((args, kwargs)))
    answer = wire.receive(3)
    if not isinstance(answer, dict):
        raise _Failed("the program's answer makes no sense")
    if "value" in answer:
        return wire.unpack(answer["value"])
    kind = getattr(builtins, str(answer.get("raised")), None)
    words = str(answer.get("words"))
    if isinstance(kind, type) and issubclass(kind, Exception):
        raise kind(words)
    raise _Failed(words)


def _words(error: BaseException) -> str:
    """An exception in a line. Its own `__str__` may be hostile, and may not end the process it is told in."""
    try:
        return str(error)[:500] if isinstance(error, _Failed) else f"{type(error).__name__}: {error}"[:500]
    except BaseException:  # noqa: BLE001
        return type(error).__name__[:100]


def run() -> NoReturn:
    main()
    os._exit(0)
