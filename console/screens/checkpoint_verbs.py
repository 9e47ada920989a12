"""What the keys of the checkpoints screen do: ask on a sheet, then hand the job to the transfer desk.

Deleting is typed, never one key; nothing is asked of a destination on the screen's own thread.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from textual.content import Content
from textual.message import Message
from textual.screen import Screen

from console.keeping import backups, pruning
from console.keeping.shelf import Away, Item, Name, Shelf, same_disk, survey
from console.keeping.transfers import Ended, TransferDesk
from console.messages import ShelfRead
from console.screens.checkpoint_lines import prune_lines
from console.text import clean_line
from console.widgets.numbers import size

if TYPE_CHECKING:
    from console.app import Console
    from remote.backup.receipts import Kept
    from remote.host import Host
    from remote.safekeeping import Transfer

Progress = Callable[["Transfer"], None]


class CheckpointVerbs(Screen[None]):
    """Mixed into the screen, which has `shelf`, `desk` and `marked`."""

    shelf: Shelf
    desk: TransferDesk
    _chosen: str = ""

    if TYPE_CHECKING:
        @property
        def console_app(self) -> Console: ...
        def marked(self) -> Item | None: ...

    def _post(self, message: Message) -> None:
        if self.is_running:
            self.post_message(message)

    def place(self) -> backups.Place:
        """Where copies go now: what was typed last, else the settings, else our own folder."""
        home, wanted = self.console_app.workspace.home, self._chosen or self.console_app.settings.backup.place
        return backups.Place(wanted or str(home.backups))

    def read_shelf(self) -> None:
        """Look at disk and receipts, away from the screen's thread."""
        workspace = self.console_app.workspace

        def look() -> ShelfRead:
            from engine.rundir import base_dir

            return ShelfRead(survey(workspace.home, base_dir(), _away(workspace)))

        self._look(look)

    def _look(self, look: Callable[[], Message]) -> None:
        threading.Thread(target=lambda: self._post(look()), daemon=True, name="shelf").start()

    def _start(self, name: str, job: Callable[[Progress, threading.Event], Ended]) -> None:
        if not self.console_app.workspace.may_change:
            self.app.notify("This console is read-only: it copies and deletes nothing.", markup=False)
        elif not self.desk.start(name, job):
            self.app.notify("Another transfer is under way; wait for its end.", markup=False)

    # b

    def action_back_up(self) -> None:
        """Ask where to, then copy everything that is not proven; a run on another machine from there."""
        from console.screens.place_sheet import PlaceSheet

        item = self.marked()
        run = item.name.run if item is not None and item.here is None and item.away is not None else ""
        there = [i for i in self.shelf.items if (i.name.run == run if run else i.here is not None)]
        waiting = [i for i in there if not i.proven]
        told = [Content(f"{counted(len(waiting))} without a proven copy, {size(sum(i.bytes for i in waiting))}."),
                Content("Every byte of the copy is read back and compared; only then it counts."),
                Content("A place is hub:OWNER/NAME (made private), a folder, or ssh:TARGET:/folder."), Content(""),
                Content.styled("same as  llmconsole ckpt backup --to PLACE" + (f" --run {clean_line(run, 60)}" if run
                               else ""), "$foreground-muted")]
        sheet = PlaceSheet("Back up now?", told, "to:", [("backup", "Back up")], self.place().where)

        def answered(button: str | None) -> None:
            if button == "backup":
                self._chosen = sheet.typed
                self._start(f"backing up to {self.place()}", self._back_up_job(self.place(), run))

        self.app.push_screen(sheet, answered)

    def _back_up_job(self, place: backups.Place, run: str) -> Callable[[Progress, threading.Event], Ended]:
        workspace = self.console_app.workspace

        def job(progress: Progress, stop: threading.Event) -> Ended:
            host, base = _machine(workspace, run)
            done = backups.back_up(workspace.home, place, host, base, progress, stop, None, run or None)
            if done.failed:
                reasons = "; ".join(f"{loss.checkpoint}: {loss.reason}" for loss in done.failed[:3])
                return Ended(f"NOT SAFE: {len(done.failed)} of {len(done.failed) + len(done.receipts)} checkpoints "
                             f"have no proven copy. {reasons}", "b tries again, S says what would be lost", False)
            return Ended(f"{counted(len(done.receipts))} proven at {place}: every byte was read back")

        return job

    # V, R

    def action_verify(self) -> None:
        """Read the copies of the marked checkpoint again; of all when it has none."""
        item = self.marked()
        items = [item] if item is not None and item.copies else list(self.shelf.items)
        self._verify([kept for i in items for kept in i.copies])

    def _verify(self, copies: list[Kept]) -> None:
        home = self.console_app.workspace.home
        if not copies:
            self.app.notify("There are no copies yet: b makes them.", markup=False)
            return

        def job(progress: Progress, stop: threading.Event) -> Ended:
            results = backups.verify(home, copies, progress, stop)
            wrong = [f"{kept.receipt.location}: {text}" for kept, text in results if text]
            if wrong:
                return Ended(f"{len(wrong)} of {len(results)} copies are not what was sent: {wrong[0]}",
                             "b makes a new copy", False)
            return Ended(f"{len(results)} copies were read back whole")

        self._start(f"verifying {len(copies)} copies", job)

    def action_verify_all(self) -> None:
        """Read every copy of every checkpoint again."""
        self._verify([kept for item in self.shelf.items for kept in item.copies])

    def action_restore(self) -> None:
        """Bring the marked checkpoint back to where it belongs on this machine."""
        from console.screens.sheets import Sheet
        from engine.rundir import base_dir

        item = self.marked()
        if item is None:
            return
        base, home = backups.base_for(base_dir(), item.name.run), self.console_app.workspace.home
        source = item.proven[0].receipt.location if item.proven else "no proven copy"
        told = [Content(f"from  {clean_line(source, 200)}"), Content(f"to    {clean_line(str(base), 200)}"),
                Content(f"size  {size(item.bytes)}"), Content(""),
                Content("Every byte is compared. What is in its place is moved aside, never deleted."),
                Content.styled(f"same as  llmconsole ckpt restore {clean_line(str(item.name), 100)}",
                               "$foreground-muted")]

        def job(progress: Progress, stop: threading.Event) -> Ended:
            done = backups.restore(home, item, base, progress, stop)
            return Ended(f"{item.name} is whole in {done.folder}: {len(done.verdicts)} files compared")

        sheet = Sheet(f"Restore {clean_line(str(item.name), 60)}?", told, "Restore" if item.proven else "",
                      yes_first=True)
        self.app.push_screen(sheet, lambda yes: self._start(f"restoring {item.name}", job) if yes else None)

    # p, X

    def action_prune(self) -> None:
        """Say what may go, then ask for the word."""
        home, policy = self.console_app.workspace.home, self.console_app.settings.backup

        def job(progress: Progress, stop: threading.Event) -> Ended:
            from engine.rundir import base_dir

            plan = pruning.plan_prune(home, base_dir(), policy.keep_best, policy.keep_last)
            self.app.call_from_thread(self._ask_prune, plan)
            return Ended(f"Dry run: {len(plan.remove)} may go, {len(plan.keep)} stay. Nothing was deleted.")

        self._start("asking which copies are proven", job)

    def _ask_prune(self, plan: pruning.Pruned) -> None:
        from console.screens.money_sheets import TypedSheet

        told = [Content(f"{size(plan.bytes)} would be freed. What goes can be restored from its proven copy."),
                *prune_lines(plan.remove, plan.keep)]
        buttons = [("prune", "Delete these")] if plan.remove else []
        sheet = TypedSheet("Prune: dry run", told, "to delete type prune:" if plan.remove else "", buttons)
        self._when_typed(sheet, "prune", "prune", plan.remove)

    def action_delete(self) -> None:
        """Delete the marked one here; its name is typed."""
        from console.screens.money_sheets import TypedSheet

        item = self.marked()
        if item is None or item.here is None:
            return
        last = not item.proven
        told = [Content(f"{item.name}, {size(item.bytes)}, in {clean_line(item.here.folder, 160)}"),
                Content.styled("It is the only proven copy: deleting it loses it for good." if last else
                               "A proven copy is elsewhere; R brings it back.", "bold $text-error" if last else "")]
        sheet = TypedSheet("Delete from this machine?", told, f"type {item.name}:", [("lose", "Delete")])
        self._when_typed(sheet, "lose", str(item.name), (item,))

    def _when_typed(self, sheet: Any, button: str, word: str, items: tuple[Item, ...]) -> None:
        def job(progress: Progress, stop: threading.Event) -> Ended:
            freed = sum(pruning.remove_local(item) for item in items)
            return Ended(f"{counted(len(items))} deleted here, {size(freed)} freed")

        def answered(pressed: str | None) -> None:
            if pressed == button and sheet.typed == word:
                self._start("deleting", job)
            elif pressed == button:
                self.app.notify("Nothing was deleted: the word was another one.", markup=False)

        self.app.push_screen(sheet, answered)

    # S

    def action_ask_gate(self) -> None:
        """Ask the copies themselves; the answer stays until something changes."""
        workspace, place, item = self.console_app.workspace, self.place(), self.marked()
        run = item.name.run if item is not None and item.here is None and item.away is not None else ""

        def job(progress: Progress, stop: threading.Event) -> Ended:
            host, base = _machine(workspace, run)
            with backups.in_our_words():
                losses = backups.keeper_for(workspace.home, place).unproven(host, base)
            if not losses:
                text = f"the newest checkpoint of every stage was read back from {place} and is still there"
                near = not run and not place.repo and same_disk(Path(place.where).expanduser(), Path(base))
                answer = f"NO if the disk breaks, else yes: {text}, on this disk" if near else f"YES: {text}"
                return Ended("Every newest checkpoint is proven there.", answer=answer)
            first = "; ".join(f"{loss.checkpoint}: {loss.reason}" for loss in losses[:3])
            return Ended(f"{counted(len(losses))} would be lost.",
                         answer=f"NO: {size(sum(loss.bytes for loss in losses))} would be lost. {first}")

        self._start(f"asking {place}", job)


def counted(number: int) -> str:
    return f"{number} checkpoint" if number == 1 else f"{number} checkpoints"


def _machine(workspace: Any, run: str) -> tuple[Host, str]:
    """Host and base directory of a run on another machine, or this machine's."""
    from engine.rundir import base_dir
    from remote.local import LocalHost

    found = workspace.queries.run(run) if run else None
    if found is not None and found.target != "local":
        return workspace.hosts.get(found.target), f"{found.path}/base"
    return LocalHost(), str(base_dir())


def _away(workspace: Any) -> list[Away]:
    """What runs on other machines said that they saved, where the machine is still there."""
    known = {target.name for target in workspace.hosts.targets.all()}
    return [Away(Name(run.id, saved.source, saved.tag, saved.step), run.target, saved.bytes, saved.t)
            for run in workspace.queries.runs(100) if run.target != "local" and run.target in known
            for saved in workspace.queries.checkpoints(run.id)]
