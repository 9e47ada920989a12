"""The door for foreign text: logs, model output, file names and error messages become harmless here, once.

A terminal obeys what it is sent: an escape sequence in a log line can move the cursor, write the clipboard or hide
text, and a bidi control can make a name read as another one. What leaves `clean` can only be read. It says nothing
about markup: widgets take foreign text as plain `Content` or with `markup=False`.
"""

from __future__ import annotations

import re

_STRING_END = "[^\x07\x1b\x9c\n]*(?:\x07|\x1b\\\\|\x9c)?"  # an unterminated one ends with its line, not with the file
_SEQUENCE = re.compile(
    "(?:\x1b\\[|\x9b)[0-?]*[ -/]*[@-~]?"  # CSI: colours, cursor movement
    "|(?:\x1b[\\]PX^_]|[\x9d\x90\x98\x9e\x9f])" + _STRING_END +  # OSC, DCS, SOS, PM, APC: titles, links, the clipboard
    "|\x1b[ -/]*[0-~]?"  # two-character escapes
)
_INVISIBLE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f"  # C0 but tab and newline, DEL, C1
    "\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f"  # soft hyphen, joiners, fillers
    "\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufe00-\ufe0f\ufeff\ufff9-\ufffb"  # zero width, bidi, variation selectors
    "\U000e0000-\U000e0fff]"  # tags
)
_SURROGATE = re.compile("[\ud800-\udfff]")  # half a character: cannot be written to any terminal


def clean(text: str) -> str:
    """`text` without anything but characters to read, tabs and newlines. Linear in its length, and idempotent.

    A lone carriage return overwrites its line, as on a terminal: what follows the last one is kept.
    """
    if text.isprintable():
        return _INVISIBLE.sub("", text) if not text.isascii() else text
    if "\r" in text:
        text = "\n".join(map(_overwrite, text.split("\n")))
    if "\x1b" in text or not text.isascii():
        text = _SURROGATE.sub("\ufffd", _SEQUENCE.sub("", text))
    return _INVISIBLE.sub("", text)


def _overwrite(line: str) -> str:
    """What a terminal would show of a line with carriage returns (progress bars redraw themselves this way)."""
    return line.rstrip("\r").rpartition("\r")[2]


def clean_line(text: str, limit: int = 1000) -> str:
    """One cleaned line of at most `limit` characters for a title, a table cell or a notice; cut text ends in '…'.

    Only the beginning of a very long text is looked at, so the cost does not depend on its length.
    """
    line = " ".join(clean(text[: 8 * limit + 256]).split())
    return line if len(line) <= limit else line[: max(limit - 1, 0)] + "…"
