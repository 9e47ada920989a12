"""`python -m engine chat --json`: a process that holds a model and answers, over JSON lines on stdin and stdout.

--source, --model-tag and --step load a model at once; without them the first `load` does.

Protocol, version 1. Requests (fields with a value here may be left out):
  {"op":"load","path":DIR,"step":N,"tokenizer":DIR,"device":"auto","dtype":"auto","name":null,
   "backend":"auto"}          dtype may be int8; backend is auto, native or torch
  {"op":"generate","id":ID,"messages":[{"role":..,"content":..}],"temperature":0.8,"top_k":50,"top_p":1.0,"seed":null,
   "max_tokens":512}      content of an assistant may be a list of {"type":"text"|"python"|"python_output","text":..}
  {"op":"stop","id":ID}   between two tokens; without id: everything asked for so far
  {"op":"models"}         what can be loaded, below $NANOCHAT_BASE_DIR
  {"op":"tokens","text":..}   how many tokens it takes, as the loaded model counts
  {"op":"unload"}  {"op":"quit"}   the end of stdin is a quit, too
Events:
  {"v":1,"event":"ready"}   at once; tensor libraries are imported at the first load
  {"event":"loaded","model":{name,source,step,n_params,n_layer,n_embd,vocab_size,context,device,dtype,bytes,seconds,
   backend,backend_reason}}   backend_reason: why it is not native, where that was not asked for
  {"event":"begin","id","prompt_tokens","dropped_turns","context"}   the prompt is made and is being read
  {"event":"token","id","text","ms":[...]}      answer text, whole characters, one or more tokens; ms: the time before
                              each token since the event before, that before the answer's first from the request on
  {"event":"tool","id","phase":"input"|"output","text","ms":[...]}   what the calculator was asked, and what it replied
  {"event":"done","id","finish":"stop"|"length"|"cancelled"|"context","stats":{ttft_ms,tok_per_s,prompt_tokens,
   completion_tokens,seconds,dropped_turns,context_used,context,p95_ms,gaps_ms:[...]}}
  {"event":"models","models":[{ref,name,source,tag,step,path,tokenizer,bytes,n_params,created,val_bpb,run_id,problem,
   config}],"place":{kind,name,free}}   config: the shape, null where it cannot be read; place: where device "auto"
                              would compute, and the bytes free there now, null when nobody knows
  {"event":"tokens","count","characters","context"}
  {"event":"unloaded"}
  {"event":"error","id"?,"code","message","next"}   the worker goes on. Codes: bad_request, no_model, messages, context,
   checkpoint, tokenizer, device, internal

Requests are served in order, one at a time. Stdout carries nothing else: what any library prints goes to stderr.
"""

from __future__ import annotations

import math
import os
import queue
import signal
import sys
import threading
import time
import traceback
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, BinaryIO

from engine.catalog import default_model, list_models, to_row
from engine.config import ConfigError, from_argv
from engine.context import StageError
from engine.fit import Place, place
from engine.inference.protocol import (
    MAX_LINE,
    VERSION,
    BadRequest,
    Channel,
    Count,
    Generate,
    Load,
    Models,
    Quit,
    Request,
    Stop,
    parse,
    read_lines,
)
from engine.rundir import base_dir
from engine.settings.talking import Talk

if TYPE_CHECKING:
    from engine.inference.chat import Chat
    from engine.inference.prompt import Prompt
    from engine.inference.stream import Piece

_PACE = 0.02  # seconds between two token events: a fast model must not flood its reader


def main(argv: Sequence[str]) -> int:
    """Serve until quit or the end of stdin. Raises ConfigError for words that are no flag of ours, or name no model."""
    first = _first(from_argv(Talk, argv))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # ctrl-c is for the client, who then says quit or closes the pipe
    with _stdout_for_events() as out, open(sys.stdin.fileno(), "rb", buffering=0, closefd=False) as stdin:
        try:
            Worker(Channel(out)).serve(stdin, first)
        except BrokenPipeError:  # the client is gone
            _drop(out)
    return 0


