"""The machines that a run can be sent to, by name: this one, which needs nothing, and those that a person added.

Kept in `targets.json` in the console's folder; rented pods appear here while they live. How to reach a machine is the
business of `console.machines.hosts`; what a pod costs and when it ends is the ledger's. No secret is in the file, only
the path of a private key.
"""

from __future__ import annotations

import difflib
import fcntl
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from console.errors import ConsoleError, NotFound, UsageProblem
from console.jsontext import dump
from console.paths import Home, home

LOCAL = "local"
SSH, POD = "ssh", "pod"
RENTED = ("runpod",)  # names of providers: a run started on one of them rents a pod first
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,39}")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_SECRET = re.compile(r"(TOKEN|SECRET|PASSWORD|PASSWD|API_?KEY|ACCESS_?KEY)", re.IGNORECASE)
_ADDRESS = re.compile(r"(?:(?P<user>[A-Za-z_][A-Za-z0-9._-]*)@)?(?P<host>\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9][A-Za-z0-9.-]*)"
                      r"(?::(?P<port>[0-9]{1,5}))?")


@dataclass(frozen=True)
class Target:
    """One machine. `base` is its NANOCHAT_BASE_DIR; `python` starts an interpreter that imports our packages there.

    `env` is added to the environment of what is installed and run there: a proxy, a file of certificates, no secrets.
    `base` and `python` are empty until the machine was prepared. `facts` are what a look at it told. `rental` names the
    ledger's row of a pod. Which key the machine must show stands in known_hosts, under its name.
    """

    name: str
    kind: str = SSH
    user: str = ""
    host: str = ""
    port: int = 0  # 0: what the person's ssh config says, else 22
    key_file: str = ""
    base: str = ""
    python: tuple[str, ...] = ()
    rental: str = ""
    pod: str = ""
    facts: Mapping[str, Any] = field(default_factory=dict)
    env: Mapping[str, str] = field(default_factory=dict)
    secrets: tuple[str, ...] = ()  # names of variables that its provider filled in

    @property
    def title(self) -> str:
        return "this machine" if self.kind == LOCAL else self.name

    @property
    def alias(self) -> str:
        """Its name in our known_hosts: a pod's address and even its name here may be used again, its id never."""
        return self.pod or self.name

    @property
    def address(self) -> str:
        """user@host:port as far as they were named."""
        user = f"{self.user}@" if self.user else ""
        return f"{user}{self.host}" + (f":{self.port}" if self.port not in (0, 22) else "")

    @property
    def gpus(self) -> str:
        """`8 × NVIDIA H100 80GB HBM3`, or what there is instead."""
        found = [str(gpu.get("name", "GPU")) for gpu in self.facts.get("gpus") or [] if isinstance(gpu, Mapping)]
        return f"{len(found)} × {found[0]}" if found else "no GPU" if self.facts else ""


THIS_MACHINE = Target(LOCAL, LOCAL)


def parse_address(text: str) -> tuple[str, str, int]:
    """(user, host, port) of `[user@]host[:port]`; '' and 0 where nothing is said. Raises UsageProblem."""
    found = _ADDRESS.fullmatch(text.strip())
    if not found or not 0 < int(found["port"] or 22) < 65536:
        raise UsageProblem(f"{text!r} is no address of a machine", "write user@host or user@host:port")
    return found["user"] or "", found["host"].strip("[]"), int(found["port"] or 0)


def parse_env(pairs: Sequence[str]) -> dict[str, str]:
    """`NAME=VALUE` words as a mapping. Raises UsageProblem for what is none, and for what looks like a secret."""
    found = {}
    for text in pairs:
        name, equals, value = text.partition("=")
        if not equals or not _VARIABLE.fullmatch(name) or "\n" in value:
            raise UsageProblem(f"{name or text!r} is no environment variable", "write --env NAME=VALUE")
        if _SECRET.search(name) or re.search(r"://[^/\s]*:[^/\s]*@", value):
            raise UsageProblem(f"{name} looks like a secret, and targets.json is no place for one",
                               "llmconsole config set-secret keeps it in the keyring")
        found[name] = value
    return found


