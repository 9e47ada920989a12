"""The terminal app: opens the workspace, owns the six screens, hands messages to them, and says what keeps running.

It holds no state of a run: background threads read, post messages, and the handlers here pass them on.
"""

from __future__ import annotations

import gc
import os
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from textual import on
from textual.app import SystemCommand
from textual.binding import Binding
from textual.css.query import NoMatches
from textual.message import Message
from textual.screen import Screen

from console import crash
from console.chat.link import ChatLink
from console.exit_lines import exit_lines
from console.following import Following
from console.looking_up import LookingUp
from console.messages import ChatDied, ChatSaid, CurvesRead, Looked, MachineRead, ModelsRead, ReadFailed, StepRead
from console.reader import Reader
from console.rental.money import NOTHING_RENTED
from console.rental.renting import Renting
from console.screens.base import ConsoleScreen
from console.settings import Settings
from console.text import clean_line
from console.themes import DARK, LIGHT
from console.widgets.numbers import clock, short
from console.widgets.top_bar import SCREENS, TopFacts

if TYPE_CHECKING:
    from console.glance import Glance
    from console.paths import Home
    from console.runlog.ingest import Follower
    from console.workspace import Workspace

# Which screens a message concerns; the chat's own messages go to the chat.
_READERS: dict[type[Message], tuple[str, ...]] = {
    CurvesRead: ("run",), StepRead: ("run",), ModelsRead: ("chat", "checkpoints"), MachineRead: ("home",)}


def _screen(mode: str) -> Callable[[], Screen[None]]:
    """A screen's factory that imports it only when it is first shown."""

    def make() -> Screen[None]:
        from importlib import import_module

        module = import_module(f"console.screens.{mode}")
        return getattr(module, f"{mode.capitalize()}Screen")()

    return make