def _first(settings: Talk) -> Load | None:
    """The model to load before anybody asks. Raises ConfigError when there is none of that kind."""
    wanted = {"source": settings.source, "tag": settings.model_tag, "step": settings.step}
    if not settings.json:
        raise ConfigError("--json=false: JSON lines are the only way it speaks; `llmconsole chat` is for people")
    if all(value is None for value in wanted.values()):
        return None
    model = default_model(m for m in list_models(base_dir())
                          if all(value in (None, getattr(m, name)) for name, value in wanted.items()))
    if model is None:
        words = ", ".join(f"{name} {value}" for name, value in wanted.items() if value is not None)
        raise ConfigError(f"there is no usable model of {words} below {base_dir()}")
    return Load(model.path, model.step, model.tokenizer_dir, settings.device, settings.dtype, model.ref,
                settings.backend)


def _stdout_for_events() -> BinaryIO:
    """The real stdout for events alone: from here on, file descriptor 1 and `print` lead to stderr."""
    own = os.dup(1)
    os.dup2(2, 1)
    return open(own, "wb")


def _drop(out: BinaryIO) -> None:
    """Let the unsent rest of a broken pipe go, so that closing it does not raise again."""
    with open(os.devnull, "wb") as nowhere:
        os.dup2(nowhere.fileno(), out.fileno())


class Inbox(threading.Thread):
    """Reads requests while the worker is busy, so that a stop is heard between two tokens."""

    def __init__(self, stdin: BinaryIO, channel: Channel, first: Request | None = None) -> None:
        super().__init__(daemon=True, name="requests")
        self._stdin, self._channel = stdin, channel
        self._queue: queue.SimpleQueue[Request] = queue.SimpleQueue()
        if first is not None:
            self._queue.put(first)
        self._waiting: set[str] = set()  # ids of answers not finished yet
        self._stopped: set[str] = set()  # ids that were cancelled
        self._quitting = False

    def next(self) -> Request:
        """Wait for the next request to serve."""
        return self._queue.get()

    def is_stopped(self, id: str) -> bool:
        return self._quitting or id in self._stopped

    def finished(self, id: str) -> None:
        self._waiting.discard(id)

    def run(self) -> None:
        try:
            for line in read_lines(self._stdin):
                if self._accept(line):
                    break
        except OSError:  # stdin or the client is gone: the same as its end
            traceback.print_exc()
        self._quitting = True
        self._queue.put(Quit())

    def _accept(self, line: bytes | None) -> bool:
        """Queue or obey one line; true when it says quit."""
        try:
            if line is None:
                raise BadRequest(f"a line of more than {MAX_LINE:,} bytes")
            if not line.strip():
                return False
            request = parse(line)
            if isinstance(request, Generate) and request.id in self._waiting:
                raise BadRequest(f"id {request.id!r} is in use", request.id)
        except BadRequest as error:
            self._channel.error("bad_request", str(error), "engine/inference/chat_worker.py has the protocol", error.id)
            return False
        if isinstance(request, Stop):
            self._stopped |= self._waiting if request.id is None else self._waiting & {request.id}
        elif isinstance(request, Quit):
            return True
        else:
            if isinstance(request, Generate):
                self._stopped.discard(request.id)  # a stop that came too late for an earlier use of the id
                self._waiting.add(request.id)
            self._queue.put(request)
        return False


