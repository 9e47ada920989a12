"""Backing up, proving, restoring and pruning as an operator asks for it: which place, which checkpoints, in what words.

Verbs and screen both come here. The work is done by `remote`; this chooses, and turns what can go wrong into the
console's errors. Nothing here prints.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from console.errors import ConsoleError, NotFound, Refused, UsageProblem
from console.exit_codes import Exit
from console.keeping.shelf import Item
from console.paths import Home
from remote.errors import CopyRefused, DamagedCopy, HubUnreachable, NoSuchCopy, NoSuchFile, TokenRefused
from remote.safekeeping import BackedUp, CheckpointId, Transfer

if TYPE_CHECKING:
    from remote.backup.keeper import Keeper
    from remote.backup.receipts import Kept
    from remote.backup.restore import Restored
    from remote.backup.sources import Source
    from remote.host import Host

Progress = Callable[[Transfer], None]
_REPO = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_FOLDERS = ("/", "~", "./", "../")


class NotProven(ConsoleError):
    """A copy that is not what was sent, or cannot be shown to be."""

    exit = Exit.VERIFICATION


class BadToken(ConsoleError):
    exit = Exit.CREDENTIAL


class NoAnswer(ConsoleError):
    exit = Exit.UNREACHABLE


@contextmanager
def in_our_words() -> Iterator[None]:
    """What goes wrong with a copy, as an error with an exit code and a next step."""
    try:
        yield
    except TokenRefused as error:
        raise BadToken(str(error), "make a fine-grained token that may write to this one repository, then: llmconsole "
                                   "config set-secret HF_TOKEN") from error
    except NoSuchFile as error:
        raise NotFound(str(error), "llmconsole config show says where checkpoints are looked for") from error
    except NoSuchCopy as error:
        raise NotFound(str(error), "llmconsole ckpt list shows what is known") from error
    except DamagedCopy as error:
        raise NotProven(f"{error}; nothing was put in place and nothing counts as safe",
                        "use another copy, or back up again") from error
    except CopyRefused as error:
        raise Refused(str(error)) from error
    except HubUnreachable as error:
        raise NoAnswer(f"the place for copies does not answer: {error}",
                       "do it again: what arrived is not sent twice") from error


@dataclass(frozen=True)
class Place:
    """Where copies go: `hub:OWNER/NAME`, a folder, or `ssh:TARGET:/folder`. The other fields are for the Hub."""

    where: str = ""
    prefix: str = ""
    public: bool = False
    repo_type: str = "model"
    revision: str = "main"

    @property
    def repo(self) -> str | None:
        """OWNER/NAME when it is on the Hub. A folder that exists wins over a repository of its name."""
        if self.where.startswith("hub:"):
            return self.where[4:]
        return self.where if _REPO.fullmatch(self.where) and not Path(self.where).exists() else None

    def check(self) -> None:
        """Raises UsageProblem for words that name no place: a mistyped hub: must not become a folder of that name."""
        if self.where.startswith("ssh:"):
            far_folder(self.where)
        elif not (self.repo and _REPO.fullmatch(self.repo)) and self.where and not self.where.startswith(_FOLDERS):
            raise UsageProblem(f"{self.where!r} is neither hub:OWNER/NAME, ssh:TARGET:/folder nor a folder",
                               "a folder begins with /, ~ or ./")

    def __str__(self) -> str:
        return f"hub:{self.repo}" if self.repo else self.where or "the console's own folder"


def chosen_place(home: Home, wanted: str | None = None) -> Place:
    """The place that was named, else the one in the settings, else our own folder."""
    from console.settings import load

    return Place(wanted or load(home.config).backup.place or str(home.backups))


def keeper_for(home: Home, place: Place, label: str | None = None) -> Keeper:
    """The Safekeeper for a place. Raises MissingCredential for the Hub without a token, UsageProblem for no place."""
    place.check()
    receipts = home.backups / "receipts"
    if place.repo:
        from console.credentials import require
        from remote.backup.hub import HubSafekeeper

        return HubSafekeeper(place.repo, receipts, token=_token() or require("HF_TOKEN", home.path).reveal(),
                             prefix=place.prefix, label=label, public=place.public, repo_type=place.repo_type,
                             revision=place.revision)
    from remote.backup.folder import FolderSafekeeper

    if place.where.startswith("ssh:"):
        from remote.backup.far_folder import HostSafekeeper

        return HostSafekeeper(*_far_host(home, place.where), receipts, label)
    return FolderSafekeeper(Path(place.where or home.backups).expanduser(), receipts, label)


def far_folder(where: str) -> tuple[str, str]:
    """Target and folder of ssh:TARGET:/folder. Raises UsageProblem."""
    _, target, folder = [*where.split(":", 2), "", ""][:3]
    if not target or not folder.startswith("/"):
        raise UsageProblem(f"{where!r} names no folder on another machine", "write ssh:TARGET:/folder")
    return target, folder


def _far_host(home: Home, where: str) -> tuple[Host, str]:
    """The machine and the folder on it that ssh:TARGET:/folder names."""
    from console.machines.hosts import Hosts

    target, folder = far_folder(where)
    return Hosts(home.path).get(target), folder


def _token() -> str | None:
    from remote.backup.hub_token import find_token

    return find_token()


def keeper_of(home: Home, kept: Kept) -> Keeper:
    """The Safekeeper that a receipt came from."""
    kind, _, where = kept.receipt.destination.partition(":")
    return keeper_for(home, Place(where if kind == "folder" else f"{kind}:{where}", public=True))


def back_up(home: Home, place: Place, host: Host, base: str, progress: Progress, stop: threading.Event,
            only: Collection[CheckpointId] | None = None, label: str | None = None) -> BackedUp:
    """Copy and prove; what failed is in the answer."""
    with in_our_words():
        return keeper_for(home, place, label).back_up(host, base, progress, stop, only)


def verify(home: Home, copies: Sequence[Kept], progress: Progress, stop: threading.Event) -> list[tuple[Kept, str]]:
    """Read every byte of every copy again; each with '' or what is wrong with it."""
    results: list[tuple[Kept, str]] = []
    for kept in copies:
        keeper = keeper_of(home, kept)
        try:
            with in_our_words():
                proven = keeper.prove(kept, progress, stop)
                keeper.receipts.keep(proven)
                results.append((proven, ""))
        except NotProven as error:
            results.append((kept, str(error.__cause__ or error)))
    return results


def source_of(home: Home, kept: Kept) -> Source:
    """Where a copy can be read from."""
    from remote.backup.sources import FolderSource, HostSource, HubSource

    kind, _, where = kept.receipt.destination.partition(":")
    if kind == "folder":
        return FolderSource(Path(where) / kept.place)
    if kind == "ssh":
        host, folder = _far_host(home, kept.receipt.destination)
        return HostSource(host, f"{folder}/{kept.place}")
    from remote.backup.hub_wire import HubWire

    return HubSource(HubWire(where, token_if_any(home)), kept.place, kept.revision)


def token_if_any(home: Home) -> str | None:
    """Public repositories can be read without one."""
    from console.credentials import find

    found = find("HF_TOKEN", home.path)
    return _token() or (found.reveal() if found else None)


def restore(home: Home, item: Item, base: Path, progress: Progress, stop: threading.Event, *,
            optimizer: bool = True) -> Restored:
    """Bring one checkpoint back from the first proven copy that answers. `base` is what it goes below."""
    copies = sorted(item.proven, key=lambda kept: kept.receipt.destination.startswith("hub:"))
    if not copies:
        reason = item.wrong[0].withdrawn if item.wrong else "no copy was ever proven"
        raise NotProven(f"there is nothing to restore {item.name} from: {reason}", "llmconsole ckpt list shows copies")
    problems: list[ConsoleError] = []
    for kept in copies:
        done = _from_copy(home, kept, base, progress, stop, optimizer, problems)
        if done is not None:
            return done
    raise problems[0]


def _from_copy(home: Home, kept: Kept, base: Path, progress: Progress, stop: threading.Event, optimizer: bool,
               problems: list[ConsoleError]) -> Restored | None:
    """Restore from one copy; None, and the reason in `problems`, when another copy may do better."""
    from remote.backup.restore import read_manifest
    from remote.backup.restore import restore as bring

    try:
        with in_our_words():
            source = source_of(home, kept)
            manifest = read_manifest(source, kept.manifest_sha256)
            return bring(source, manifest, base, progress, stop, optimizer=optimizer, same_tokenizer=same_vocabulary)
    except Refused:
        raise
    except ConsoleError as error:
        problems.append(error)
        return None


def same_vocabulary(mine: Path, theirs: Path) -> bool:
    """Whether two tokenizer folders hold the same tokens, though their files differ."""
    from engine.tokenizer.store import TokenizerError, read_vocabulary

    try:
        return read_vocabulary(mine).sha256() == read_vocabulary(theirs).sha256()
    except (TokenizerError, OSError):
        return False


def base_for(base: Path, run: str) -> Path:
    """Where a run's checkpoints belong on this machine, so that the catalogue finds them with their own tokenizer."""
    from engine.rundir import RunDir, runs_dir

    return RunDir(runs_dir(base) / run).base if run != base.name else base
