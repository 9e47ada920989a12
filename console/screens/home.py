"""Screen 1: what to do next. The first row starts; once there are runs they follow below it."""

from __future__ import annotations

import time
from typing import Any, ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding
from textual.containers import Horizontal, Vertical
from textual.content import Content
from textual.widgets import OptionList, Static
from textual.widgets.option_list import Option

from console.glance import Glance, RunRow
from console.machines.targets import LOCAL, RENTED
from console.messages import MachineRead
from console.screens.base import ConsoleScreen
from console.text import clean_line
from console.widgets.numbers import ago, clock
from console.widgets.pane import Titled
from console.widgets.states import RUN
from console.widgets.text_pane import TextPane, pair

_CHAT, _NO_CHAT = "the newest, most trained one on this machine", "there is none yet: the first row makes one"


class Choices(Titled, OptionList):
    """The framed list of Home."""

    BINDINGS: ClassVar = [
        Binding("j", "cursor_down", "down", id="list.down", show=False, tooltip="Next row"),
        Binding("k", "cursor_up", "up", id="list.up", show=False, tooltip="Row above"),
        Binding("g", "first", "first", id="list.first", show=False, tooltip="First row"),
        Binding("G", "last", "last", id="list.last", show=False, tooltip="Last row"),
    ]


class HomeScreen(ConsoleScreen):
    MODE = "home"
    CSS_PATH = "home.tcss"
    HELP = "Start here: the first row trains a small model on this machine; no account, no GPU, no download needed."
    BINDINGS: ClassVar = [
        Binding("enter", "open", "choose", id="home.open", tooltip="Do what the marked row says", priority=False),
        Binding("s", "app.start_new", "start", id="home.start", tooltip="Train the chosen recipe; asks first"),
        Binding("t", "app.choose_target", "target", id="home.target", tooltip="Where runs go; add or rent a machine"),
        Binding("r", "app.choose_run", "runs", id="home.runs", tooltip="Choose a run to look at"),
    ]

    def __init__(self) -> None:
        super().__init__()
        self._shown: object = None

    def body(self) -> ComposeResult:
        with Horizontal(id="home"):
            choices = Choices(id="choices", markup=False)
            choices.set_title("Start here")
            yield choices
            with Vertical(id="home-side"):
                yield TextPane(id="facts")
                yield Static(id="advice", markup=False)

    def on_mount(self) -> None:
        super().on_mount()
        self.query_one("#choices").focus()
        self._facts(self.console_app.machine)
        if self.console_app.glance is None:
            self.show(Glance((), None))

    @on(MachineRead)
    def _machine_read(self, message: MachineRead) -> None:
        self._facts(message.facts)
        if (glance := self.console_app.glance) is not None:
            self.show(glance)

    def _facts(self, facts: dict[str, Any]) -> None:
        pane = self.query_one("#facts", TextPane)
        pane.show("This machine", "", tuple(map(str, facts.items())), lambda width: _fact_lines(facts, width))

    def show(self, glance: Glance) -> None:
        choices = self.query_one("#choices", Choices)
        options = self._options(glance)
        key = tuple((option.id, str(option.prompt)) for option in options)
        if key == self._shown:
            return
        self._shown = key
        marked = choices.highlighted_option.id if choices.highlighted_option else None
        choices.clear_options()
        choices.add_options(options)
        ids = [option.id for option in options]
        choices.highlighted = ids.index(marked) if marked in ids else 0
        count = len(glance.runs)
        choices.set_title("Start here, or go on" if count else "Start here", f"{count} recent" if count else "")
        self.query_one("#advice", Static).update(Content(_advice(glance)))

    def _options(self, glance: Glance) -> list[Option]:
        run = self.console_app.settings.run
        options = [
            Option(_start_row(run.recipe, glance.rented.target or run.target), id="start"),
            Option(_row("Chat with a model", "5", _CHAT if glance.runs else _NO_CHAT), id="chat"),
            Option(_row("Use another machine", "t", self._elsewhere()), id="target"),
            Option(_row("Follow a run that others started", "A", "nanochat's own, from its log, on any machine"),
                   id="attach"),
        ]
        options.insert(1, Option("", disabled=True, id="gap-1"))
        if glance.runs:
            options += [Option("", disabled=True, id="gap-2"),
                        Option(Content.styled("Recent runs", "$foreground-muted"), disabled=True, id="heading")]
        now = time.time()
        return options + [Option(_run_row(row, now), id=f"run:{row.run.id}") for row in glance.runs]

    def _elsewhere(self) -> str:
        key = self.console_app.machine.get("rent_key")
        rent = "or rent 8×H100 at RunPod" + ("" if key else " (needs its key: llmconsole config set-secret)")
        return f"one that ssh reaches, {rent}"

    @on(OptionList.OptionSelected)
    def _chosen(self, event: OptionList.OptionSelected) -> None:
        chosen = event.option.id or ""
        if chosen == "start":
            self.console_app.action_start_new()
        elif chosen == "chat":
            self.app.switch_mode("chat")
        elif chosen == "target":
            self.console_app.action_choose_target()
        elif chosen == "attach":
            self.console_app.action_attach()
        elif chosen.startswith("run:"):
            self.console_app.show_run(chosen[4:])

    def action_open(self) -> None:
        self.query_one("#choices", Choices).action_select()


