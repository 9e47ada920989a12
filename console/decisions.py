"""What a person decides with a key: start, resume, stop, choose. Asks where it must, then has the operator do it.

What may take a moment runs in a daemon thread and ends in a message: no key waits for it, and neither does quitting.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

from textual import on
from textual.app import App
from textual.message import Message

from console.errors import ConsoleError
from console.machines.targets import RENTED
from console.messages import ActionDone, ActionRefused, ListRead, PageRead, PlanMade
from console.text import clean_line
from engine.config import ConfigError
from remote.errors import RemoteError

if TYPE_CHECKING:
    from console.glance import Glance, RunRow
    from console.reader import Reader
    from console.runstate import RunState
    from console.settings import Settings
    from console.workspace import Workspace

FAILURES = (ConsoleError, ConfigError, RemoteError, OSError, sqlite3.Error)


class Decisions(App[str]):
    """A mixin of the app, which gives it the attributes below."""

    workspace: Workspace
    settings: Settings
    glance: Glance | None
    reader: Reader
    run_in_front: str | None
    compared: tuple[str, ...] = ()  # runs that are drawn beside it
    recipe_to_start = ""

    @property
    def state(self) -> RunState | None:
        """How the run in front is."""
        return self.glance.detail.state if self.glance and self.glance.detail else None

    @property
    def followed(self) -> bool:
        """Whether the run in front was started by others and is only followed."""
        return bool(self.glance and self.glance.detail and self.glance.detail.run.attached)

    def in_background(self, work: Callable[[], Message | None]) -> None:
        """Run `work` in a daemon thread and post what it returns; what it refuses becomes ActionRefused."""

        def go() -> None:
            try:
                message = work()
            except FAILURES as error:
                message = ActionRefused(str(error), getattr(error, "next", ""))
            if message is not None and self.is_running:
                self.post_message(message)

        threading.Thread(target=go, daemon=True, name="action").start()

    def show_run(self, run: str | None) -> None:
        """Put this run in front, on the run screen."""
        self.run_in_front = run
        self.reader.ask(run, force=True)
        self.switch_mode("run")

    def action_start_new(self) -> None:
        """Show what starting the recipe of the settings would do, and start it after a yes."""
        self.start_recipe(self.settings.run.recipe)

    def start_recipe(self, recipe: str) -> None:
        """Show what starting this recipe would do, where runs go now, and start it after a yes."""
        self.recipe_to_start = recipe
        target = self.workspace.hosts.targets.default or self.settings.run.target
        if target in RENTED:
            self.start_by_renting()
        else:
            self.in_background(lambda: PlanMade(self.workspace.operator.plan(recipe, target)))

    def start_by_renting(self) -> None:
        """Show offers and ask for a budget first."""
        raise NotImplementedError

    @on(PlanMade)
    def _plan_made(self, message: PlanMade) -> None:
        from console.screens.sheets import start_sheet

        def start() -> Message:
            return ActionDone("Started. You may leave at any time; the work goes on.",
                              self.workspace.operator.start(message.plan))

        self.push_screen(start_sheet(message.plan), lambda yes: self.in_background(start) if yes else None)

    def action_start_or_resume(self) -> None:
        """Resume the run in front if it can be, else offer a new one."""
        from console.runstate import RESUMABLE

        state, here = self.state, self.glance.rented.here if self.glance else None
        if state is None or state.word == "finished" or (here is not None and here.settled and not state.alive):
            self.action_start_new()  # a machine that was given back cannot go on
        elif state.word in RESUMABLE:
            self._resume(state.run)
        else:
            told = "This run is not ours, so it cannot be started or resumed here; x ends the following." \
                if self.followed else "This run is at work. x stops it; leaving does not."
            self.notify(told, markup=False)

    def _resume(self, run: str) -> None:
        followed = self.followed

        def resume() -> Message:
            attempt = self.workspace.operator.resume(run)
            told = "Following again. The run itself is not ours: it cannot be resumed from here." if followed else \
                f"Resumed from the newest complete checkpoint, attempt {attempt}."
            return ActionDone(told, run)

        self.in_background(resume)

    def action_stop_run(self) -> None:
        """Ask, then let the run finish its step, save and end."""
        from console.screens.sheets import stop_sheet, unfollow_sheet

        state, followed, here = self.state, self.followed, self.glance.rented.here if self.glance else None
        if state is None or not state.alive:
            self.notify("Nothing is running.", markup=False)
            return

        def stop() -> Message:
            self.workspace.operator.stop(state.run)
            told = "Not followed any more." if followed else "Stopping: the step is finished and saved first."
            return ActionDone(told, state.run)

        sheet = unfollow_sheet(state.run) if followed else stop_sheet(
            state.run, state.stage or str(state.word), here is not None and not here.settled)
        self.push_screen(sheet, lambda yes: self.in_background(stop) if yes else None)

    def action_choose_run(self) -> None:
        """Choose which run is in front."""
        self._offer("Choose a run", "no runs yet: press s on screen 1", lambda row: True, self.show_run)

    def action_choose_resume(self) -> None:
        """Choose a run that ended early, and go on with it."""
        from console.runstate import RESUMABLE

        self._offer("Resume which run from its newest checkpoint?", "no run ended early: there is nothing to resume",
                    lambda row: row.word in [str(word) for word in RESUMABLE], self._resume)

    def action_replay(self) -> None:
        """Choose a run to play again."""

        def begin(run: str) -> None:
            from console.replayed import replay

            self.in_background(lambda: ActionDone("Playing it again, 20 times as fast. x stops that.",
                                                  replay(self.workspace, run, 20.0)))

        self._offer("Play which run again?", "there is no run yet", lambda row: True, begin)

    def action_compare(self) -> None:
        """Choose a run to draw beside the one in front, or to take away again."""
        front = self.glance.detail.run.id if self.glance and self.glance.detail else ""
        self._offer("Draw which run beside this one?", "there is no other run", lambda row: row.run.id != front,
                    self._beside)

    def _offer(self, title: str, empty: str, fits: Callable[[RunRow], bool], chosen: Callable[[str], object]) -> None:
        """A list of runs, by what is known here: no machine is asked for a list."""
        from console.glance import RunRow
        from console.screens.run_choices import run_choices

        def listed() -> Message:
            runs = self.workspace.queries.runs(500)
            states = self.workspace.operator.states(runs, ask=False)
            rows = [row for run in runs if fits(row := RunRow(run, str(states[run.id].word)))]
            return ListRead(title, run_choices(rows, self.compared if chosen == self._beside else ()), empty, chosen)

        self.in_background(listed)

    def action_choose_recipe(self) -> None:
        """Choose what to train; its stages, time and cost are shown before anything starts."""
        from console.screens.run_choices import recipe_choices

        def listed() -> Message:
            from engine.recipe import list_recipes

            found, _ = list_recipes([self.workspace.home.recipes])
            return ListRead("Start which recipe?", recipe_choices(found), "there is none", self.start_recipe)

        self.in_background(listed)

    @on(ListRead)
    def _list_read(self, message: ListRead) -> None:
        from console.screens.picker import Picker

        def taken(chosen: str | None) -> None:
            if chosen:
                message.chosen(chosen)

        self.push_screen(Picker(message.title, message.choices, message.empty), taken)

    @on(PageRead)
    def _page_read(self, message: PageRead) -> None:
        from console.screens.sheets import page_sheet

        self.push_screen(page_sheet(message.title, message.text, message.rows, message.same))

    def _beside(self, run: str) -> None:
        others = tuple(other for other in self.compared if other != run)
        self.compare_with(others if run in self.compared else (*others, run)[-2:])

    def compare_with(self, runs: tuple[str, ...]) -> None:
        """Draw these runs beside the one in front."""
        self.compared = runs
        self.reader.compare_with(runs)

    @on(ActionDone)
    def _action_done(self, message: ActionDone) -> None:
        if not self._screen_stacks.get(self.current_mode):
            return  # the app is closing; what was done is done
        if message.run is not None:
            self.show_run(message.run)
        else:
            self.reader.ask(self.run_in_front, force=True)
        self.notify(clean_line(message.text, 300), markup=False)

    @on(ActionRefused)
    def _action_refused(self, message: ActionRefused) -> None:
        text = clean_line(message.text, 500) + (f"\n{clean_line(message.next, 300)}" if message.next else "")
        self.notify(text, title="not done", severity="error", markup=False, timeout=12)
