"""`target`: the machines that runs can be sent to: look at one, add it, prepare it, open a shell, give it back."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from console.cli.output import emit_json, json_option, line, note, table, when
from console.cli.workspace import fresh_workspace
from console.errors import NotFound, Refused, UsageProblem
from console.exit_codes import Exit
from console.machines.hosts import shell_argv, ssh_host
from console.machines.targets import LOCAL, POD, RENTED, Target, Targets, parse_env
from console.paths import Home, home
from console.plan import gigabytes
from console.settings import load

if TYPE_CHECKING:
    from console.rental.rental import Rental
    from console.workspace import Workspace
    from remote.survey import Survey


@click.group()
def target() -> None:
    """The machines that runs can be sent to."""


@target.command("list")
@json_option
@click.pass_context
def target_list(ctx: click.Context, as_json: bool) -> None:
    """Every machine, rented ones with their cost; * marks where runs go by themselves."""
    with fresh_workspace(ctx) as workspace:
        targets = workspace.hosts.targets.all()
        default = workspace.hosts.targets.default or load(workspace.home.config).run.target
        living = {str(r.detail.get("target")): r for r in workspace.operator.rentals.book.unsettled()}
        now = time.time()
        if as_json:
            emit_json({"default": default, "targets": [_facts(t, living.get(t.name), now) for t in targets],
                       "rentals": [_money(r, now) for r in living.values()]})
            return
    table(("", "target", "kind", "address", "machine", "state", "USD/h", "spent"),
          [("*" if t.name == default else "", t.name, t.kind, t.address if t.kind != LOCAL else None, t.gpus or None,
            _state(t, living.get(t.name)), *_cost(living.get(t.name), now)) for t in targets]
          + [("*" if name == default else "", name, "provider", None, None, "rents a machine for each run", None, None)
             for name in RENTED])
    for name, rental in living.items():
        if name not in {t.name for t in targets}:
            line(f"   {name}  {rental.phase}: {rental.note}")
    note("what renting would cost: llmconsole run start RECIPE --target runpod --budget USD --hours H --dry-run")


def _state(found: Target, rental: Rental | None) -> str:
    if found.kind == LOCAL:
        return "always there"
    if rental is not None:
        return str(rental.phase)
    return "prepared" if found.python else "not prepared yet"


def _cost(rental: Rental | None, now: float) -> tuple[str | None, str | None]:
    return (f"{rental.usd_per_hour:.2f}", f"{rental.spent(now):.2f}") if rental else (None, None)


def _facts(found: Target, rental: Rental | None, now: float) -> dict[str, Any]:
    return {"name": found.name, "kind": found.kind, "address": found.address, "gpus": found.gpus, "base": found.base,
            "prepared": bool(found.python) or found.kind == LOCAL, "facts": dict(found.facts),
            "rental": _money(rental, now) if rental else None}


def _money(rental: Rental, now: float) -> dict[str, Any]:
    return {"id": rental.id, "run": rental.run, "pod": rental.pod, "name": rental.name, "phase": rental.phase,
            "note": rental.note, "usd_per_hour": rental.usd_per_hour, "spent_usd": round(rental.spent(now), 2),
            "hours": round(rental.hours(now), 3), "budget_usd": rental.budget_usd, "budget_hours": rental.budget_hours,
            "deadline": rental.deadline, "timer_pending": rental.timer_pending,
            "hold_left_s": round(rental.hold_left(now)), "proof": rental.proof}


@target.command("add")
@click.argument("address")
@click.option("--name", help="What to call it.  [default: made from the host name]")
@click.option("--key", type=click.Path(path_type=Path), help="The private key file to use, and no other.")
@click.option("--base", help="Where artifacts go there.  [default: /workspace/nanochat or ~/.cache/nanochat]")
@click.option("--fingerprint", help="The host key's SHA256:... that you expect; then nothing is asked.")
@click.option("--yes", is_flag=True, help="Trust the key that it shows now.")
@click.option("--dry-run", is_flag=True, help="Only look: nothing is pinned or remembered.")
@json_option
def target_add(address: str, name: str | None, key: Path | None, base: str | None, fingerprint: str | None, yes: bool,
               dry_run: bool, as_json: bool) -> int:
    """Look at a machine that ssh reaches, without changing it, and remember it. ADDRESS is [user@]host[:port]."""
    from console.machines.adding import add, look, target_for

    state = Home(home())
    found = target_for(state, address, name or "", key)
    surveyed = look(found, state, lambda shown: _agree(found, shown, fingerprint, yes), keep=not dry_run)
    _print_survey(found, surveyed)
    if dry_run:
        added = found
    else:
        added = add(state, found, surveyed, base or "")
        note(f"added {added.name}; `llmconsole target up {added.name}` puts llmconsole there")
    if as_json:
        emit_json({"target": added, "warnings": surveyed.warnings(), "added": not dry_run})
    else:
        line(added.name)
    return Exit.OK


def _agree(found: Target, shown: str, expected: str | None, yes: bool) -> None:
    if expected is not None and expected != shown:
        raise Refused(f"{found.address} shows the key {shown}, not {expected}; nothing was sent",
                      "ask its owner which of both is right")
    note(f"{found.address} shows the host key {shown}")
    if expected is None and not yes:
        if not sys.stdin.isatty():
            raise UsageProblem("nobody can be asked whether that is the right key", f"--fingerprint {shown} agrees")
        if not click.confirm("Is that the machine you mean?", default=False, err=True):
            raise Refused("not added, as you said")


def _print_survey(found: Target, surveyed: Survey) -> None:
    gpus = f"{len(surveyed.gpus)} × {surveyed.gpus[0].name}, driver {surveyed.driver}" if surveyed.gpus else "no GPU"
    disks = ", ".join(f"{disk.path} {gigabytes(disk.free)} free" for disk in surveyed.disks)
    note(f"{found.address}: {surveyed.distribution or surveyed.os} {surveyed.machine}, {gpus}, {surveyed.cores} cores, "
         f"{gigabytes(surveyed.memory)} memory; {disks}")
    for warning in surveyed.warnings():
        note(f"note: {warning}")


@target.command("use")
@click.argument("name")
@json_option
def target_use(name: str, as_json: bool) -> None:
    """Send runs there from now on when no --target is given; `local` is this machine."""
    Targets().use(name)
    if as_json:
        emit_json({"default": name})
    note(f"runs go to {name} now")


@target.command("show")
@click.argument("name")
@json_option
@click.pass_context
def target_show(ctx: click.Context, name: str, as_json: bool) -> None:
    """What is known of one machine."""
    with fresh_workspace(ctx) as workspace:
        found, now = workspace.hosts.target(name), time.time()
        rentals = [r for r in workspace.operator.rentals.book.all() if r.detail.get("target") == name]
        journal = workspace.operator.rentals.book.journal(rentals[0].id) if rentals else []
    if as_json:
        emit_json({**_facts(found, rentals[0] if rentals else None, now), "journal": journal})
        return
    line(f"{found.name}  {found.kind}  {found.address}")
    line(f"base {found.base or '-'} · python {' '.join(found.python) or '-'} · {found.gpus or '-'}")
    for entry in journal:
        line(f"{when(entry.at)}  {entry.phase:<10} {entry.text}")


@target.command("up")
@click.argument("name")
@click.option("--python", default="", help="A Python there whose environment has torch; none is made then.")
@click.option("--env", "pairs", multiple=True, metavar="NAME=VALUE",
              help="Added to the environment of what is installed and run there, from now on: a proxy, SSL_CERT_FILE.")
@click.option("--dry-run", is_flag=True, help="Look at the machine, and stop.")
@json_option
@click.pass_context
def target_up(ctx: click.Context, name: str, python: str, pairs: tuple[str, ...], dry_run: bool, as_json: bool) -> int:
    """Prepare a machine: put this version of llmconsole and its environment there. Quick when it is there already."""
    from console.machines.preparing import prepare
    from remote.survey import survey

    state, targets, env = Home(home()), Targets(), parse_env(pairs)
    found = targets.find(name)
    if found.kind == LOCAL:
        note("this machine is always prepared")
        return Exit.OK
    box = ssh_host(found, state)
    try:
        if dry_run:
            surveyed = survey(box)
            _print_survey(found, surveyed)
            if as_json:
                emit_json({"target": found, "survey": surveyed.facts, "warnings": surveyed.warnings(),
                           "problems": surveyed.problems()})
            return Exit.OK
        prepared = prepare(box, targets, found, note, base=found.base, python=python, env=env)
    finally:
        box.close()
    if as_json:
        emit_json({"target": prepared})
    note(f"{name} is prepared; `llmconsole run start tiny --target {name}` runs there")
    return Exit.OK


@target.command("shell")
@click.argument("name")
@click.argument("command", nargs=-1)
@click.option("--dry-run", is_flag=True, help="Print the ssh command instead of running it.")
def target_shell(name: str, command: tuple[str, ...], dry_run: bool) -> None:
    """A shell there in your own terminal, by the system's ssh with the same key and the same pinned host key."""
    import os
    import shlex

    argv = shell_argv(Targets().find(name), Home(home()), command)
    if dry_run:
        line(shlex.join(argv))
    else:
        os.execvp(argv[0], argv)


