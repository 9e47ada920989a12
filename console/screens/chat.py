"""Screen 5: talk to a model. Turns, a prompt, and what each answer cost in time.

What is said and which process answers is `console.chat_session`'s business; here it meets keys and widgets.
"""

from __future__ import annotations

from typing import ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding
from textual.containers import Horizontal, Vertical
from textual.content import Content
from textual.widgets import Static

from console.chat_session import ChatSession
from console.glance import Glance
from console.messages import ChatDied, ChatSaid, ModelsRead
from console.screens.base import ConsoleScreen
from console.screens.chat_models import choices, model_name, welcome
from console.screens.picker import Picker
from console.text import clean_line
from console.widgets.chat_stats import stat_line, stat_lines
from console.widgets.pane import Titled
from console.widgets.prompt import Prompt
from console.widgets.text_pane import TextPane
from console.widgets.turns import Transcript, TurnView

FLUSH_S = 0.08  # 12 times a second: smooth to read, cheap to draw
_NO_MODEL = "No model here yet. Press esc, then 1 and enter: the first row trains one."
_DOING = {"starting": "starting the model's process …", "loading": "loading the model …"}


class TurnsFrame(Titled, Vertical):
    """The frame around the transcript."""


class ChatScreen(ConsoleScreen):
    MODE = "chat"
    CSS_PATH = "chat.tcss"
    HELP = ("Talk to a model that was trained here. enter sends, ctrl+j makes a new line. While the prompt has the "
            "focus keys are text: esc leaves it, then 1 to 6 change screens, and any letter key works as listed.")
    BINDINGS: ClassVar = [
        Binding("escape", "stop", "stop", id="chat.stop", priority=True,
                tooltip="Stop the answer; again: leave the prompt"),
        Binding("ctrl+o", "pick", "model", id="chat.pick", tooltip="Choose another model"),
        Binding("ctrl+r", "again", "again", id="chat.again", tooltip="Answer the newest question once more"),
        Binding("ctrl+g", "copy", "copy reply", id="chat.copy", tooltip="Copy the newest answer"),
        Binding("ctrl+t", "stats", "stats", id="chat.stats", tooltip="Show or hide stats for nerds"),
        Binding("ctrl+n", "new", "new chat", id="chat.new", tooltip="Forget this chat and begin another"),
        Binding("enter,i", "prompt", "write", id="chat.prompt", show=False, tooltip="Back to the prompt"),
        Binding("pageup", "scroll(-1)", "up", id="chat.page_up", show=False, tooltip="Read further up"),
        Binding("pagedown", "scroll(1)", "down", id="chat.page_down", show=False, tooltip="Read on"),
    ]

    session: ChatSession

    def __init__(self) -> None:
        super().__init__()
        self._dirty = False

    def body(self) -> ComposeResult:
        app = self.console_app
        self.session = ChatSession(app.settings.chat, app.chat_start, app.chat_send)
        with Horizontal(id="chat"):
            with Vertical(id="chat-main"):
                with TurnsFrame(id="turns"):
                    yield Transcript(id="transcript")
                    yield Static(id="chat-empty", markup=False)
                yield Static(id="chat-line", markup=False)
                yield Prompt(id="prompt")
            yield TextPane(id="stats")

    def on_mount(self) -> None:
        super().on_mount()
        self.set_interval(FLUSH_S, self._flush)
        self._show_around()
        self._show_stats()

    def on_screen_resume(self) -> None:
        super().on_screen_resume()
        self.console_app.action_read_models()
        self.query_one("#prompt").focus()

    def show(self, glance: Glance) -> None:
        """Runs do not change what is said."""

    @on(ModelsRead)
    def _models_read(self, message: ModelsRead) -> None:
        self.session.know(message.models)
        self._show_around()

    def use(self, ref: str) -> None:
        """Talk to this model from now on."""
        self.session.use(ref)
        self._show_around()

    @on(ChatSaid)
    def _said(self, message: ChatSaid) -> None:
        if trouble := self.session.hear(message.event):
            self.notify(clean_line(trouble, 400), severity="error", markup=False)
        self._dirty = True

    @on(ChatDied)
    def _died(self, message: ChatDied) -> None:
        self.session.died(message.detail)
        self._dirty = True

    # drawing

    def _flush(self) -> None:
        """Draw what came since the last time."""
        if not self._dirty:
            return
        self._dirty = False
        views = list(self.query(TurnView))
        if views:
            views[-1].update_turn()
            self.query_one("#transcript", Transcript).keep_up()
        if self.session.conversation.writing is None:
            self._show_stats()
        self._show_around()

    def _sync_turns(self) -> None:
        """As many views as turns, each for its own turn."""
        transcript = self.query_one("#transcript", Transcript)
        views, turns = list(transcript.query(TurnView)), self.session.conversation.turns
        same = 0
        while same < min(len(views), len(turns)) and views[same].turn is turns[same]:
            same += 1
        for view in views[same:]:
            view.remove()
        name = model_name(self.session.chosen)
        transcript.mount(*[TurnView(turn, name) for turn in turns[same:]])
        transcript.following = True
        transcript.keep_up()
        self._show_around()

    def _show_around(self) -> None:
        session = self.session
        doing = _DOING.get(session.doing, "writing · esc stops" if session.conversation.writing is not None else "")
        self.query_one("#turns", TurnsFrame).set_title(model_name(session.chosen) or "chat", doing)
        empty = self.query_one("#chat-empty", Static)
        empty.display = not session.conversation.turns
        empty.update(welcome(session.chosen))

    def _show_stats(self) -> None:
        conversation, model = self.session.conversation, self.session.loaded
        key = len(conversation.turns), conversation.replies, conversation.tokens_out, str(model)
        self.query_one("#stats", TextPane).show("stats for nerds", "^t hides", key,
                                                lambda width: stat_lines(conversation, model, width))
        self.query_one("#chat-line", Static).update(Content(stat_line(conversation)))

    # keys

    @on(Prompt.Submitted)
    def _submitted(self, event: Prompt.Submitted) -> None:
        text = event.text.strip()
        if text and self.session.ask(text):
            self.query_one("#prompt", Prompt).clear()
            self._sync_turns()
        elif text:
            told = _NO_MODEL if self.session.chosen is None else "An answer is being written; esc stops it."
            self.notify(told, severity="warning", markup=False)

    @on(Prompt.EditLast)
    def _edit_last(self) -> None:
        if text := self.session.conversation.take_back():
            prompt = self.query_one("#prompt", Prompt)
            prompt.text = text
            prompt.move_cursor(prompt.document.end)
            self._sync_turns()

    def action_stop(self) -> None:
        if self.session.stop():
            self._dirty = True
        elif isinstance(self.focused, Prompt):
            self.query_one("#transcript").focus()
        else:
            self.query_one("#prompt").focus()

    def action_again(self) -> None:
        if self.session.again():
            self._sync_turns()

    def action_new(self) -> None:
        self.session.begin_anew()
        self._sync_turns()
        self._show_stats()
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
        transcript = self.query_one("#transcript", Transcript)
        (transcript.scroll_page_down if by > 0 else transcript.scroll_page_up)(animate=False)

    def action_pick(self) -> None:
        empty = "no model here yet; press 1 and enter to train one"
        picker = Picker("Choose a model", choices(self.session.models), empty)
        self.app.push_screen(picker, lambda ref: self.use(ref) if ref else None)
