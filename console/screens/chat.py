"""Screen 5: talk to a model, or to two at once. Turns, a prompt, and what each answer cost in time.

What is said and which process answers is `console.chat.session`'s business; what else a person can have done is in
`console.screens.chat_verbs`. Here keys, widgets and the worker's messages meet.
"""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding
from textual.containers import Horizontal, Vertical
from textual.content import Content
from textual.timer import Timer
from textual.widgets import Static

from console.chat.commands import hint, message_of
from console.chat.session import ChatSession
from console.glance import Glance
from console.machines.targets import LOCAL
from console.messages import ChatDied, ChatSaid, ModelsRead
from console.screens.chat_verbs import ChatVerbs
from console.text import clean_line
from console.widgets.chat_pane import ChatPane
from console.widgets.chat_stats import stat_line, stat_lines
from console.widgets.prompt import Prompt
from console.widgets.text_pane import TextPane
from console.widgets.turns import Transcript

FLUSH_S = 0.08  # at most 12 times a second: smooth to read, cheap to draw
_NO_MODEL = "No model here yet. Press esc, then 1 and enter: the first row trains one."


class ChatScreen(ChatVerbs):
    MODE = "chat"
    CSS_PATH = "chat.tcss"
    HELP = ("Talk to a model that was trained here. enter sends, ctrl+j makes a new line, /help lists the commands. "
            "While the prompt has the focus keys are text: esc leaves it, then 1 to 6 change screens, and any letter "
            "key works as listed.")
    BINDINGS: ClassVar = [
        Binding("escape", "stop", "stop", id="chat.stop", priority=True,
                tooltip="Stop the answer; again: leave the prompt"),
        Binding("ctrl+o", "pick", "model", id="chat.pick", tooltip="Choose another model"),
        Binding("ctrl+r", "again", "again", id="chat.again", tooltip="Answer the newest question once more"),
        Binding("ctrl+g", "copy", "copy reply", id="chat.copy", tooltip="Copy the newest answer"),
        Binding("ctrl+t", "stats", "stats", id="chat.stats", tooltip="Show or hide stats for nerds"),
        Binding("ctrl+s", "save", "save", id="chat.save", tooltip="Keep this chat, and what follows"),
        Binding("ctrl+b", "open", "open", id="chat.open", tooltip="Go back to a kept chat"),
        Binding("ctrl+n", "new", "new chat", id="chat.new", tooltip="Forget this chat and begin another"),
        Binding("f4", "beside", "side by side", id="chat.beside", show=False,
                tooltip="A second model answers beside this one; again: ends that"),
        Binding("f6", "export", "export chat", id="chat.export", show=False, priority=True,
                tooltip="Write the chat as a line of JSON that custom-data training reads"),
        Binding("f8", "page", "page in a browser", id="chat.page", show=False,
                tooltip="Serve this machine's models to a browser here; again: ends that"),
        Binding("enter,i", "prompt", "write", id="chat.prompt", show=False, tooltip="Back to the prompt"),
        Binding("pageup", "scroll(-1)", "up", id="chat.page_up", show=False, priority=True, tooltip="Read further up"),
        Binding("pagedown", "scroll(1)", "down", id="chat.page_down", show=False, priority=True, tooltip="Read on"),
        Binding("ctrl+end", "follow", "follow", id="chat.follow", show=False, priority=True,
                tooltip="Go to the end and follow"),
    ]

    session: ChatSession

    def __init__(self) -> None:
        super().__init__()
        self._dirty: set[int] = set()
        self._timer: Timer | None = None
        self._second: ChatSession | None = None
        self._next_for_second = ""  # asked of the first, which is being answered

    def body(self) -> ComposeResult:
        self.session = self._session(0)
        with Horizontal(id="chat"):
            with Vertical(id="chat-main"):
                with Horizontal(id="panes"):
                    yield ChatPane(self.session, id="turns")
                yield Static(id="chat-line", markup=False)
                yield Prompt(id="prompt")
            yield TextPane(id="stats")

    def _session(self, side: int) -> ChatSession:
        app = self.console_app
        return ChatSession(app.settings.chat, lambda: app.chat_start(side, self._sessions[side].target),
                           lambda op: app.chat_send(op, side))

    def on_mount(self) -> None:
        super().on_mount()
        self._show_stats()

    def on_screen_resume(self) -> None:
        super().on_screen_resume()
        self.console_app.action_read_models()
        self.query_one("#prompt").focus()

    def show(self, glance: Glance) -> None:
        """Runs do not change what is said."""

    @property
    def _panes(self) -> list[ChatPane]:
        return list(self.query(ChatPane))

    @property
    def _sessions(self) -> list[ChatSession]:
        return [self.session, *([self._second] if self._second is not None else [])]

    # what comes from outside

    @on(ModelsRead)
    def _models_read(self, message: ModelsRead) -> None:
        for session in self._sessions:
            session.know(message.models)
        self._frames()

    def use(self, ref: str) -> None:
        """Talk to this model from now on."""
        self.session.use(ref)
        self._frames()

    @on(ChatSaid)
    def _said(self, message: ChatSaid) -> None:
        if message.event.get("event") == "tokens":
            self.counted(message.event)
        elif message.side < len(self._sessions):
            if trouble := self._sessions[message.side].hear(message.event):
                self.notify(clean_line(trouble, 400), severity="error", markup=False)
            if message.event.get("event") == "models" and message.side == 0 and self.session.target != LOCAL:
                self.action_pick()
            self._touch(message.side)

    @on(ChatDied)
    def _died(self, message: ChatDied) -> None:
        if message.side < len(self._sessions):
            if trouble := self._sessions[message.side].died(message.detail):
                self.notify(clean_line(trouble, 400), severity="error", markup=False)
            self._touch(message.side)

    # drawing

    def _touch(self, side: int) -> None:
        """Something of this side is to be drawn, soon and once. Nothing ticks while nothing happens."""
        self._dirty.add(side)
        if self._timer is None:
            self._timer = self.set_timer(FLUSH_S, self._flush)

    def _flush(self) -> None:
        self._timer = None
        dirty, self._dirty = self._dirty, set()
        for side, pane in enumerate(self._panes):
            if side in dirty:
                pane.redraw()
        self._turn_of_second()
        self._show_stats()
        if 0 in dirty and self.session.conversation.writing is None:
            self.keep_up_to_date()

    def changed(self) -> None:
        for pane in self._panes:
            pane.sync()
        self._show_stats()

    def _frames(self) -> None:
        for pane in self._panes:
            pane.show_frame()

    def _show_stats(self) -> None:
        conversation, model = self.session.conversation, self.session.loaded
        tokens = len(conversation.turns[-1].times) if conversation.turns else 0
        key = len(conversation.turns), tokens, conversation.replies, conversation.tokens_out, str(model)
        self.query_one("#stats", TextPane).show("stats for nerds", "^t hides", key,
                                                lambda width: stat_lines(conversation, model, width))
        self.query_one("#chat-line", Static).update(Content(stat_line(conversation)))

    # two models

    def compare_with(self, ref: str | None) -> None:
        """Have a second model answer what the first is asked; None ends it."""
        if ref is None:
            self._second, self._next_for_second = None, ""
            self.run_worker(self.console_app.chat_kill(1))
            self.query("#beside").remove()
        else:
            if self._second is None:
                self._second = self._session(1)
                self.query_one("#panes").mount(ChatPane(self._second, id="beside"))
            self._second.target = self.session.target
            self._second.know(self.session.models, self.session.target)
            self._second.use(ref)
        self.set_class(self._second is not None, "comparing")
        self.call_after_refresh(self._frames)

    def _turn_of_second(self) -> None:
        """One after the other, so that both have the machine for themselves and their times can be compared."""
        if self._second is not None and self._next_for_second and self.session.conversation.writing is None:
            self._second.taste = replace(self.session.taste)
            text, self._next_for_second = self._next_for_second, ""
            if self._second.ask(text):
                self._panes[1].sync()

    def action_beside(self) -> None:
        if self._second is None:
            self.action_compare()
        else:
            self.compare_with(None)

    # keys

    @on(Prompt.Submitted)
    def _submitted(self, event: Prompt.Submitted) -> None:
        text = event.text.strip()
        if not text:
            return
        if self.run_command(text):
            self._frames()
        elif self.session.ask(message_of(text)):
            self._next_for_second = message_of(text) if self._second is not None else ""
            self._panes[0].sync()
        else:
            self.query_one("#prompt", Prompt).give_back(event.text)
            told = _NO_MODEL if self.session.chosen is None else "An answer is being written; esc stops it."
            self.notify(told, severity="warning", markup=False)

    @on(Prompt.Changed)
    def _written(self, event: Prompt.Changed) -> None:
        self.query_one("#prompt", Prompt).show_hint(hint(event.text_area.text))

    @on(Prompt.EditLast)
    def _edit_last(self) -> None:
        if text := self.session.conversation.take_back():
            if self._second is not None:
                self._second.conversation.take_back()
            prompt = self.query_one("#prompt", Prompt)
            prompt.text = text
            prompt.move_cursor(prompt.document.end)
            self.changed()

    def action_stop(self) -> None:
        self._next_for_second = ""
        stopped = [side for side, session in enumerate(self._sessions) if session.stop()]
        for side in stopped:
            self._touch(side)
        if not stopped:
            self.query_one("#turns Transcript" if isinstance(self.focused, Prompt) else "#prompt").focus()

    def action_again(self) -> None:
        questions = [turn.text for turn in self.session.conversation.turns if turn.role == "user"]
        if self.session.again():
            if self._second is not None and self._second.conversation.writing is None:
                self._second.conversation.take_back()
                self._next_for_second = questions[-1]
            self.changed()

    def action_new(self) -> None:
        self._next_for_second = ""
        for session in self._sessions:
            session.begin_anew()
        self.forget_title()
        self.changed()
        self.query_one("#prompt").focus()

    def action_copy(self) -> None:
        turns = self.session.conversation.turns
        answers = [turn for turn in turns if turn.role == "assistant" and turn.text]
        if answers:
            self.console_app.copy(answers[-1].text, "reply")

    def action_stats(self) -> None:
        self.toggle_class("no-stats")

    def action_prompt(self) -> None:
        self.query_one("#prompt").focus()

    def action_scroll(self, by: int) -> None:
        for transcript in self.query(Transcript):
            (transcript.scroll_page_down if by > 0 else transcript.scroll_page_up)(animate=False)

    def action_follow(self) -> None:
        for transcript in self.query(Transcript):
            transcript.following = True
            transcript.keep_up()