def name_for(address_host: str) -> str:
    """A short name made from a host name: `gpu1.example.org` becomes gpu1, an address stays whole."""
    first = address_host.lower().partition(".")[0]
    whole = first if not first.isdigit() and ":" not in first else address_host.lower().replace(":", "-")
    return re.sub(r"[^a-z0-9._-]", "-", whole)[:40].strip("-.") or "box"


class Targets:
    """Reads and changes targets.json. Every change is whole or not there, also with several programs at it."""

    def __init__(self, folder: Path | None = None) -> None:
        self._home = Home(folder or home())

    @property
    def path(self) -> Path:
        return self._home.targets

    def all(self) -> list[Target]:
        """This machine first, then the others by name."""
        return [THIS_MACHINE, *sorted(self._load()[1].values(), key=lambda target: target.name)]

    def find(self, name: str) -> Target:
        """Raises NotFound with the nearest name."""
        known = {target.name: target for target in self.all()}
        if name in known:
            return known[name]
        close = difflib.get_close_matches(name, [*known, *RENTED], n=1, cutoff=0.5)
        hint = f"did you mean {close[0]}?" if close else "llmconsole target add user@host makes one"
        raise NotFound(f"no target is called {name!r}; known: {', '.join(known)}", hint)

    @property
    def default(self) -> str:
        """The target that was chosen with `use`; '' when none was, and the settings say where runs go."""
        return self._load()[0]

    def use(self, name: str) -> None:
        """From now on runs go there when nothing else is said."""
        if name not in RENTED:
            self.find(name)
        with self._changing() as (_, targets):
            self._save(name, targets)

    def put(self, target: Target) -> None:
        """Add a target, or change the one of that name."""
        if not _NAME.fullmatch(target.name) or target.name in (LOCAL, *RENTED):
            raise UsageProblem(f"{target.name!r} cannot name a target",
                               "use lower case letters, digits, '.', '_' and '-', at most 40")
        with self._changing() as (default, targets):
            self._save(default, {**targets, target.name: target})

    def change(self, name: str, **values: Any) -> Target:
        """Change some fields of a target and return it. Raises NotFound when it is gone."""
        with self._changing() as (default, targets):
            if name not in targets:
                raise NotFound(f"no target is called {name!r} any more")
            targets[name] = replace(targets[name], **values)
            self._save(default, targets)
            return targets[name]

    def remove(self, name: str) -> None:
        """Forget a target; nothing on that machine changes. Silent when there is none."""
        with self._changing() as (default, targets):
            targets.pop(name, None)
            self._save("" if default == name else default, targets)

    @contextmanager
    def _changing(self) -> Iterator[tuple[str, dict[str, Target]]]:
        """What is in the file now, while nobody else changes it."""
        self._home.path.mkdir(parents=True, exist_ok=True, mode=0o700)
        with open(self.path.with_suffix(".lock"), "ab") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield self._load()

    def _load(self) -> tuple[str, dict[str, Target]]:
        try:
            body = json.loads(self.path.read_bytes())
            rows = [Target(**{**row, "python": tuple(row.get("python", ())), "secrets": tuple(row.get("secrets", ()))})
                    for row in body["targets"]]
            return str(body.get("default", "")), {target.name: target for target in rows}
        except FileNotFoundError:
            return "", {}
        except (ValueError, TypeError, KeyError) as error:
            raise ConsoleError(f"{self.path} cannot be read ({error}), so no other machine is known",
                               "repair it, or move it away and add the targets again") from None

    def _save(self, default: str, targets: Mapping[str, Target]) -> None:
        body = {"v": 1, "default": default, "targets": [asdict(target) for target in targets.values()]}
        temporary = self.path.with_name(f".{self.path.name}.{os.getpid()}.tmp")
        with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as f:
            f.write(dump(body, indent=2) + "\n")
            f.flush()
            os.fsync(f.fileno())
        os.replace(temporary, self.path)


def titles() -> dict[str, str]:
    """What people call each target."""
    return {target.name: target.title for target in Targets().all()}
