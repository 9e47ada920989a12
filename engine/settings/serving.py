"""Settings of `python -m engine serve`: which models, where to listen, how many answers side by side."""

from __future__ import annotations

from dataclasses import dataclass

from engine.config import opt
from engine.settings.choices import BACKENDS, DEVICES, STORED


@dataclass(frozen=True)
class Serve:
    """The server. Its token comes from LLMCONSOLE_SERVE_TOKEN or from a file, never from the command line."""

    model: str = opt("", "models to serve, by ref or part of it, joined by commas; none: every one, the newest first")
    host: str = opt("127.0.0.1", "address to listen on; one that others can reach needs a token")
    port: int = opt(8000, "port to listen on; 0 takes a free one", low=0, high=65535)
    token_file: str = opt("", "file with the token, readable by its owner alone")
    allow_host: str = opt("", "further names under which the server may be reached, joined by commas")
    heartbeat: int = opt(0, "end when nothing came on stdin for so many seconds, or stdin ended; 0: stay", low=0)
    device: str = opt("auto", "where to compute", choices=DEVICES)
    dtype: str = opt("auto", "precision of the weights", choices=STORED)
    backend: str = opt("auto", "what computes on a CPU", choices=BACKENDS)
    num_gpus: int = opt(1, "copies of the model, one per GPU", low=1, high=64)
    rows: int = opt(8, "answers written side by side by one copy", low=1, high=256)
    queue: int = opt(32, "requests that may wait for one; further ones are told to come back", low=0, high=10_000)
    keep: int = opt(2, "models kept in memory at once", low=1, high=64)
    temperature: float = opt(0.8, "where a request does not say", low=0, high=2)
    top_k: int = opt(50, "where a request does not say", low=1, high=200)
    max_tokens: int = opt(512, "longest answer where a request does not say", low=1, high=4096)
