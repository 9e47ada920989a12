"""What a person decides about machines that are there: which one runs go to, add one, a shell there.

Everything that asks a machine runs in the background and ends in a message; a shell takes the terminal meanwhile.
"""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING, ClassVar

from textual import on
from textual.app import SuspendNotSupported
from textual.binding import Binding
from textual.content import Content

from console.decisions import FAILURES, Decisions
from console.errors import Refused
from console.machines.targets import LOCAL, RENTED
from console.messages import ActionDone, KeyShown
from console.screens.picker import Choice, Picker
from console.text import clean_line

if TYPE_CHECKING:
    from textual.message import Message


class Choosing(Decisions):
    """A mixin of the app."""

    BINDINGS: ClassVar = [
        Binding("exclamation_mark", "shell", "shell", id="app.shell", key_display="!", show=False,
                tooltip="A shell on the machine of the run in front, in this terminal; leave it with exit"),
    ]

    def action_shell(self) -> None:
        """Open a shell where the run in front is, else where runs go."""
        detail = self.glance.detail if self.glance else None
        chosen = detail.run.target if detail else self.workspace.hosts.targets.default or self.settings.run.target
        self.open_shell(LOCAL if chosen in RENTED else chosen)

    def open_shell(self, name: str) -> None:
        """Give the terminal to a shell on this target until it ends."""
        from console.machines.hosts import shell_argv

        try:
            argv = shell_argv(self.workspace.hosts.target(name), self.workspace.home)
            with self.suspend():
                print(f"A shell on {clean_line(name, 60)}; `exit` comes back to llmconsole.", flush=True)
                subprocess.call(argv)
        except SuspendNotSupported:
            self.notify(f"This terminal cannot be handed over; llmconsole target shell {clean_line(name, 60)} does it.",
                        severity="warning", markup=False)
        except FAILURES as error:
            self.notify(clean_line(str(error), 300), title="no shell", severity="error", markup=False)

    def action_choose_target(self) -> None:
        """Choose where runs go from now on."""
        self.push_screen(Picker("Where should runs go?", self._target_choices(), "none"), self._target_chosen)

    def _target_choices(self) -> list[Choice]:
        hosts = self.workspace.hosts
        chosen = hosts.targets.default or self.settings.run.target
        found = []
        for target in hosts.targets.all():
            facts = target.gpus or ("always there, costs nothing" if target.kind == LOCAL else "")
            silent = hosts.silence(target.name)
            state = f"no answer: {silent.error}" if silent else "" if target.kind == LOCAL or target.python else \
                "not prepared yet: enter prepares it"
            address = f"{clean_line(target.address, 34)}  " if target.kind != LOCAL else ""
            line = Content.assemble(("* " if target.name == chosen else "  "), (f"{target.title:<20}", "bold"),
                                    address, (facts, "$foreground-muted"), "  ",
                                    (clean_line(state, 80), "$text-warning"))
            found.append(Choice(target.name, line, f"{target.name} {target.title} {target.address} {facts}"))
        for name in RENTED:
            line = Content.assemble(("* " if name == chosen else "  "), (f"{name:<20}", "bold"),
                                    ("rent a machine for each run; asks for a budget first", "$foreground-muted"))
            found.append(Choice(name, line, f"{name} rent pod"))
        add = Content.assemble("  ", (f"{'add a machine …':<20}", "bold"),
                               ("one that ssh reaches: user@host", "$foreground-muted"))
        return [*found, Choice("+", add, "add ssh host machine")]

    def _target_chosen(self, name: str | None) -> None:
        if name == "+":
            self.action_add_target()
        elif name is not None:
            self.in_background(lambda: self._use(name))

    def _use(self, name: str) -> Message:
        """Prepare it if it is another machine's first time, then send runs there."""
        hosts = self.workspace.hosts
        if name not in RENTED and name != LOCAL and not hosts.target(name).python:
            from console.machines.hosts import ssh_host
            from console.machines.preparing import prepare

            box = ssh_host(hosts.target(name), self.workspace.home)
            try:
                prepare(box, hosts.targets, hosts.target(name), self._tell)
            finally:
                box.close()
        hosts.targets.use(name)
        return ActionDone(f"Runs go to {hosts.target(name).title if name not in RENTED else name} now.")

    def _tell(self, text: str) -> None:
        self.call_from_thread(self.notify, clean_line(text, 200), markup=False, timeout=4)

    def action_add_target(self) -> None:
        """Look at a machine and remember it."""
        from console.screens.place_sheet import PlaceSheet

        lines = [Content("A machine that ssh reaches with your keys or agent. It is only looked at, not changed."),
                 Content("Its host key is shown and pinned when you agree."), Content(""),
                 Content.styled("same as  llmconsole target add user@host", "$foreground-muted")]
        sheet = PlaceSheet("Add a machine", lines, "user@host[:port]:", [("look", "Look at it")])
        self.push_screen(sheet, lambda answer: self._look_at(sheet.typed) if answer else None)

    def _look_at(self, address: str) -> None:
        from console.machines.adding import first_look

        self.in_background(lambda: KeyShown(address, first_look(self.workspace.home, address)))

    @on(KeyShown)
    def _agree(self, message: KeyShown) -> None:
        from console.screens.sheets import Sheet

        address, fingerprint = message.address, message.fingerprint
        shown = f"  {fingerprint}" if fingerprint else "  the one that was pinned before"
        lines = [Content(f"{clean_line(address, 100)} shows the host key"), Content(shown), Content(""),
                 Content("Compare it with what its owner tells you. From now on it must show this key.")]
        self.push_screen(Sheet("Is that the machine you mean?", lines, "It is", "Cancel"),
                         lambda yes: self.in_background(lambda: self._add(address, fingerprint)) if yes else None)

    def _add(self, address: str, fingerprint: str) -> Message:
        from console.machines.adding import add, look, target_for

        def same(shown: str) -> None:
            if shown != fingerprint:
                raise Refused(f"{address} shows another key than a moment ago, so it was not added")

        target = target_for(self.workspace.home, address)
        added = add(self.workspace.home, target, look(target, self.workspace.home, same))
        return ActionDone(f"Added {added.name}: {added.gpus or 'no GPU'}. Choose it with t; it is prepared first.")
