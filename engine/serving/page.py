"""The web page: one file with everything in it, and the policy that lets the browser run nothing else."""

from __future__ import annotations

import base64
import hashlib
import re
from functools import lru_cache
from importlib import resources

LOGO = (
    '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 64 64" width="64" height="64">'
    '<rect x="3" y="3" width="58" height="58" rx="15" fill="#0f766e"/>'
    '<path d="M17 22l11 10-11 10" fill="none" stroke="#ecfeff" stroke-width="6" stroke-linecap="round" '
    'stroke-linejoin="round"/><rect x="33" y="38" width="15" height="6" rx="3" fill="#fbbf24"/></svg>'
)


@lru_cache
def page() -> tuple[bytes, str]:
    """The page and its Content-Security-Policy, which names its one script and its one style by their hashes."""
    html = (resources.files("engine.serving") / "page" / "index.html").read_text(encoding="utf-8")
    [script], [style] = (re.findall(f"<{tag}>(.*?)</{tag}>", html, re.S) for tag in ("script", "style"))
    policy = (f"default-src 'none'; script-src '{_hash(script)}'; style-src '{_hash(style)}'; connect-src 'self'; "
              "img-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'")
    return html.encode(), policy


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
