"""A stand-in for the chat worker that speaks its protocol without a model; the question says how it shall behave."""

from __future__ import annotations

import json
import os
import sys
import threading
import time

stopped: set[str] = set()


def emit(event: str, **fields: object) -> None:
    sys.stdout.write(json.dumps({"event": event, **fields}) + "\n")
    sys.stdout.flush()


def answer(request: dict) -> None:
    question, ident = request["messages"][-1]["content"], request["id"]
    words = f"You said {question} and I heard {len(request['messages'])} messages.".split(" ")
    if "tool" in question:
        emit("tool", id=ident, phase="input", text="12*34")
        emit("tool", id=ident, phase="output", text="408")
    if "hostile" in question:
        words = ["\x1b[31m[red]", "[/foo]\x1b]52;c;eA==\x07", "\u202eevil", "漢字" * 30]
    if "too long" in question:
        emit(
            "error",
            id=ident,
            code="context",
            message="the question has 900 tokens, the context 256",
            next="ask in fewer words",
        )
        return
    emit("begin", id=ident, prompt_tokens=1204, dropped_turns=2 if "overflow" in question else 0, context=2048)
    delay = 0.05 if "slowly" in question else 0.001
    words = words * (200 if "slowly" in question else 1)
    for count, word in enumerate(words, 1):
        if ident in stopped:
            break
        emit("token", id=ident, text=word + " ", ms=[84.0 if count == 1 else 1000 * delay])
        time.sleep(delay)
        if "die" in question and count == 3:
            print("Killed: out of [/memory]", file=sys.stderr, flush=True)
            os._exit(137)
    emit(
        "done",
        id=ident,
        finish="cancelled" if ident in stopped else "stop",
        stats={
            "ttft_ms": 84.0,
            "tok_per_s": 112.4,
            "prompt_tokens": 1204,
            "completion_tokens": count,
            "seconds": 1.9,
            "dropped_turns": 0,
            "context_used": 1265,
            "context": 2048,
        },
    )


def main() -> None:
    emit("ready", v=1)
    for line in sys.stdin:
        request = json.loads(line)
        op = request["op"]
        if op == "load":
            emit(
                "loaded",
                model={
                    "name": request["name"],
                    "source": "sft",
                    "step": request["step"],
                    "n_params": 3_400_000,
                    "n_layer": 4,
                    "n_embd": 256,
                    "vocab_size": 1024,
                    "context": 256,
                    "device": "cpu",
                    "dtype": "bfloat16",
                    "bytes": 21_000_000,
                    "seconds": 0.1,
                },
            )
        elif op == "generate":
            threading.Thread(target=answer, args=(request,), daemon=True).start()
        elif op == "tokens":
            emit("tokens", count=len(request["text"].split()), characters=len(request["text"]), context=256)
        elif op == "stop":
            stopped.add(request["id"])
        elif op == "quit":
            return


if __name__ == "__main__":
    main()