@target.command("log")
@click.argument("name")
@click.option("--source", type=click.Choice(["all", "system", "container"]), default="all", show_default=True,
              help="system: how the provider places and starts it; container: what it printed.")
@click.option("--lines", "-n", default=100, show_default=True, help="How many of the last lines.")
@click.option("--follow", "-f", is_flag=True, help="Go on as lines come, until interrupted.")
@json_option
@click.pass_context
def target_log(ctx: click.Context, name: str, source: str, lines: int, follow: bool, as_json: bool) -> int:
    """A rented pod's log as its provider shows it, also while nobody can log in there."""
    from console.cli.pod_log import print_pod_log

    with fresh_workspace(ctx) as workspace:
        return print_pod_log(workspace, name, "" if source == "all" else source, lines, follow, as_json)


@target.command("down")
@click.argument("name")
@click.option("--type-name", "typed", help="The target's name, typed again: end it although something would be lost.")
@click.option("--dry-run", is_flag=True, help="Say what would be lost, and stop.")
@click.option("--yes", is_flag=True, help="Do not ask when nothing would be lost.")
@json_option
@click.pass_context
def target_down(ctx: click.Context, name: str, typed: str | None, dry_run: bool, yes: bool, as_json: bool) -> int:
    """Give a rented machine back, after its checkpoints are safe; an SSH host is only forgotten here."""
    with fresh_workspace(ctx, patience=0.5) as workspace:
        known = {t.name: t for t in workspace.hosts.targets.all()}
        if name in known and known[name].kind != POD:
            return _forget(known[name], dry_run, as_json)
        return _give_back(workspace, name, typed, dry_run, yes, as_json)


