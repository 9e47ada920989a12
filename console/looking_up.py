"""What a person looks up from any screen: doctor, settings, paths, the ledger, the command behind a screen; and what
this console leaves alone for a while: an alert, or everything.

The app's half; the facts are gathered in the background by the modules that the verbs use too.
"""

from __future__ import annotations

import shlex
import time
from typing import TYPE_CHECKING, ClassVar

from textual.binding import Binding

from console.decisions import Decisions
from console.messages import ActionDone, ListRead, PageRead
from console.runlog.queries import RunEvent
from console.text import clean_line

if TYPE_CHECKING:
    from textual.message import Message

MUTE_S = 3600.0


class LookingUp(Decisions):
    """A mixin of the app."""

    BINDINGS: ClassVar = [
        Binding("D", "doctor", "doctor", id="app.doctor", show=False, tooltip="Check this machine and our own files"),
        Binding("comma", "settings_sheet", "settings", id="app.settings", show=False, key_display=",",
                tooltip="What is set, and where it comes from"),
        Binding("y", "copy_cli", "copy command", id="app.copy_cli", show=False,
                tooltip="Copy the command that says what this screen says"),
    ]
    _muted: dict[object, float] | None = None

    async def action_go(self, mode: str, action: str) -> None:
        """Go to a screen ('' for none), wait until it stands, and do something there."""
        if not mode:
            await self.run_action(action)
            return
        await self.switch_mode(mode)
        self.screen.call_after_refresh(self.run_action, action, self.screen)

    def action_doctor(self) -> None:
        """Every finding of `llmconsole doctor`."""

        def look() -> Message:
            from console.doctor import PROBLEM, examine

            found = list(examine(self.workspace.home, str(self.workspace.owner or "")))
            marks = {"ok": "✓", "warning": "▲", PROBLEM: "✗"}
            rows = [(f"{marks[each.level]} {each.name}", each.text + (f" → {each.next}" if each.next else ""))
                    for each in sorted(found, key=lambda each: each.level == "ok")]
            bad = sum(each.level == PROBLEM for each in found)
            told = f"{bad} of {len(found)} findings need repair." if bad else "Nothing needs repair."
            return PageRead("Doctor", told, rows, "llmconsole doctor")

        self.in_background(look)

    def action_settings_sheet(self) -> None:
        """Every setting with its origin; they are changed in the file."""
        settings = self.settings
        rows = [(name, f"{'–' if value == '' else value}" + ("" if origin == "default" else f"   ({origin})"))
                for name, value, origin, _ in settings.rows()]
        told = f"Changed in {settings.file}; read when llmconsole opens. Keys: {self.workspace.home.keymap}."
        self.post_message(PageRead("Settings", told, rows, "llmconsole config show"))

    def action_ledger(self) -> None:
        """What rented machines cost, from the ledger alone."""

        def look() -> Message:
            now = time.time()
            everyone = self.workspace.operator.rentals.book.all()
            rows = [(f"{time.strftime('%Y-%m-%d %H:%M', time.localtime(r.created))}  {r.run}",
                     f"{r.phase} · {r.hours(now):.2f} h · ${r.spent(now):.2f}") for r in everyone]
            total = sum(r.spent(now) for r in everyone)
            told = f"${total:.2f} in all, {sum(r.bills for r in everyone)} bill now" if everyone else \
                "Nothing was ever rented from here."
            return PageRead("Ledger", told, rows, "llmconsole cost show")

        self.in_background(look)

    def action_paths(self) -> None:
        """Where everything lies; the chosen path is copied."""

        def look() -> Message:
            from console.screens.run_choices import path_choices
            from engine.rundir import base_dir

            home, detail = self.workspace.home, self.glance.detail if self.glance else None
            found = {"state": home.path, "settings": home.config, "keys": home.keymap, "run log": home.runlog,
                     "ledger": home.ledger, "recipes": home.recipes, "backups": home.backups, "chats": home.chats,
                     "crashes": home.path / "crash", "artifacts": base_dir()}
            if detail is not None:
                found["this run"] = detail.folder.path
                found["its events"] = detail.folder.events
                if detail.state.stage:
                    found["its log"] = detail.folder.stage_log(detail.state.stage)
            return ListRead("Where everything lies: enter copies a path", path_choices(found), "", self._copy_path)

        self.in_background(look)

    def _copy_path(self, path: str) -> None:
        self.copy(path, "path")

    def copy(self, text: str, what: str) -> None:
        """Put text on the clipboard, and say by which way it went."""
        from console import clipboard

        self.notify(clipboard.put(self, text, what, self.workspace.home.path), markup=False)

    def action_copy_cli(self) -> None:
        """The command that says the same as the screen in front."""
        self.copy(self.cli_here(), "command")

    def cli_here(self) -> str:
        """The verb of this screen, with the run in front."""
        state = self.state
        run = shlex.quote(state.run) if state else ""
        stage = f" --stage {shlex.quote(state.stage)}" if state and state.stage else ""
        verb = {"run": f"run show {run}", "logs": f"run logs {run}{stage} --follow", "checkpoints": "ckpt list",
                "chat": "chat", "activity": f"run show {run} --json"}.get(self.current_mode, "status")
        return f"llmconsole {verb}".strip()

    def action_bundle(self) -> None:
        """What somebody who helps needs to see, in one file without secrets."""
        run = self.state.run if self.state else None

        def save() -> Message:
            from console.bundle import save_bundle

            path = save_bundle(self.workspace, run)
            return ActionDone(f"Saved {path}: read it before you pass it on.")

        self.in_background(save)

    # left alone for a while

    def action_mute_alert(self) -> None:
        """The newest alert of the run in front is not shown again for an hour."""
        alert = self.newest_alert()
        if alert is None:
            self.notify("There is no alert to mute.", markup=False)
            return
        self._muted = {**(self._muted or {}), _kind(alert): time.time() + MUTE_S}
        self.notify(f"Muted for 1 h: {clean_line(str(alert.data.get('text', '')), 200)}", markup=False)

    def newest_alert(self) -> RunEvent | None:
        """The newest alert of the run in front that is not muted."""
        detail, muted, now = self.glance.detail if self.glance else None, self._muted or {}, time.time()
        shown = [alert for alert in detail.alerts if muted.get(_kind(alert), 0.0) < now] if detail else []
        return shown[-1] if shown else None

    def action_hands_off(self) -> None:
        """Change nothing from this console, or again."""
        if self.workspace.read_only:
            self.notify("This console is read-only in any case: the line above says why.", markup=False)
            return
        self.workspace.hands_off = not self.workspace.hands_off
        self.notify("Read-only: no start, stop, copy or delete from here. Guards of rented machines go on."
                    if self.workspace.hands_off else "This console may change things again.", markup=False)


def _kind(alert: RunEvent) -> tuple[str, object, object]:
    """Alerts of one run, stage and code are muted together."""
    return alert.run, alert.stage, alert.data.get("code")


