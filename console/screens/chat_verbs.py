"""What a person can have done in the chat beside talking: commands, keeping, reopening, exporting, a second model."""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from textual.content import Content

from console.chat import commands as chat_commands
from console.chat.commands import Command, CommandProblem
from console.chat.store import ChatStore, KeptChat, export_line
from console.errors import ConsoleError, Refused
from console.machines.targets import LOCAL
from console.paths import Home
from console.screens.base import ConsoleScreen
from console.screens.chat_models import choices
from console.screens.picker import Choice, Picker
from console.text import clean_line
from console.widgets.numbers import ago
from console.widgets.prompt import Prompt

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from console.chat.session import ChatSession
    from engine.catalog import ModelInfo
    from engine.fit import Place

_MACHINE = "machine:"  # no ref of a model begins so: they hold no colon
_TITLE = 20  # cells of the prompt's frame that are not for what is told there
_NO_MODEL = "no model here yet; press 1 and enter to train one"


class ChatVerbs(ConsoleScreen):
    """A mixin of the chat screen, which gives it the methods below."""

    session: ChatSession
    kept: int | None = None  # the number of the kept chat that this one is
    _title = ""

    def changed(self) -> None:
        """The turns are other ones now."""
        raise NotImplementedError

    def compare_with(self, ref: str | None) -> None:
        raise NotImplementedError

    def use(self, ref: str) -> None:
        raise NotImplementedError

    # slash commands

    def run_command(self, line: str) -> bool:
        """Do what a line that begins with a slash says; False when it is a message."""
        try:
            command = chat_commands.parse(line)
            if command is not None:
                self._do(command)
        except (CommandProblem, ConsoleError) as error:
            self.tell(str(error))
            return True
        return command is not None

    def _do(self, command: Command) -> None:
        done = chat_commands.tuned(self.session.taste, command)
        if done is not None:
            self.session.taste, text = done
            self.tell(text)
            return
        name, argument = command.name, command.argument
        if name == "help":
            self.tell(chat_commands.help_text())
        elif name in ("model", "compare"):
            self._model_command(name, argument)
        elif name == "save":
            self.keep(argument)
        elif name == "forget":
            self.forget()
        elif name == "export":
            self.export(argument)
        elif name == "tokens":
            self._count_tokens(argument)
        else:
            {"retry": self.action_again, "new": self.action_new, "open": self.action_open,
             "page": self.action_page}[name]()

    def _model_command(self, name: str, argument: str) -> None:
        if name == "compare" and argument == "off":
            self.compare_with(None)
        elif not argument:
            self.action_pick() if name == "model" else self.action_compare()
        else:
            found = self._named(argument)
            self.use(found.ref) if name == "model" else self.compare_with(found.ref)

    def _named(self, text: str) -> ModelInfo:
        from engine.catalog import find
        from engine.config import ConfigError

        try:
            return find([m for m in self.session.models if m.problem is None], text)
        except ConfigError as error:
            raise CommandProblem(str(error)) from None

    def tell(self, text: str) -> None:
        """Say something: lines among the turns, a few words where the eyes are, a sentence beside the turns."""
        prompt = self.query_one(Prompt)
        if self.session.conversation.writing is None and "\n" in text:
            self.session.conversation.note(text)
            prompt.show_hint("")
            self.changed()
        elif len(text) < prompt.size.width - _TITLE:
            prompt.say(clean_line(text, 200))
        else:
            self.notify(clean_line(text, 600), markup=False)

    def _count_tokens(self, text: str) -> None:
        """The answer comes from the model's process, which may be on another machine."""
        if not self.session.count(text):
            raise CommandProblem(_NO_MODEL if self.session.chosen is None else "there is nothing to count yet")

    def counted(self, event: Mapping[str, Any]) -> None:
        """What the model's process counted."""
        numbers = [event.get(name) for name in ("count", "characters", "context")]
        count, characters, context = (n if isinstance(n, int) else 0 for n in numbers)
        self.tell(f"{count:,} tokens, {characters:,} characters; the context holds {context:,}")

    # keeping

    @property
    def _store(self) -> ChatStore:
        return ChatStore(Home(self.console_app.workspace.home.path).chats / "chats.db")

    def keep(self, title: str = "") -> None:
        """Keep this chat, from now on after every answer. Raises ConsoleError."""
        if not self.console_app.workspace.may_change:
            raise Refused("this console is read-only, so chats are not kept")
        rows = self.session.conversation.rows()
        if not rows:
            raise ConsoleError("there is nothing to keep yet")
        first = next((str(turn.text) for turn in self.session.conversation.turns if turn.role == "user"), "chat")
        self._title = clean_line(title or self._title or first, 80)
        ref = self.session.chosen.ref if self.session.chosen else ""
        is_new, self.kept = self.kept is None, self._store.keep(self.kept, self._title, ref, rows)
        if is_new or title:
            self.tell(f"kept as “{self._title}”; ctrl+b lists the kept chats")

    def keep_up_to_date(self) -> None:
        """After an answer: a kept chat is written again."""
        if self.kept is not None and self.session.conversation.writing is None:
            try:
                self.keep()
            except ConsoleError as error:
                self.kept = None
                self.tell(str(error))

    def action_save(self) -> None:
        try:
            self.keep()
        except ConsoleError as error:
            self.tell(str(error))

    def action_open(self) -> None:
        try:
            chats = self._store.all()
        except ConsoleError as error:
            self.tell(str(error))
            return
        lines = [Choice(str(chat.id), _kept_line(chat), f"{chat.title} {chat.model}") for chat in chats]
        picker = Picker("Kept chats", lines, "nothing is kept yet; ctrl+s keeps a chat")
        self.app.push_screen(picker, lambda chosen: self._reopen(int(chosen)) if chosen else None)

    def _reopen(self, id: int) -> None:
        try:
            rows = self._store.turns(id)
            title = next(chat.title for chat in self._store.all() if chat.id == id)
        except (ConsoleError, StopIteration) as error:
            self.tell(str(error))
            return
        self.session.reopen(rows)
        self.kept, self._title = id, title
        self.changed()

    def forget(self) -> None:
        """Delete the kept copy of the chat on screen. Raises ConsoleError."""
        if self.kept is None:
            raise ConsoleError("this chat is not kept")
        if not self.console_app.workspace.may_change:
            raise Refused("this console is read-only, so chats stay")
        self._store.forget(self.kept)
        self.kept = None
        self.tell("the kept copy is deleted; the chat on screen goes on")

    def forget_title(self) -> None:
        """The chat on screen is none of the kept ones."""
        self.kept, self._title = None, ""

    def export(self, name: str = "") -> None:
        """Append the chat to a JSONL file below the console's folder. Raises ConsoleError."""
        if not self.console_app.workspace.may_change:
            raise Refused("this console is read-only, so nothing is written")
        text = export_line(self.session.conversation.messages(), self.session.taste.system)
        file = re.sub(r"[^A-Za-z0-9._-]+", "-", Path(name).name).strip(".-") or time.strftime("chat-%Y%m%d-%H%M%S")
        path = Home(self.console_app.workspace.home.path).chats / (file.removesuffix(".jsonl") + ".jsonl")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with open(path, "a", encoding="utf-8") as f:
                f.write(text)
        except OSError as error:
            raise ConsoleError(f"{path} cannot be written: {error.strerror}") from None
        self.tell(f"written to {path}")

    def action_export(self) -> None:
        try:
            self.export()
        except ConsoleError as error:
            self.tell(str(error))

    # models

    def action_page(self) -> None:
        self.console_app.chat_page(self.session.target, self.tell)

    def action_pick(self) -> None:
        """Choose among the models of the machine that the chat is on, or another machine."""
        self._offer("Choose a model", self._machines(), self._picked)

    def _offer(self, title: str, more: list[Choice], then: Callable[[str | None], None]) -> None:
        """A sheet with the models and whether they fit; a graphics driver may take a moment to say what is free."""
        session = self.session

        def show(place: Place) -> None:
            self.app.push_screen(Picker(title, [*choices(session.models, place), *more], _NO_MODEL), then)

        def look() -> None:
            from engine.fit import place

            self.app.call_from_thread(show, place())

        if session.target == LOCAL:
            self.run_worker(look, thread=True, exclusive=True, group="place", exit_on_error=False)
        else:
            show(session.place)

    def _picked(self, chosen: str | None) -> None:
        kind, _, name = (chosen or "").partition(_MACHINE)
        if chosen and not kind and name:
            self.compare_with(None)
            self.session.move(name)
            self.changed()
        elif chosen:
            self.use(chosen)

    def action_compare(self) -> None:
        self._offer("Choose the model beside it", [], lambda ref: self.compare_with(ref) if ref else None)

    def _machines(self) -> list[Choice]:
        """The other machines that were added, for their models."""
        found = []
        for target in self.console_app.workspace.hosts.targets.all():
            if target.name != self.session.target:
                line = Content.assemble((f"models of {clean_line(target.title, 30)} …", "$text-accent"))
                ready = target.name == LOCAL or bool(target.python)
                problem = "" if ready else f"not prepared yet: llmconsole target up {target.name}"
                found.append(Choice(_MACHINE + target.name, line, f"{target.name} machine models", problem))
        return found

    def action_again(self) -> None:
        raise NotImplementedError

    def action_new(self) -> None:
        raise NotImplementedError


def _kept_line(chat: KeptChat) -> Content:
    about = f"{chat.replies:>3} replies  {clean_line(chat.model, 30):<30}  {ago(chat.updated)}"
    return Content.assemble(f"{clean_line(chat.title, 38):<40}", (about, "$foreground-muted"))