class Worker:
    """Serves requests one after the other. Whatever goes wrong with one is told, and the next is served."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._chat: Chat | None = None

    def serve(self, stdin: BinaryIO, first: Request | None = None) -> None:
        """Obey `first`, then requests until quit. Raises BrokenPipeError when nobody listens any more."""
        inbox = Inbox(stdin, self._channel, first)
        inbox.start()
        self._channel.emit("ready", v=VERSION)
        while not isinstance(request := inbox.next(), Quit):
            about = {"id": request.id} if isinstance(request, Generate) else {}
            try:
                last = self._obey(request, inbox)
            except BrokenPipeError:
                raise
            except StageError as error:
                last = {"event": "error", "code": error.code, "message": str(error), "next": error.next}
            except Exception as error:  # noqa: BLE001 - one failed request must not end the others
                traceback.print_exc()
                last = {"event": "error", "code": "internal", "message": f"{type(error).__name__}: {error}",
                        "next": "the worker's stderr says more"}
            if isinstance(request, Generate):
                inbox.finished(request.id)  # before the client hears of it and may use the id again
            self._channel.emit(**{**last, **about})

    def _obey(self, request: Request, inbox: Inbox) -> dict[str, Any]:
        """Serve one request; returns the event that ends it."""
        if isinstance(request, Load):
            return self._load(request)
        if isinstance(request, Generate):
            return self._generate(request, inbox)
        if isinstance(request, Models):
            return {"event": "models", "models": [to_row(model) for model in list_models(base_dir())],
                    "place": _place_row(place())}
        if isinstance(request, Count):
            return self._count(request.text)
        self._unload()
        return {"event": "unloaded"}

    def _load(self, request: Load) -> dict[str, Any]:
        from engine.inference import chat  # torch: only now

        begin = time.perf_counter()
        self._unload()
        self._chat = chat.load_chat(request.path, request.step, request.tokenizer, request.device, request.dtype,
                                    request.backend)
        model = chat.describe(self._chat, request.path, request.step, request.name)
        return {"event": "loaded", "model": {**model, "seconds": round(time.perf_counter() - begin, 3)}}

    def _unload(self) -> None:
        if self._chat is not None:
            from engine.inference import chat

            self._chat = None
            chat.release_memory()

    def _count(self, text: str) -> dict[str, Any]:
        chat = self._loaded()
        return {"event": "tokens", "count": len(chat.tokenizer.encode(text)), "characters": len(text),
                "context": chat.context}

    def _loaded(self) -> Chat:
        if self._chat is None:
            raise StageError("no model is loaded", "load one first", "no_model")
        return self._chat

    def _generate(self, request: Generate, inbox: Inbox) -> dict[str, Any]:
        from engine.inference.sampling import Sampling
        from engine.tokenizer.chat_format import ConversationError

        chat = self._loaded()
        sampling = Sampling(request.temperature, request.top_k, request.top_p, request.seed)
        voice = Voice(self._channel, request.id, chat.context)
        try:
            finish, stats = chat.answer(request.messages, sampling, request.max_tokens, voice,
                                        lambda: inbox.is_stopped(request.id))
        except ConversationError as error:
            raise StageError(str(error), "send user and assistant messages in turn", "messages") from None
        voice.flush()
        rounded = {k: round(v, 4) if isinstance(v, float) else v for k, v in stats.to_dict().items()}
        return {"event": "done", "finish": finish, "stats": rounded}


def _place_row(found: Place) -> dict[str, Any]:
    return {"kind": found.kind, "name": found.name, "free": found.free if math.isfinite(found.free) else None}


class Voice:
    """Sends one answer: tool blocks as they are, text at once or, when it comes fast, gathered for a moment."""

    def __init__(self, channel: Channel, id: str, context: int) -> None:
        self._channel, self._id, self._context = channel, id, context
        self._held, self._times, self._last_sent = "", list[float](), 0.0

    def begin(self, prompt: Prompt) -> None:
        self._channel.emit("begin", id=self._id, prompt_tokens=len(prompt.ids), dropped_turns=prompt.dropped_turns,
                           context=self._context)

    def token(self, ms: float) -> None:
        self._times.append(round(ms, 2))

    def piece(self, piece: Piece) -> None:
        if piece.kind == "text":
            self._held += piece.text
            if time.monotonic() - self._last_sent >= _PACE:
                self.flush()
        else:
            self.flush()
            self._say("tool", phase=piece.kind, text=piece.text)

    def flush(self) -> None:
        if self._held:
            self._say("token", text=self._held)
            self._held, self._last_sent = "", time.monotonic()

    def _say(self, event: str, **fields: str) -> None:
        self._channel.emit(event, id=self._id, **fields, ms=self._times)
        self._times = []