def _forget(found: Target, dry_run: bool, as_json: bool) -> int:
    if found.kind == LOCAL:
        raise UsageProblem("this machine cannot be given back")
    if as_json:
        emit_json({"target": found.name, "forgotten": not dry_run})
    if dry_run:
        note(f"{found.name} would be forgotten here; nothing there would change")
        return Exit.OK
    from remote.ssh.known_hosts import KnownHosts

    Targets().remove(found.name)
    KnownHosts(Home(home()).known_hosts).forget(found.name)
    note(f"{found.name} is forgotten here; nothing there was changed, and what runs there goes on")
    return Exit.OK


def _give_back(workspace: Workspace, name: str, typed: str | None, dry_run: bool, yes: bool, as_json: bool) -> int:
    from console.cli.rent import follow_end

    rentals = workspace.operator.rentals
    rental = rentals.find(name)
    lost = _losses(workspace, rental)
    for loss in lost:
        note(f"exists only there: {loss}")
    if dry_run:
        if as_json:
            emit_json({"target": name, "would_lose": lost, "rental": _money(rental, time.time())})
        return Exit.REFUSED if lost else Exit.OK
    shown = str(rental.detail.get("target", rental.id))
    if lost and typed is None and not as_json and sys.stdin.isatty():
        typed = str(click.prompt(f"Type {shown} to end it and lose that, or press enter to keep it", default="",
                                 show_default=False, err=True))
    if lost and typed != shown:
        raise Refused(f"{shown} holds {len(lost)} checkpoint(s) that exist nowhere else, so it is not ended",
                      f"the open console copies them by itself; --type-name {shown} ends it and loses them")
    if not lost and not yes and sys.stdin.isatty() and not click.confirm(f"End {shown}?", default=False, err=True):
        raise Refused("not ended, as you said")
    rental = rentals.end(rental.id, now=bool(lost))
    return follow_end(workspace, rental, as_json)


def _losses(workspace: Workspace, rental: Rental) -> list[str]:
    """A machine that cannot be asked may hold everything."""
    from remote.errors import RemoteError

    try:
        return workspace.operator.rentals.losses(rental)
    except (RemoteError, NotFound) as error:
        return [f"nobody can say: {error}"]
