"""Puts our own program on another machine: sent once, installed by a job that outlives the link, then ready at once.

Everything lies in ~/.llmconsole/env/<hash of the program>: what is there is not done again, what was cut is gone on
with, and an older version beside it stays untouched for the runs that use it. Each step says why it is taken and how
long it took.
"""

from __future__ import annotations

import json
import shlex
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from remote import job, our_wheel
from remote.errors import Cancelled, RunnerFailed
from remote.host import Host
from remote.our_wheel import Packed
from remote.survey import survey
from remote.uv_words import SYSTEM_CERTS, CertificateUnknown, failure

if TYPE_CHECKING:
    from remote.survey import Survey

PLACE = ".llmconsole/env"
PYTHON = "3.12"  # fetched where there is none
_LOOK_S = 0.5
_LONG = 900.0    # seconds for a fetch of uv or Python
_TAIL = 4000     # bytes of an output that are looked at

OURS = """
import os, sys
import engine.rundir, rustbpe
where = os.path.realpath(engine.rundir.__file__)
assert where.startswith(os.path.realpath(sys.argv[1])), f'another program is found first: {where}'
"""
CHECK = OURS + """
import json
from importlib import util
assert util.find_spec('torch'), 'torch is not installed'
gpus = 0
if sys.argv[2] != '0':
    import torch
    gpus = torch.cuda.device_count()
print(json.dumps({'engine': where, 'gpus': gpus}))
"""

GET_UV = r"""
command -v uv && exit 0
for place in "$HOME/.local/bin/uv" "$HOME/.cargo/bin/uv"; do [ -x "$place" ] && echo "$place" && exit 0; done
python3 -m pip install --quiet --user --break-system-packages uv >&2 || python3 -m pip install --quiet --user uv >&2 ||
  curl -LsSf https://astral.sh/uv/install.sh | sh >&2 || exit 1
for place in "$HOME/.local/bin/uv" "$HOME/.cargo/bin/uv"; do [ -x "$place" ] && echo "$place" && exit 0; done
command -v uv
"""


def bootstrap(host: Host, found: Survey | None, tell: Callable[[str], None], stop: threading.Event | None = None, *,
              python: Sequence[str] = (), env: Mapping[str, str] | None = None) -> tuple[str, ...]:
    """The words that start a Python there in which this very program runs; `host.python` is set to them.

    `env` is added to the environment of what fetches and installs. With `python` an environment that has the libraries
    is used as it is and only our code is put beside it. Safe to repeat after any failure. Raises RunnerFailed with the
    cause and the last words of what failed, Cancelled, and what the host raises.
    """
    steps = _Steps(host, found or survey(host), tell, stop or threading.Event(), dict(env or {}))
    error: _Misfit | None = None
    for packed in _choices(steps.found, bool(python)):
        try:
            words = steps.beside(packed, python) if python else steps.environment(packed)
            host.python = words
            return words
        except _Misfit as failed:  # noqa: PERF203 - the next choice is another way to the same end
            error = failed
    raise error or RunnerFailed(f"{host.name} is {steps.found.os} on {steps.found.machine}, unlike this machine, and "
                                "the sources to build from are not here: run llmconsole from its source tree")


def _choices(found: Survey, only_wheel: bool) -> list[Packed]:
    """What could be sent, the quickest first: a wheel where compiled code from here runs, then the sources."""
    choices = []
    if only_wheel or our_wheel.fits(found.os, found.machine):
        with suppress(FileNotFoundError):
            choices.append(our_wheel.wheel())
    if not only_wheel and our_wheel.has_sources():
        choices.append(our_wheel.sources())
    return choices


