"""The calculator a model may use inside its answer: sums, and counting letters in a word. Nothing is executed.

The model writes an expression, we read it as a syntax tree and work it out node by node, so there is no `eval` to
escape from, no time limit to enforce and no signal: it works in any thread. What it does not know has no answer.
"""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable

MAX_CHARS = 512  # without powers this also bounds every whole number on the way: 1,701 bits, far below any cost

_SUM_CHARS = frozenset("0123456789+-*/%.() ")
_BINARY: dict[type[ast.operator], Callable[[int | float, int | float], int | float]] = {
    ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul,
    ast.Div: operator.truediv, ast.FloorDiv: operator.floordiv, ast.Mod: operator.mod,
}
_UNARY: dict[type[ast.unaryop], Callable[[int | float], int | float]] = {ast.USub: operator.neg, ast.UAdd: operator.pos}


class _NoAnswer(Exception):
    """The expression is outside of what the calculator does."""


def calculate(expression: str) -> str | None:
    """What the calculator prints for `expression`, or None when it has no answer. Never raises.

    `+ - * / // %`, signs, brackets and decimals on numbers, with commas ignored ("1,000 + 1" is "1001"), and
    `'word'.count('letter')`. Results are Python's: 6/2 is "3.0", -7//2 is "-4".
    """
    if len(expression) > MAX_CHARS:
        return None
    text = expression.replace(",", "").strip(" ")
    is_sum = _SUM_CHARS.issuperset(text)
    if not is_sum and (".count(" not in text or "\\" in text or not text.isprintable()):
        return None
    try:
        tree = ast.parse(text, mode="eval")
        return str(_number(tree.body) if is_sum else _count(tree.body))
    except (_NoAnswer, SyntaxError, ValueError, ArithmeticError, RecursionError, MemoryError):
        return None


def _number(node: ast.expr) -> int | float:
    if isinstance(node, ast.Constant) and isinstance(node.value, (int, float)):
        return node.value
    if isinstance(node, ast.BinOp) and type(node.op) in _BINARY:
        return _BINARY[type(node.op)](_number(node.left), _number(node.right))
    if isinstance(node, ast.UnaryOp) and type(node.op) in _UNARY:
        return _UNARY[type(node.op)](_number(node.operand))
    raise _NoAnswer


def _count(node: ast.expr) -> int:
    """'word'.count('letter') on two plain string literals."""
    match node:
        case ast.Call(func=ast.Attribute(value=ast.Constant(value=str(word)), attr="count"),
                      args=[ast.Constant(value=str(part))], keywords=[]):
            return word.count(part)
    raise _NoAnswer
