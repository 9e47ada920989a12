"""One conversation on screen: a frame with its turns, following what is written. Two of them stand side by side."""

from __future__ import annotations

from textual import on
from textual.app import ComposeResult
from textual.containers import Vertical
from textual.content import Content
from textual.widgets import Static

from console.chat.session import ChatSession
from console.machines.targets import LOCAL
from console.screens.chat_models import model_name, speaker_name, welcome
from console.text import clean_line
from console.widgets.pane import Titled
from console.widgets.turns import Transcript, TurnView

_DOING = {"looking": "looking for models there …", "starting": "starting the model's process …",
          "loading": "loading the model …"}
_WRITING, _BELOW = "writing · esc stops", "↓ more below · ctrl+end follows"


class ChatPane(Titled, Vertical):
    """Shows a session; whoever changes the session says `sync` (turns came or went) or `redraw` (the last one grew)."""

    DEFAULT_CSS = """
    ChatPane {
        height: 1fr; width: 1fr; border: round $foreground 22%;
        border-title-color: $foreground; border-title-style: none;
    }
    ChatPane:focus-within { border: round $accent; }
    ChatPane Transcript { height: 1fr; padding: 1 1 0 1; }
    ChatPane .empty { height: auto; padding: 0 2 1 2; dock: top; margin-top: 1; }
    """

    def __init__(self, session: ChatSession, *, id: str) -> None:
        super().__init__(id=id)
        self.session = session

    def compose(self) -> ComposeResult:
        yield Transcript(id=f"{self.id}-transcript")
        yield Static(classes="empty", markup=False)

    def on_mount(self) -> None:
        self.sync()

    @property
    def transcript(self) -> Transcript | None:
        """None while it is being composed, after which it shows itself, or is being removed."""
        return next(iter(self.query(Transcript)), None)

    def sync(self) -> None:
        """As many views as turns, each for its own turn; the end comes into view."""
        transcript = self.transcript
        if transcript is None:
            return
        views, turns = list(transcript.query(TurnView)), self.session.conversation.turns
        same = 0
        while same < min(len(views), len(turns)) and views[same].turn is turns[same]:
            same += 1
        for view in views[same:]:
            view.remove()
        names = {model.ref: speaker_name(model) for model in self.session.models}
        chosen = speaker_name(self.session.chosen)
        transcript.mount(*[TurnView(turn, names.get(turn.model, chosen)) for turn in turns[same:]])
        transcript.following = True
        transcript.keep_up()
        self.show_frame()

    def redraw(self) -> None:
        """Draw the newest turn again, and the answer before it, which may have ended meanwhile."""
        for view in list(self.query(TurnView))[-3:]:
            view.update_turn()
        if self.transcript is not None:
            self.transcript.keep_up()
        self.show_frame()

    @on(Transcript.Moved)
    def show_frame(self) -> None:
        """Title, state, and the words of an empty chat."""
        transcript = self.transcript
        if transcript is None or not self.query(".empty"):
            return
        session, following = self.session, transcript.following
        writing = session.conversation.writing is not None
        doing = _DOING.get(session.doing, _WRITING if writing else session.taste.words() if session.chosen else "")
        where = "" if session.target == LOCAL else f" on {clean_line(session.target, 24)}"
        self.set_title((model_name(session.chosen) or "chat") + where, doing if following else _BELOW)
        empty = self.query_one(".empty", Static)
        empty.display = not session.conversation.turns
        empty.update(welcome(session.chosen) if not session.conversation.turns else Content(""))