class Console(Renting, Following, LookingUp, ChatLink):
    """Screens by mode, one reader thread, one follower thread, one chat process."""

    TITLE = "llmconsole"
    CSS_PATH = "app.tcss"
    MODES: ClassVar = {mode: _screen(mode) for mode, _ in SCREENS}
    DEFAULT_MODE = "home"
    BINDINGS: ClassVar = [
        *(Binding(str(number), f"switch_mode('{mode}')", title, id=f"app.{mode}", show=False, tooltip=f"Screen {title}")
          for number, (mode, title) in enumerate(SCREENS, 1)),
        Binding("question_mark,f1", "help_screen", "help", id="app.help", show=False, tooltip="This help"),
        Binding("ctrl+p", "command_palette", "palette", id="app.palette", show=False, priority=True,
                tooltip="Every action by name; also :"),
        Binding("colon", "command_palette", id="app.palette_colon", show=False),
        Binding("t", "choose_target", "target", id="app.target", show=False, tooltip="Where runs go; add a machine"),
        Binding("A", "attach", "attach", id="app.attach", show=False,
                tooltip="Follow a run of nanochat that others started, from its log"),
        Binding("q", "leave", "quit", id="app.quit", tooltip="Leave; work keeps running"),
        Binding("ctrl+q", "leave", id="app.quit_always", show=False),
        Binding("ctrl+c", "screen.copy_text", "copy", id="app.copy", show=False, tooltip="Copy the selected text"),
    ]

    def __init__(self, workspace: Workspace, settings: Settings, chat_argv: Sequence[str] | None = None,
                 demo: bool = False, keymap: Mapping[str, str] | None = None) -> None:
        super().__init__()
        self._own_keys = dict(keymap or {})
        self.workspace, self.settings, self.chat_argv, self.demo = workspace, settings, chat_argv, demo
        self.glance: Glance | None = None
        self.machine: dict[str, Any] = {}
        self.run_in_front: str | None = None
        self.reader = Reader(workspace, self.post_message)
        self._follower: Follower | None = None
        self._problem = ""
        self._saved: object = None
        self.register_theme(DARK)
        self.register_theme(LIGHT)
        self.theme = os.environ.get("TEXTUAL_THEME") or DARK.name

    # start and end

    def on_mount(self) -> None:
        if self._own_keys:
            self.set_keymap(self._own_keys)
        self.reader.start()
        self.reader.ask(None, force=True)
        self.call_after_refresh(self._after_first_frame)

    def _after_first_frame(self) -> None:
        """What can wait until something is on screen."""
        gc.enable()  # off since the start, see `console.cli.main`
        self._follower = self.workspace.follow(lambda runs: self.reader.ask(self.run_in_front))
        self.workspace.operator.rentals.keep_going()
        self.set_interval(1.0, self._tick)
        self.in_background(self._read_machine)
        for notice in self.workspace.notices:
            self.notify(clean_line(notice, 400), markup=False, timeout=10)

    def _tick(self) -> None:
        self.reader.ask(self.run_in_front)
        for screen in self._front_screens():
            screen.tick()

    def action_leave(self) -> None:
        self.exit(exit_lines(self.state, self.glance.rented.alive if self.glance else ()))

    async def action_quit(self) -> None:
        self.action_leave()

    async def on_unmount(self) -> None:
        self.reader.stop()
        await self.chat_kill()

    def _handle_exception(self, error: Exception) -> None:
        """A screen that is being made while the app closes misses its children: that is no crash."""
        if self.is_running or not isinstance(error, NoMatches):
            super()._handle_exception(error)

    def _fatal_error(self) -> None:
        """The framework's own dump would print local variables: ours prints none."""
        error = self._exception or sys.exc_info()[1] or RuntimeError("unknown")
        self._exit_renderables.append(crash.kind_sentence(self.workspace.home.path, error))
        self._close_messages_no_wait()

    # what background work told

    @on(Looked)
    def _looked(self, message: Looked) -> None:
        self.glance, self._problem = message.glance, ""
        self.watch_money()
        for screen in self._front_screens():
            screen.show(message.glance)
            screen.tick()
        detail = message.glance.detail
        saved = (detail.run.id, len(detail.checkpoints)) if detail else None
        if saved != self._saved:
            self._saved = saved
            self.action_read_models()

    @on(ReadFailed)
    def _read_failed(self, message: ReadFailed) -> None:
        self._problem = f"the run log could not be read: {clean_line(message.text, 200)}; this is the last good state"

    @on(MachineRead)
    def _machine_read(self, message: MachineRead) -> None:
        self.machine = message.facts
        self._pass_on(message)

    @on(CurvesRead)
    @on(StepRead)
    @on(ModelsRead)
    @on(ChatSaid)
    @on(ChatDied)
    def _pass_on(self, message: Message) -> None:
        readers = _READERS.get(type(message), ("chat",))
        for stack in self._screen_stacks.values():
            for screen in stack:
                if isinstance(screen, ConsoleScreen) and screen.MODE in readers:
                    screen.post_message(message)

    def _front_screens(self) -> list[ConsoleScreen]:
        """The screen of this mode once it stands, also when a sheet lies over it."""
        return [screen for screen in self.screen_stack if isinstance(screen, ConsoleScreen) and screen.is_mounted]

    def _read_machine(self) -> Message:
        from console.credentials import find as find_credential
        from engine.machine import facts
        from engine.rundir import base_dir

        key = find_credential("RUNPOD_API_KEY", self.workspace.home.path)
        return MachineRead({**facts(base_dir()), "artifacts": str(base_dir()), "state": str(self.workspace.home.path),
                            "rent_key": key is not None})

    def action_read_models(self) -> None:
        """Look at the disk for models; the screens that list them are told."""
        from engine.catalog import list_models
        from engine.rundir import base_dir

        self.in_background(lambda: ModelsRead(tuple(list_models(base_dir()))))

    def chat_with(self, ref: str) -> None:
        """Open the chat with this model."""
        self.switch_mode("chat")
        for screen in self._front_screens():
            screen.call_after_refresh(getattr(screen, "use"), ref)  # noqa: B009 - only the chat screen has it

    # facts for the frame

    def top_facts(self) -> TopFacts:
        """What row 1 says."""
        detail, read_only = self.glance.detail if self.glance else None, not self.workspace.may_change
        money = self.glance.rented.money if self.glance else NOTHING_RENTED
        if detail is None:
            return TopFacts(money=money, read_only=read_only, demo=self.demo)
        start, end = detail.elapsed
        elapsed = (end or time.time()) - start if start else None
        where = detail.run.attached or detail.run.target
        target = "this machine" if where == "local" else clean_line(where, 20)
        target = f"not ours, on {target}" if detail.run.attached else target
        word = detail.pulse(time.time()).word or str(detail.state.word)
        return TopFacts(target, word, elapsed, money, read_only, self.demo)

    def banner(self) -> str:
        """One line over the screen when something limits what can be done; else ''."""
        if self.workspace.hands_off:
            return "read-only by your own wish: no start, stop, copy or delete; the palette switches it off"
        if self.workspace.read_only:
            owner = self.workspace.owner
            who = f"{clean_line(str(owner), 100)} owns this log" if owner else "opened with --read-only"
            return f"{who}; read-only here: no start, stop or resume"
        rented = self.glance.rented if self.glance else None
        shout = rented.money.shout if rented else ""
        problem = shout or self._problem or (self._follower.problem if self._follower else "")
        return clean_line(problem or (rented.trouble if rented else ""), 300)

    def status_line(self, width: int, height: int) -> str:
        """All there is room for below 60x16."""
        facts = self.top_facts()
        words = [facts.word.upper() + (f" {clock(facts.elapsed)}" if facts.elapsed is not None else "")]
        detail = self.glance.detail if self.glance else None
        curves = [detail.latest[stage] for stage in detail.charted] if detail else []
        words += [f"loss {short(c['loss'].value, 4)}" for c in curves if "loss" in c][-1:]
        return " · ".join([*words, f"${facts.money.spent:.2f}", f"terminal {width}x{height}, needs 60x16"])

    # help, palette, clipboard

    def action_help_screen(self) -> None:
        from console.screens.help import HelpSheet, help_rows
        from console.version import version

        about = self.screen.HELP if isinstance(self.screen, ConsoleScreen) else ""
        rows = help_rows(list(self.screen.active_bindings.values()), self.get_key_display)
        self.push_screen(HelpSheet(about, rows, version()))

    def get_system_commands(self, screen: Screen[Any]) -> Iterable[SystemCommand]:
        """Every action by name, then the framework's own."""
        from console.palette import commands

        yield from commands(self, screen)
        yield from (command for command in super().get_system_commands(screen) if command.title not in ("Quit", "Keys"))


def _own_keys(home: Home) -> dict[str, str]:
    """A person's own keys; checking them needs every screen, so only who has some pays for that."""
    if not home.keymap.exists():
        return {}
    from console.keymap import load

    return load(home.keymap)


def main(*, home: Path | None = None, read_only: bool = False, demo: bool = False) -> int:
    """Open the console on this machine's state; the exit code. Prints what keeps running when it closes."""
    from console import settings
    from console.workspace import Workspace

    with Workspace.open(home, read_only) as workspace:
        crash.guard_threads(workspace.home.path)
        app = Console(workspace, settings.load(workspace.home.config), demo=demo, keymap=_own_keys(workspace.home))
        said = app.run()
    if said:
        print(said)
    return app.return_code or 0
