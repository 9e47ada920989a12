"""What is done on the machine behind a pod: log in, prepare, launch, watch, stop, copy, prove.

The real `console.rental.machine.Bench`, over the same Host, jobs and safekeepers that every target uses. It decides
nothing about money.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from console import runstate
from console.errors import ConsoleError, NotFound
from console.lookout import job_dir
from console.machines.hosts import route_to
from console.machines.mirror import Mirror
from console.machines.targets import POD, Target, Targets, parse_address
from console.rental.rental import Rental
from console.rental.spec import API_VARIABLE
from console.runstate import Word
from remote import job
from remote.errors import HostKeyChanged, HostUnreachable, NoSuchFile, RemoteError, RunnerFailed
from remote.provider import Provider
from remote.safekeeping import Transfer

if TYPE_CHECKING:
    from console.operator import Operator
    from console.workspace import Workspace
    from remote.safekeeping import Safekeeper
    from remote.ssh.host import SshHost
    from remote.ssh.known_hosts import KnownHosts

STOP_GRACE_S = 600.0
LARGE = 1 << 28  # bytes of a file whose progress is worth lines of its own


class PodBench:
    """Safe for one thread per rental. `tell` gets sentences about what is going on, for the rental's note."""

    def __init__(self, workspace: Workspace, operator: Operator, provider: Provider,
                 tell: Callable[[Rental, str], None]) -> None:
        self._workspace, self._operator, self._provider, self._tell = workspace, operator, provider, tell
        self._targets = Targets(workspace.home.path)
        self._stops: dict[str, threading.Event] = {}
        self._guard, self._closed = threading.Lock(), False

    def interrupt(self, rental_id: str) -> None:
        """Give up what is just going on there: something else was decided."""
        with self._guard:
            if (stop := self._stops.pop(rental_id, None)) is not None:
                stop.set()

    def close(self) -> None:
        """Give up everything, now and from now on."""
        self._closed = True
        for rental_id in list(self._stops):
            self.interrupt(rental_id)

    def _stop(self, rental: Rental) -> threading.Event:
        with self._guard:
            stop = self._stops.setdefault(rental.id, threading.Event())
            if self._closed:
                stop.set()
            return stop

    def reach(self, rental: Rental) -> None:
        from remote.runpod.pod_pin import PodPin
        from remote.ssh.host import SshHost

        user, host, port = parse_address(rental.address)
        target = Target(target_name(rental), POD, user, host, port, str(self._workspace.home.keys / rental.id),
                        rental=rental.id, pod=rental.pod, secrets=tuple(rental.detail.get("secrets") or ()))
        pin = PodPin(self._provider, rental.pod, self._known_hosts())
        box = SshHost(target.name, route_to(target), pin)
        try:
            box.connect(self._stop(rental))
        finally:
            box.close()
        if pin.taken_on_trust:
            self._tell(rental, f"first contact: key {pin.taken_on_trust} (the pod's log shows none to compare with)")
        self._put(target)

    def _put(self, target: Target) -> None:
        """A new target, or the new address of one that is known."""
        try:
            self._targets.change(target.name, user=target.user, host=target.host, port=target.port, pod=target.pod)
        except NotFound:
            self._targets.put(target)

    def prepare(self, rental: Rental) -> None:
        from console.machines.preparing import prepare

        target = self._targets.find(target_name(rental))
        try:
            prepare(self._host(rental), self._targets, target, lambda text: self._tell(rental, text),
                    self._stop(rental), least_gpus=int(rental.detail["want"]["count"]),
                    pretended_gpus=API_VARIABLE in os.environ)
        except ConsoleError as error:
            raise RunnerFailed(str(error)) from error

    def extend(self, rental: Rental, deadline: float) -> None:
        from remote.runpod.deadline import set_deadline

        try:
            set_deadline(self._host(rental), deadline)
        except OSError as error:
            raise RunnerFailed(str(error)) from error

    def launch(self, rental: Rental) -> None:
        described = {**rental.detail["description"], "usd_per_hour": rental.usd_per_hour}
        try:
            self._operator.begin(rental.run, rental.attempt, target_name(rental), self._path(rental), described)
        except ConsoleError as error:
            if isinstance(error.__cause__, RemoteError) and not isinstance(error.__cause__, RunnerFailed):
                raise error.__cause__ from error
            self._tell(rental, str(error))

    def running(self, rental: Rental) -> bool:
        try:
            return job.state(self._host(rental), job_dir(self._path(rental))).state == "running"
        except HostKeyChanged:  # a container that was started anew has new keys: they are checked against its log
            self.reach(rental)
            raise

    def failure(self, rental: Rental) -> str:
        found = job.state(self._host(rental), job_dir(self._path(rental)))
        if found.state == "absent":
            return "the run could not be started"
        word, code = runstate.derive(runstate.Facts(
            pending=False, job=found.state, exit_code=found.code if found.signal is None else -found.signal,
            stopping=found.stopping, never_launched=None, reported=None, reported_exit=None, last_sign=None,
            now=time.time()))
        if word in (Word.FINISHED, Word.STOPPED):
            return ""
        return f"the run failed:{runstate.describe_exit(code)}" if word is Word.FAILED else "the run vanished"

    def stop(self, rental: Rental) -> None:
        job.request_stop(self._host(rental), job_dir(self._path(rental)), STOP_GRACE_S)

    def back_up(self, rental: Rental) -> None:
        host = self._host(rental)
        Mirror(self._workspace.home, rental.run, host, self._path(rental)).pull_all()

        said = ""

        def told(transfer: Transfer) -> None:
            """A line for each checkpoint that is sent and proven, each tenth of a large file, each retry."""
            nonlocal said
            tenth = f" {transfer.file} {10 * transfer.done // transfer.total}0%" if transfer.total > LARGE else ""
            line = f"{transfer.phase} {transfer.checkpoint}{tenth} {transfer.note}".strip()
            if line != said:
                said = line
                self._tell(rental, line)

        try:
            done = safekeeper_for(self._workspace, rental).back_up(host, f"{self._path(rental)}/base", told,
                                                                    self._stop(rental))
        except NoSuchFile:
            self._tell(rental, "the run's folder is not there, so nothing of it can be lost")
            return
        for loss in done.failed:
            self._tell(rental, f"{loss.checkpoint}: {loss.reason}")

    def unproven(self, rental: Rental) -> list[str]:
        try:
            losses = safekeeper_for(self._workspace, rental).unproven(self._host(rental), f"{self._path(rental)}/base")
        except NoSuchFile:  # it was never begun there, or the disk was wiped
            return []
        return [f"{loss.checkpoint} ({loss.bytes / 1e9:.2f} GB): {loss.reason}" for loss in losses]

    def forget(self, rental: Rental) -> None:
        name = target_name(rental)
        self._targets.remove(name)
        self._known_hosts().forget(rental.pod or name)
        for suffix in ("", ".pub"):
            (self._workspace.home.keys / f"{rental.id}{suffix}").unlink(missing_ok=True)

    def bring_home(self, rental: Rental) -> None:
        from console.keeping import backups, shelf
        from engine.rundir import base_dir

        home, base = self._workspace.home, base_dir()
        try:
            known = [item for item in shelf.survey(home, base).items if item.name.run == rental.run]
            if known and known[0].here is None and known[0].proven:
                backups.restore(home, known[0], backups.base_for(base, rental.run), lambda transfer: None,
                                self._stop(rental), optimizer=False)
        except (ConsoleError, RemoteError, OSError) as error:
            self._tell(rental, f"the model is only where it was copied to: {error}")

    def _path(self, rental: Rental) -> str:
        """The run's folder on the pod. Raises HostUnreachable before it was looked at."""
        try:
            base = self._targets.find(target_name(rental)).base
        except NotFound:
            base = ""
        if not base:
            raise HostUnreachable("the pod was not looked at yet")
        return f"{base}/runs/{rental.run}"

    def _host(self, rental: Rental) -> SshHost:
        """The way to the pod at the address that was last read."""
        try:
            target = self._targets.find(target_name(rental))
            if rental.address and (target.user, target.host, target.port) != parse_address(rental.address):
                user, host, port = parse_address(rental.address)
                self._targets.change(target.name, user=user, host=host, port=port)
            return self._workspace.hosts.get(target_name(rental))  # type: ignore[return-value]
        except NotFound as error:
            raise HostUnreachable("its address is not known yet") from error

    def _known_hosts(self) -> KnownHosts:
        from remote.ssh.known_hosts import KnownHosts

        return KnownHosts(self._workspace.home.known_hosts)


def target_name(rental: Rental) -> str:
    """What the pod is called while it lives."""
    return str(rental.detail.get("target") or f"pod-{rental.id[-6:]}")


def safekeeper_for(workspace: Workspace, rental: Rental) -> Safekeeper:
    """The place that the checkpoints are copied to. Raises MissingCredential, and UsageProblem for no place."""
    from console.keeping.backups import Place, keeper_for

    home = workspace.home
    return keeper_for(home, Place(str(rental.detail.get("backup") or home.backups)), rental.run)
