"""One chat and the process behind it: which model, what the worker is doing, when to ask. Knows no screen.

The worker is asked for when it is first needed and again after it died; a question waits until its model is there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from console.chat.commands import Taste
from console.chat.conversation import Conversation
from console.chat.model_choice import models_of, place_of
from console.machines.targets import LOCAL
from console.settings import ChatSettings
from engine.catalog import ModelInfo, default_model
from engine.fit import NOWHERE, Place

Operation = dict[str, Any]


class ChatSession:
    """`start` starts the worker's process, `send` gives it one operation (see `engine.inference.chat_worker`).

    `doing` is what the worker is at: "" (no process), "starting", "looking" (for models), "loading" or "ready".
    """

    def __init__(self, settings: ChatSettings, start: Callable[[], object],
                 send: Callable[[Operation], object]) -> None:
        self._start_worker, self._send = start, send
        self.taste = Taste.of(settings)
        self.conversation = Conversation()
        self.models: tuple[ModelInfo, ...] = ()
        self.chosen: ModelInfo | None = None
        self.loaded: Mapping[str, Any] = {}
        self.doing = ""
        self.target = LOCAL
        self.place: Place = NOWHERE  # where another machine's worker computes
        self._wanted: str | None = None  # a ref that was asked for before the list of models was read
        self._picked = False  # by the person, so a newer model does not replace it
        self._waiting = False  # a question waits for its model

    # models

    def move(self, target: str) -> None:
        """Talk to models of another machine: ask it which it has."""
        self.stop()
        self.target, self.models, self._picked, self._wanted = target, (), False, None
        self.chosen, self.loaded, self.doing = None, {}, "looking"
        self._start_worker()

    def know(self, models: Sequence[ModelInfo], target: str = LOCAL) -> None:
        """A machine's models now; without a chat under way the newest, most trained one is taken."""
        if target != self.target:
            return
        self.models = tuple(models)
        if self._wanted is not None:
            self.use(self._wanted)
        elif not self._picked and not self.conversation.turns and self.doing in ("", "ready"):
            newest = default_model(self.models)
            if newest is not None and (self.chosen is None or newest.ref != self.chosen.ref):
                self._choose(newest)

    def use(self, ref: str) -> None:
        """Talk to this model from now on, as soon as it is known."""
        found = next((model for model in self.models if model.ref == ref), None)
        self._wanted = None if found else ref
        if found is not None and found.problem is None:
            self._picked = True
            self._choose(found)

    def _choose(self, model: ModelInfo) -> None:
        self.chosen, self.loaded = model, {}
        if self.doing in ("ready", "loading"):
            self._load()
        else:
            self._start()

    def _start(self) -> None:
        """Start the worker; loading follows when it says that it is ready."""
        if not self.doing and self.chosen is not None:
            self.doing = "starting"
            self._start_worker()

    def _load(self) -> None:
        if self.chosen is not None:
            self.doing = "loading"
            self._send(load_operation(self.chosen))

    # what the worker says

    def hear(self, event: Mapping[str, Any]) -> str:
        """Take in one protocol line; a sentence for the person when there is no answer to show it in."""
        kind = event.get("event")
        if kind == "ready" and self.doing == "looking":
            self._send({"op": "models"})
        elif kind == "ready":
            self._load()
        elif kind == "models":
            self.doing, self.place = "ready", place_of(event)
            self.know(models_of(event), self.target)
        elif kind == "loaded":
            model = event.get("model")
            self.doing, self.loaded = "ready", model if isinstance(model, Mapping) else {}
            self._ask_if_waiting()
        elif kind == "error" and self.doing == "loading" and event.get("id") is None:
            return self._load_failed(str(event.get("message", "it cannot be loaded")), str(event.get("next", "")))
        else:
            self.conversation.hear(event)
        return ""

    def _load_failed(self, text: str, way_out: str) -> str:
        self.doing, self.loaded, self._waiting = "ready", {}, False
        if self.conversation.writing is None:
            return f"{text}. {way_out}"
        self.conversation.fail("load", text, way_out or "ctrl+o chooses another model")
        return ""

    def died(self, detail: str) -> str:
        """The worker is gone; the next question starts another. A sentence when there is no answer to show it in."""
        looking = self.doing == "looking"
        self.doing, self.loaded, self._waiting = "", {}, False
        last = detail.splitlines()[-1] if detail else "no reason given"
        if looking:
            return f"No models from {self.target}: {last}"
        self.conversation.fail("worker", f"The model's process ended: {last}", "ctrl+r asks again, with a new one")
        return ""

    # asking

    def ask(self, text: str) -> bool:
        """Put a question; False when there is no model to answer or an answer is being written."""
        if self.chosen is None or self.conversation.writing is not None:
            return False
        self.conversation.ask(text)
        self._answer()
        return True

    def again(self) -> bool:
        """Have the newest question answered once more."""
        if self.chosen is None or self.conversation.again() is None:
            return False
        self._answer()
        return True

    def _answer(self) -> None:
        self._waiting = True
        if self.conversation.writing is not None and self.chosen is not None:
            self.conversation.writing.model = self.chosen.ref
        if self.doing == "ready" and self.loaded:
            self._ask_if_waiting()
        elif self.doing == "ready":
            self._load()
        else:
            self._start()

    def _ask_if_waiting(self) -> None:
        turn, taste = self.conversation.writing, self.taste
        if not self._waiting or turn is None:
            return
        self._waiting = False
        messages = self.conversation.messages()
        if taste.system:
            messages[0] = {"role": "user", "content": f"{taste.system}\n\n{messages[0]['content']}"}
        self._send({"op": "generate", "id": turn.id, "messages": messages, "temperature": taste.temperature,
                    "top_k": taste.top_k, "top_p": taste.top_p, "seed": taste.seed, "max_tokens": taste.max_tokens})

    def count(self, text: str) -> bool:
        """Ask how many tokens a text takes, or without one this chat; False while no model is loaded."""
        said = text or "\n".join(turn.text for turn in self.conversation.turns if turn.role != "note")
        if self.doing == "ready" and self.loaded and said:
            self._send({"op": "tokens", "text": said})
            return True
        return False

    def stop(self) -> bool:
        """Break off the answer that is being written; False when there is none."""
        turn = self.conversation.writing
        if turn is None:
            return False
        if self._waiting:
            self._waiting = False
            self.conversation.fail("cancelled", "stopped before it began", "ctrl+r asks again")
        else:
            self._send({"op": "stop", "id": turn.id})
        return True

    def begin_anew(self) -> None:
        """Forget what was said; the next words go to the newest model unless one was picked."""
        self.reopen([])
        self.know(self.models)

    def reopen(self, rows: list[dict[str, Any]]) -> None:
        """Go on with a kept chat. What the worker still says about an old answer then belongs to nobody."""
        self.stop()
        self.conversation = Conversation.of(rows, self.conversation.count)


def load_operation(model: ModelInfo) -> Operation:
    """The operation that loads a model."""
    return {"op": "load", "path": str(model.path), "step": model.step, "tokenizer": str(model.tokenizer_dir),
            "device": "auto", "dtype": "auto", "name": model.ref}
