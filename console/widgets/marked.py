"""Text of a model with the marks that models make: code blocks, headings, lists, `code`, **bold**, *slanted*.

The result is plain `Content`: every character is shown as a character, styles are laid on by us, and nothing in the
text is read as the framework's own markup.
"""

from __future__ import annotations

import re

from textual.content import Content

_FENCE = re.compile(r"\s*```\s*([\w+#.-]*)\s*")
_HEADING = re.compile(r"#{1,6} +(.*)")
_ITEM = re.compile(r"(\s*)(?:([-*+])|(\d{1,3})[.)]) +(.*)")
_INLINE = re.compile(r"`([^`\n]+)`|\*\*([^*\n]+)\*\*|(?<![\w*])\*([^*\s\n][^*\n]*)\*(?![\w*])")
_STYLES = ("$text-warning", "bold", "italic")  # code, bold, slanted

CODE, EDGE = "$text-secondary", "$foreground-muted"


def marked(text: str) -> Content:
    """`text` line by line, styled."""
    lines, code = [], False
    for line in text.split("\n"):
        fence = _FENCE.fullmatch(line)
        if fence:
            lines.append(Content.styled(f"  {'└' if code else '┌'} {'' if code else fence[1]}".rstrip(), EDGE))
            code = not code
        else:
            lines.append(_code_line(line) if code else _line(line))
    return Content("\n").join(lines)


def _code_line(line: str) -> Content:
    return Content.assemble(("  │ ", EDGE), (line, CODE))


def _line(line: str) -> Content:
    if heading := _HEADING.fullmatch(line):
        return Content.styled(heading[1], "bold $text-accent")
    if item := _ITEM.fullmatch(line):
        mark = "•" if item[2] else f"{item[3]}."
        return Content.assemble(f"{item[1]}  ", (mark, "$text-accent"), " ", _inline(item[4]))
    return _inline(line)


def _inline(text: str) -> Content:
    pieces: list[str | tuple[str, str]] = []
    at = 0
    for found in _INLINE.finditer(text):
        pieces.append(text[at : found.start()])
        group = found.lastindex or 1
        pieces.append((found[group], _STYLES[group - 1]))
        at = found.end()
    return Content.assemble(*pieces, text[at:])
