"""What a person decides about runs that others started: which one to follow, and when to stop following.

The app's half of `console.attaching`. Machines are asked in the background; the answers are messages.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from textual import on
from textual.message import Message

from console.decisions import FAILURES, Decisions
from console.machines.targets import LOCAL, RENTED
from console.messages import ActionDone, Sighted, SightFailed

if TYPE_CHECKING:
    from console.screens.attach_sheet import AttachSheet, Wish


class Following(Decisions):
    """A mixin of the app."""

    def action_attach(self) -> None:
        """Ask for a machine and a log or folder there, and follow it."""
        from console.attaching import complete
        from console.screens.attach_sheet import AttachSheet

        targets = self.workspace.hosts.targets
        known = [target.name for target in targets.all()]
        chosen = targets.default or self.settings.run.target
        sheet = AttachSheet(known, LOCAL if chosen in RENTED or chosen not in known else chosen,
                            lambda target, path: complete(self.workspace, target, path))
        self.push_screen(sheet, self._follow)

    def on_attach_sheet_asked(self, message: AttachSheet.Asked) -> None:
        from console.attaching import look_at

        wish = message.wish

        def look() -> Message:
            try:
                return Sighted(wish, look_at(self.workspace, wish.target, wish.path))
            except FAILURES as error:
                return SightFailed(wish, str(error), getattr(error, "next", ""))

        self.in_background(look)

    @on(Sighted)
    def _sighted(self, message: Sighted) -> None:
        if (sheet := self._attach_sheet()) is not None:
            sheet.sighted(message.wish, message.sight)

    @on(SightFailed)
    def _not_sighted(self, message: SightFailed) -> None:
        if (sheet := self._attach_sheet()) is not None:
            sheet.refused(message.wish, message.text, message.next)

    def _attach_sheet(self) -> AttachSheet | None:
        from console.screens.attach_sheet import AttachSheet

        return self.screen if isinstance(self.screen, AttachSheet) else None

    def _follow(self, wish: Wish | None) -> None:
        from console.attaching import attach

        if wish is None:
            return
        log, folder = ("", wish.path) if wish.folder else (wish.path, "")

        def follow() -> Message:
            return ActionDone("Following. Leaving does not end that; x does. The run itself is never touched.",
                              attach(self.workspace, wish.target, log, folder))

        self.in_background(follow)