def _start_row(recipe: str, target: str) -> Content:
    if target in RENTED:
        return _row(f"Rent a machine and train {recipe}", "s", "shows offers and prices and asks for a budget first")
    if target != LOCAL:
        return _row(f"Train {recipe} on {clean_line(target, 30)}", "s", "every stage there; followed here")
    what = "a tiny model" if recipe == "tiny" else clean_line(recipe, 30)
    return _row(f"Train {what}, here", "s", "every stage of the real thing, in some minutes")


def _row(title: str, key: str, what: str) -> Content:
    return Content.assemble((title, "bold"), "  ", (key, "$text-accent"), "\n", (f"  {what}", "$foreground-muted"))


def _run_row(row: RunRow, now: float) -> Content:
    glyph, colour = RUN.get(row.word, RUN["idle"])
    run = row.run
    took = clock((run.ended or now) - run.started) if run.started and row.word in ("running", "finished") else ""
    facts = f"{run.stages_done:>3}/{run.stages_total}{took:>8}  {ago(run.created, now)}"
    facts += "  not ours" if run.attached else ""
    return Content.assemble((f"  {glyph} {row.word:<9}", colour), f"{clean_line(run.id, 28):<26}",
                            (facts, "$foreground-muted"))


def _advice(glance: Glance) -> str:
    newest = glance.runs[0] if glance.runs else None
    if newest is None:
        return ("Press enter: some minutes later a model that you trained answers in the chat.\n\n"
                "Nothing leaves this machine. Close this window at any time: work keeps running.")
    if newest.word in ("running", "starting", "queued"):
        return "A run is at work. Press 2 to watch it; you may leave, it goes on."
    if newest.word in ("failed", "lost", "stopped", "silent"):
        return "The newest run needs a look. Press 2: it says what happened and which key goes on."
    return "The newest run is done. Press 5 and talk to the model."


def _fact_lines(facts: dict[str, Any], width: int) -> list[Content]:
    if not facts:
        return [Content.styled("looking …", "$foreground-muted")]
    gpus = facts.get("gpus") or []
    found = isinstance(gpus, list) and len(gpus) > 0
    gpu = f"{len(gpus)} × {gpus[0]['name']}" if found else "none found; the processor trains"
    rows = [
        ("system", f"{facts['os']} · {facts['arch']}"),
        ("python", f"{facts['python']} · torch {facts['torch'] or 'not installed'}"),
        ("cpu", str(facts["cpu"])),
        ("cores", str(facts["cores"])),
        ("gpu", gpu),
        ("memory", f"{facts['mem_free_gb']:.0f} GB free of {facts['mem_total_gb']:.0f}"),
        ("disk", f"{facts['disk_free_gb']:.0f} GB free"),
        ("artifacts", str(facts["artifacts"])),
        ("state", str(facts["state"])),
        ("version", str(facts["software"] or "–")),
    ]
    return [pair(label, clean_line(text, 200), width) for label, text in rows]