class _Steps:
    """The steps on one machine; each looks first whether it is done."""

    def __init__(self, host: Host, found: Survey, tell: Callable[[str], None], stop: threading.Event,
                 env: dict[str, str]) -> None:
        self.host, self.found, self._tell, self._stop, self._env = host, found, tell, stop, env
        self._gpus = len(found.gpus)

    def environment(self, packed: Packed) -> tuple[str, ...]:
        """An environment of its own, made by uv."""
        folder = self._folder(packed)
        python = (f"{folder}/venv/bin/python",)
        if self._ready(folder, python):
            return python
        uv = self._uv()
        base = self.found.python or self._fetch_python(uv)
        self.host.python = (base,)  # what it was before may have gone with a container's disk
        self._send(packed, folder)
        self._install(packed, folder, uv, base)
        try:
            return self._prove(folder, python)
        except _NoGpus as unseen:
            self._fitting_torch(folder, uv, str(unseen))
            return self._prove(folder, python)

    def beside(self, packed: Packed, python: Sequence[str]) -> tuple[str, ...]:
        """Our code in a folder that an existing Python is told of."""
        folder = self._folder(packed)
        words = ("env", f"PYTHONPATH={folder}/lib", *python)
        if self._ready(folder, words):
            return words
        self.host.python = tuple(python)
        self._send(packed, folder)
        with self._step("unpacking", "our code goes beside the Python that is there"):
            self._run(["/bin/sh", "-c", 'cd "$1" && shift && rm -rf lib.new && "$@" -m zipfile -e *.whl lib.new && '
                       "rm -rf lib && mv lib.new lib", "sh", folder, *python])
        return self._prove(folder, words)

    # Steps.

    def _folder(self, packed: Packed) -> str:
        home = self.found.home or self._run(["/bin/sh", "-c", 'printf %s "$HOME"']).strip()
        return f"{home}/{PLACE}/{packed.hash}"

    def _ready(self, folder: str, python: Sequence[str]) -> bool:
        """Whether an earlier time came to its end; a marker that lies is found out by asking Python."""
        if not self._run(["/bin/sh", "-c", 'cat "$1" 2>/dev/null || true', "sh", f"{folder}/ready.json"]):
            return False
        done = self.host.run([*python, "-c", OURS, folder], timeout=60)
        if done.rc == 0:
            self._tell("this version of the program is there already")
        return done.rc == 0

    def _send(self, packed: Packed, folder: str) -> None:
        size = len(packed.data) / 1e6
        there = self._run(["/bin/sh", "-c", 'cksum < "$1" 2>/dev/null || true', "sh", f"{folder}/{packed.file_name}"])
        if there.split()[1:] == [str(len(packed.data))]:
            self._tell("the program was sent before")
            return
        kind = "compiled" if packed.file_name.endswith(".whl") else "its sources: another kind of machine"
        with self._step("sending", f"the program, {size:.1f} MB ({kind})"), tempfile.TemporaryDirectory() as here:
            self._run(["mkdir", "-p", folder])
            for name, data in ((packed.file_name, packed.data), ("constraints.txt", packed.constraints.encode())):
                _upload(self.host, Path(here) / name, data, f"{folder}/{name}")

    def _uv(self) -> str:
        known = dict(self.found.tools).get("uv")
        if known:
            return known
        with self._step("fetching uv", "it makes the environment and is not there"):
            return self._fetch("fetching uv", ["/bin/sh", "-c", GET_UV]).strip().splitlines()[-1]

    def _fetch_python(self, uv: str) -> str:
        with self._step(f"fetching Python {PYTHON}", "none new enough is there"):
            self._trusting(lambda: self._fetch(f"fetching Python {PYTHON}", [uv, "python", "install", PYTHON]))
            return self._run([uv, "python", "find", PYTHON]).strip()

    def _install(self, packed: Packed, folder: str, uv: str, base: str) -> None:
        python, file = f"{folder}/venv/bin/python", f"{folder}/{packed.file_name}"
        with self._step("installing", "the libraries that train, 7 GB the first time"):
            self._trusting(lambda: self._as_job(f"{folder}/job", [
                f"[ -x {shlex.quote(python)} ] || {shlex.join([uv, 'venv', '--python', base, f'{folder}/venv'])}",
                shlex.join([uv, "pip", "install", "--python", python, "-c", f"{folder}/constraints.txt", file])]))

    def _fitting_torch(self, folder: str, uv: str, why: str) -> None:
        """The newest torch is made for the newest driver; uv knows the one for the driver that is there."""
        with self._step("fetching another torch", f"made for driver {self.found.driver}: {why}"):
            self._trusting(lambda: self._as_job(f"{folder}/job-torch", [shlex.join([
                uv, "pip", "install", "--python", f"{folder}/venv/bin/python", "--torch-backend", "auto",
                "--reinstall-package", "torch", "torch>=2.10"])]))

    def _trusting(self, work: Callable[[], object]) -> None:
        """Where uv does not know the index's certificate, once more with those that the machine itself trusts."""
        try:
            work()
        except CertificateUnknown:
            if SYSTEM_CERTS.items() <= self._env.items():
                raise
            self._env.update(SYSTEM_CERTS)
            self._tell("the package index shows a certificate that uv does not know: again with the machine's own list")
            work()

    def _as_job(self, folder: str, commands: Sequence[str]) -> None:
        """So that a lost link costs nothing; attempts count on by themselves. Raises RunnerFailed, Cancelled."""
        state = job.state(self.host, folder)
        if state.state != "running":
            script = "\n".join(["set -e", *commands])
            state = job.launch(self.host, folder, (state.attempt or 0) + 1, ["/bin/sh", "-c", script],
                               self._env)
        output = f"{folder}/output.{state.attempt}.log"
        while state.state == "running":
            if self._stop.wait(_LOOK_S):
                raise Cancelled("given up while the program is installed there; it goes on by itself")
            state = job.state(self.host, folder)
            self._tell_last(output)
        if state.code != 0:
            raise failure("installing", self.host.name, self._tail(output))

    def _prove(self, folder: str, python: tuple[str, ...]) -> tuple[str, ...]:
        with self._step("checking", "whether it runs there" + (" and sees the GPUs" if self._gpus else "")):
            told = json.loads(self._check(python, folder).splitlines()[-1])
            if told["gpus"] < self._gpus:
                raise _NoGpus(f"torch sees {told['gpus']} of {self._gpus} GPUs on {self.host.name}: its driver "
                                   f"{self.found.driver} may be too old")
            self._run(["/bin/sh", "-c", 'printf "%s" "$2" > "$1.new" && mv "$1.new" "$1"', "sh",
                       f"{folder}/ready.json", json.dumps({"v": 1, "python": python, **told})])
        return python

    def _check(self, python: Sequence[str], folder: str) -> str:
        try:
            return self._run([*python, "-c", CHECK, folder, str(self._gpus)], 300.0)
        except RunnerFailed as failed:
            if any(word in str(failed) for word in ("rustbpe", "GLIBC", "undefined symbol", "wrong ELF", ".so")):
                raise _Misfit(str(failed)) from None
            raise

    # Words.

    def _step(self, name: str, reason: str) -> _Step:
        if self._stop.is_set():
            raise Cancelled(f"given up before {name}")
        return _Step(self._tell, name, reason)

    def _tell_last(self, output: str) -> None:
        line = self._last_line(output)
        if line:
            self._tell(f"installing: {line}")

    def _last_line(self, output: str) -> str:
        lines = [line.strip() for line in self._tail(output).replace("\r", "\n").splitlines() if line.strip()]
        return lines[-1][:200] if lines else ""

    def _tail(self, output: str) -> str:
        found = self.host.stat(output)
        return self.host.read(output, max(found.size - _TAIL, 0), _TAIL).decode("utf-8", "replace") if found else ""

    def _fetch(self, what: str, argv: Sequence[str]) -> str:
        done = self.host.run(argv, env=self._env, timeout=_LONG)
        if done.rc:
            raise failure(what, self.host.name, done.err.decode("utf-8", "replace")[-_TAIL:])
        return done.out.decode("utf-8", "replace")

    def _run(self, argv: Sequence[str], timeout: float = 60.0) -> str:
        done = self.host.run(argv, timeout=timeout)
        if done.rc:
            words = done.err.decode("utf-8", "replace").strip().splitlines()
            raise RunnerFailed(f"{argv[0]} on {self.host.name} ended with {done.rc}: "
                               f"{words[-1] if words else 'no word why'}")
        return done.out.decode("utf-8", "replace")


class _Misfit(RunnerFailed):
    """The compiled part from here does not load there: an older system; its sources may be built there."""


class _NoGpus(RunnerFailed):
    """Everything is installed, but torch does not see the GPUs."""


class _Step:
    """Says what is done and why, and how long it took."""

    def __init__(self, tell: Callable[[str], None], name: str, reason: str) -> None:
        self._tell, self._name, self._begun = tell, name, time.monotonic()
        tell(f"{name}: {reason}")

    def __enter__(self) -> None:
        self._begun = time.monotonic()

    def __exit__(self, kind: object, *_: object) -> None:
        took = time.monotonic() - self._begun
        self._tell(f"{self._name}: {'failed after' if kind else 'done in'} {took:.1f} s")


def _upload(host: Host, local: Path, data: bytes, remote: str) -> None:
    local.write_bytes(data)
    host.put(local, remote)
