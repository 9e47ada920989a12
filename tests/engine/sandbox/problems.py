"""164 small problems in HumanEval's schema, written for these tests: families of functions with their parameters.

Each is (name, arguments, docstring, body, calls). What a call must return is found by running the body here, where it
is trusted; the sandbox must then agree, value for value and type for type.
"""

# ruff: noqa: E501

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

WORDS = [("hello world",), ("",), ("A man, a plan",), ("zzz aaa zzz",), ("Ünïcödé ñ",)]
LISTS = [([3, 1, 2],), ([],), ([5, 5, -1, 0, 12],), ([7],), (list(range(20, 0, -3)),)]
NUMBERS = [(0,), (1,), (2,), (7,), (30,), (97,), (100,)]

# name, imports, arguments, docstring, body, calls; {k} takes each of the parameters in turn
FAMILIES: list[tuple[str, str, str, str, str, list[tuple[Any, ...]], list[Any]]] = [
    ("multiples_below_{k}", "", "n", "Sum of the multiples of {k} below n.",
     "return sum(range(0, n, {k}))", NUMBERS, [3, 5, 7, 11, 13]),
    ("to_base_{k}", "", "n", "n written in base {k}.",
     "digits = ''\n    while n >= {k}:\n        digits, n = str(n % {k}) + digits, n // {k}\n    return str(n) + digits",
     NUMBERS, [2, 3, 4, 5, 6, 7, 8, 9]),
    ("from_base_{k}", "", "text", "The number that text stands for in base {k}.",
     "return int(text, {k})", [("0",), ("1",), ("101",), ("1" * 80,)], [2, 3, 5, 8, 16, 36]),
    ("caesar_{k}", "", "text", "Shift every letter by {k} places, the alphabet is a circle.",
     "out = ''\n    for c in text:\n        if 'a' <= c <= 'z':\n            c = chr((ord(c) - 97 + {k}) % 26 + 97)\n"
     "        out += c\n    return out", WORDS, [1, 3, 7, 13, 25]),
    ("rotate_{k}", "from typing import List\n\n", "xs: List[int]", "The list turned by {k} places to the left.",
     "if not xs:\n        return []\n    k = {k} % len(xs)\n    return xs[k:] + xs[:k]", LISTS, [1, 2, 5]),
    ("chunks_of_{k}", "from typing import List\n\n", "xs: List[int]", "The list in pieces of {k}.",
     "return [xs[i:i + {k}] for i in range(0, len(xs), {k})]", LISTS, [1, 2, 3, 4]),
    ("every_{k}th", "", "xs", "Every {k}th element, from the first on.", "return xs[::{k}]", LISTS, [2, 3, 4]),
    ("power_sum_{k}", "", "n", "1 + 2**{k} + ... + n**{k}.", "return sum(i ** {k} for i in range(1, n + 1))", NUMBERS,
     [1, 2, 3, 10, 40]),
    ("largest_{k}", "import heapq\n\n", "xs", "The {k} largest, in descending order.",
     "return heapq.nlargest({k}, xs)", LISTS, [1, 2, 3]),
    ("moving_mean_{k}", "", "xs", "Means of {k} neighbours.",
     "return [sum(xs[i:i + {k}]) / {k} for i in range(len(xs) - {k} + 1)]", LISTS, [2, 3]),
    ("words_longer_than_{k}", "import re\n\n", "text", "Words with more than {k} letters.",
     "return [w for w in re.findall(r'\\w+', text) if len(w) > {k}]", WORDS, [1, 3, 4]),
    ("closest_pair_{k}", "from itertools import combinations\n\n", "xs",
     "Whether two elements are closer than {k} to each other.",
     "return any(abs(a - b) < {k} for a, b in combinations(xs, 2))", LISTS, [1, 2, 4]),
    ("digits_power_{k}", "", "n", "Sum of the digits of n, each to the power of {k}.",
     "return sum(int(d) ** {k} for d in str(n))", NUMBERS, [1, 2, 3]),
    ("multiply_mod_{k}", "import math\n\n", "n", "Factorial of n modulo {k}.", "return math.factorial(n) % {k}",
     NUMBERS, [7, 101, 1000003]),
    ("round_to_{k}", "", "x", "x rounded to {k} places.", "return round(x, {k})",
     [(3.14159,), (-2.5,), (0.0,), (1e10 / 3,), (float('inf'),)], [0, 1, 2, 4]),
    ("ackermann_{k}", "import sys\n\n", "n", "Ackermann function of {k} and n.",
     "sys.setrecursionlimit(5000)\n    def a(m, n):\n        if m == 0:\n            return n + 1\n"
     "        return a(m - 1, 1) if n == 0 else a(m - 1, a(m, n - 1))\n    return a({k}, n)", [(0,), (2,), (4,)],
     [0, 1, 2]),
    ("pascal_row_{k}", "", "", "Row {k} of Pascal's triangle.",
     "row = [1]\n    for _ in range({k}):\n        row = [a + b for a, b in zip([0] + row, row + [0])]\n    return row",
     [()], [0, 1, 5, 30]),
    ("is_power_of_{k}", "", "n", "Whether n is a power of {k}.",
     "while n > 1 and n % {k} == 0:\n        n //= {k}\n    return n == 1", NUMBERS, [2, 3, 10]),
    ("polynomial_{k}", "", "x", "1 + x + ... + x**{k}, by Horner.",
     "value = 0\n    for _ in range({k} + 1):\n        value = value * x + 1\n    return value",
     [(0,), (2,), (-3,), (0.5,), (1j,)], [2, 5, 8]),
]
# name, imports, arguments, docstring, body, calls
SINGLES: list[tuple[str, str, str, str, str, list[tuple[Any, ...]]]] = [
    ("is_prime", "", "n", "Whether n is prime.",
     "return n > 1 and all(n % d for d in range(2, int(n ** 0.5) + 1))", NUMBERS),
    ("prime_factors", "", "n", "Prime factors of n in ascending order.",
     "out, d = [], 2\n    while n > 1:\n        while n % d == 0:\n            out.append(d)\n            n //= d\n"
     "        d += 1\n    return out", NUMBERS),
    ("fibonacci", "", "n", "The n-th Fibonacci number.",
     "a, b = 0, 1\n    for _ in range(n):\n        a, b = b, a + b\n    return a", [*NUMBERS, (1000,)]),
    ("collatz", "", "n", "Steps of n to 1.",
     "steps = 0\n    while n > 1:\n        n = n // 2 if n % 2 == 0 else 3 * n + 1\n        steps += 1\n    return steps",
     NUMBERS),
    ("greatest_common_divisor", "", "a, b", "Greatest common divisor of a and b.",
     "while b:\n        a, b = b, a % b\n    return a", [(12, 18), (7, 0), (0, 0), (270, 192)]),
    ("least_common_multiple", "import math\n\n", "a, b", "Least common multiple.", "return a * b // math.gcd(a, b)",
     [(4, 6), (1, 9), (21, 6)]),
    ("roman", "", "n", "n in Roman numerals.",
     "out = ''\n    for v, s in ((100, 'C'), (90, 'XC'), (50, 'L'), (40, 'XL'), (10, 'X'), (9, 'IX'), (5, 'V'), (4, 'IV'), "
     "(1, 'I')):\n        while n >= v:\n            out, n = out + s, n - v\n    return out", NUMBERS),
    ("is_palindrome", "", "text", "Whether text reads the same backwards.", "return text == text[::-1]", WORDS),
    ("vowels", "", "text", "Number of vowels.", "return sum(c in 'aeiouAEIOU' for c in text)", WORDS),
    ("word_counts", "from collections import Counter\n\n", "text", "How often each word occurs.",
     "return Counter(text.split())", WORDS),
    ("letter_positions", "from collections import defaultdict\n\n", "text", "Positions of each letter.",
     "found = defaultdict(list)\n    for i, c in enumerate(text):\n        found[c].append(i)\n    return found", WORDS),
    ("unique_letters", "", "text", "The set of letters.", "return set(text)", WORDS),
    ("title_case", "", "text", "Every word with a capital.", "return ' '.join(w.capitalize() for w in text.split())",
     WORDS),
    ("run_length", "from itertools import groupby\n\n", "text", "Runs as pairs of letter and length.",
     "return [(c, len(list(g))) for c, g in groupby(text)]", WORDS),
    ("longest_word", "", "text", "The longest word, None without words.",
     "return max(text.split(), key=len) if text.split() else None", WORDS),
    ("anagrams", "", "a, b", "Whether a is made of the letters of b.", "return sorted(a) == sorted(b)",
     [("listen", "silent"), ("a", "b"), ("", "")]),
    ("edit_distance", "", "a, b", "Fewest single-letter changes from a to b.",
     "row = list(range(len(b) + 1))\n    for i, x in enumerate(a, 1):\n        last, row[0] = row[0], i\n"
     "        for j, y in enumerate(b, 1):\n            last, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, "
     "last + (x != y))\n    return row[-1]", [("kitten", "sitting"), ("", "abc"), ("same", "same")]),
    ("common_subsequence", "from functools import lru_cache\n\n", "a, b", "Length of the longest common subsequence.",
     "@lru_cache(None)\n    def f(i, j):\n        if i == len(a) or j == len(b):\n            return 0\n"
     "        return f(i + 1, j + 1) + 1 if a[i] == b[j] else max(f(i + 1, j), f(i, j + 1))\n    return f(0, 0)",
     [("abcbdab", "bdcaba"), ("", "x")]),
    ("balanced", "", "text", "Whether the brackets match.",
     "stack, pairs = [], {')': '(', ']': '[', '}': '{'}\n    for c in text:\n        if c in '([{':\n"
     "            stack.append(c)\n        elif c in pairs and (not stack or stack.pop() != pairs[c]):\n"
     "            return False\n    return not stack", [("([]{})",), ("(]",), ("",), ("((",)]),
    ("evaluate", "", "text", "The value of an expression of + - * and whole numbers.",
     "import ast, operator\n    ops = {ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul}\n"
     "    def f(n):\n        return n.value if isinstance(n, ast.Constant) else ops[type(n.op)](f(n.left), f(n.right))\n"
     "    return f(ast.parse(text, mode='eval').body)", [("1+2*3",), ("10-4-3",), ("7",)]),
    ("md5", "import hashlib\n\n", "text", "Hex digest of text, None when it is empty.",
     "return hashlib.md5(text.encode()).hexdigest() if text else None", WORDS),
    ("sorted_copy", "", "xs", "A sorted copy.", "return sorted(xs)", LISTS),
    ("bubble_sort", "", "xs", "Sorted, the slow way.",
     "xs = list(xs)\n    for i in range(len(xs)):\n        for j in range(len(xs) - 1 - i):\n"
     "            if xs[j] > xs[j + 1]:\n                xs[j], xs[j + 1] = xs[j + 1], xs[j]\n    return xs", LISTS),
    ("merge_sort", "", "xs", "Sorted by halves.",
     "if len(xs) < 2:\n        return list(xs)\n    m = len(xs) // 2\n    a, b, out = merge_sort(xs[:m]), merge_sort(xs[m:]), []\n"
     "    while a and b:\n        out.append((a if a[0] <= b[0] else b).pop(0))\n    return out + a + b", LISTS),
    ("insert_point", "import bisect\n\n", "xs, x", "Where x belongs in a sorted list.", "return bisect.bisect(xs, x)",
     [([1, 3, 5], 4), ([], 1), ([2, 2, 2], 2)]),
    ("median", "import statistics\n\n", "xs", "The median, None for an empty list.",
     "return statistics.median(xs) if xs else None", LISTS),
    ("extent", "", "xs", "(smallest, largest), (None, None) for an empty list.",
     "return (min(xs), max(xs)) if xs else (None, None)", LISTS),
    ("prefix_sums", "from itertools import accumulate\n\n", "xs", "Running sums.", "return list(accumulate(xs))", LISTS),
    ("product", "from functools import reduce\n\n", "xs", "Product of all.",
     "return reduce(lambda a, b: a * b, xs, 1)", LISTS),
    ("without_doubles", "", "xs", "First occurrences in order.", "return list(dict.fromkeys(xs))", LISTS),
    ("largest_subarray", "", "xs", "Largest sum of a run, at least 0.",
     "best = now = 0\n    for x in xs:\n        now = max(0, now + x)\n        best = max(best, now)\n    return best", LISTS),
    ("two_sum", "", "xs, t", "Indices of two elements that sum to t, None if there are none.",
     "seen = {}\n    for i, x in enumerate(xs):\n        if t - x in seen:\n            return seen[t - x], i\n"
     "        seen[x] = i\n    return None", [([2, 7, 11], 9), ([1, 2], 9), ([], 0)]),
    ("transpose", "", "m", "Rows become columns.", "return [list(c) for c in zip(*m)]",
     [([[1, 2], [3, 4]],), ([],), ([[1, 2, 3]],)]),
    ("matrix_product", "", "a, b", "a times b.",
     "return [[sum(x * y for x, y in zip(r, c)) for c in zip(*b)] for r in a]", [([[1, 2]], [[3], [4]]), ([[2]], [[0.5]])]),
    ("flatten", "", "xs", "All numbers of a nested list.",
     "return [y for x in xs for y in (flatten(x) if isinstance(x, list) else [x])]",
     [([1, [2, [3, []]], 4],), ([],)]),
    ("depth", "", "xs", "How deep a list is nested.",
     "return 1 + max((depth(x) for x in xs if isinstance(x, list)), default=0)", [([],), ([1, [2, [3]]],)]),
    ("invert", "", "d", "Keys and values change places.", "return {v: k for k, v in d.items()}",
     [({"a": 1, "b": 2},), ({},), ({1: (2, 3)},)]),
    ("merge_counts", "", "a, b", "Sums by key.", "return {k: a.get(k, 0) + b.get(k, 0) for k in {**a, **b}}",
     [({"x": 1}, {"x": 2, "y": 3}), ({}, {})]),
    ("only_ints", "from typing import Any, List\n\n", "values: List[Any]", "The whole numbers among values.",
     "return [v for v in values if isinstance(v, int)]", [([1, "2", 3.0, [], {}, None, True],), ([],)]),
    ("powerset", "from itertools import chain, combinations\n\n", "xs", "All subsets as tuples.",
     "return list(chain.from_iterable(combinations(xs, n) for n in range(len(xs) + 1)))", [([1, 2, 3],), ([],)]),
    ("permutations_of", "import itertools\n\n", "text", "All orders of the letters, sorted.",
     "return sorted({''.join(p) for p in itertools.permutations(text)})", [("abc",), ("aab",), ("",)]),
    ("queens", "", "n", "Ways to place n queens on a board of n by n.",
     "def place(row, cols, down, up):\n        if row == n:\n            return 1\n        return sum(place(row + 1, cols | {c}, "
     "down | {row - c}, up | {row + c}) for c in range(n) if c not in cols and row - c not in down and row + c not in up)\n"
     "    return place(0, frozenset(), frozenset(), frozenset())", [(1,), (4,), (6,)]),
    ("change", "", "amount, coins", "Fewest coins, -1 if impossible.",
     "best = [0] + [amount + 1] * amount\n    for a in range(1, amount + 1):\n        for c in coins:\n            if c <= a:\n"
     "                best[a] = min(best[a], best[a - c] + 1)\n    return best[amount] if best[amount] <= amount else -1",
     [(11, [1, 2, 5]), (3, [2]), (0, [1])]),
    ("shortest_path", "from collections import deque\n\n", "graph, a, b", "Fewest edges from a to b, None if unreachable.",
     "seen, queue = {a}, deque([(a, 0)])\n    while queue:\n        node, far = queue.popleft()\n        if node == b:\n"
     "            return far\n        for other in graph.get(node, []):\n            if other not in seen:\n"
     "                seen.add(other)\n                queue.append((other, far + 1))\n    return None",
     [({"a": ["b"], "b": ["c"]}, "a", "c"), ({}, "a", "b")]),
    ("spiral", "", "m", "The elements of a matrix along a spiral.",
     "out = []\n    while m:\n        out += m[0]\n        m = [list(r) for r in zip(*m[1:])][::-1]\n    return out",
     [([[1, 2, 3], [4, 5, 6], [7, 8, 9]],), ([],)]),
    ("game_of_life", "", "cells", "The next generation of a set of living cells.",
     "near = [(x + i, y + j) for x, y in cells for i in (-1, 0, 1) for j in (-1, 0, 1) if i or j]\n"
     "    return {c for c in set(near) if near.count(c) == 3 or near.count(c) == 2 and c in cells}",
     [({(0, 0), (1, 0), (2, 0)},), (set(),)]),
    ("sieve", "", "n", "Primes up to n.",
     "flags = bytearray([1]) * (n + 1)\n    for i in range(2, int(n ** 0.5) + 1):\n        if flags[i]:\n"
     "            flags[i * i::i] = bytes(len(flags[i * i::i]))\n    return [i for i in range(2, n + 1) if flags[i]]", NUMBERS),
    ("newton_root", "", "x", "Square root by Newton's method.",
     "guess = x or 1.0\n    for _ in range(60):\n        guess = (guess + x / guess) / 2\n    return round(guess, 9)",
     [(2.0,), (144.0,), (0.25,)]),
    ("average_fraction", "from fractions import Fraction\n\n", "xs", "The exact mean.",
     "return Fraction(sum(xs), len(xs)) if xs else Fraction(0)", LISTS),
    ("cents", "from decimal import Decimal\n\n", "text", "An amount as an exact number, times 1.19.",
     "return Decimal(text) * Decimal('1.19')", [("10.00",), ("0.01",)]),
    ("weekday", "import datetime\n\n", "y, m, d", "The name of the day.",
     "return datetime.date(y, m, d).strftime('%A')", [(2025, 1, 1), (2000, 2, 29)]),
    ("days_between", "from datetime import date\n\n", "a, b", "Days from a to b, both (year, month, day).",
     "return (date(*b) - date(*a)).days", [((2024, 2, 28), (2024, 3, 1)), ((2000, 1, 1), (2000, 1, 1))]),
    ("valid_date", "import re\n\n", "text", "Whether text is a date such as 2025-01-31.",
     "return bool(re.fullmatch(r'\\d{4}-(0[1-9]|1[0-2])-(0[1-9]|[12]\\d|3[01])', text))",
     [("2025-01-31",), ("2025-13-01",), ("",)]),
    ("bracket_error", "", "text", "The whole number in text; 'bad' where there is none.",
     "try:\n        return int(text)\n    except ValueError:\n        return 'bad'", [("12",), ("x",), ("",)]),
    ("xor_strings", "", "a, b", "Bits that differ.", "return ''.join('01'[x != y] for x, y in zip(a, b))",
     [("010", "110"), ("", "")]),
    ("gray_code", "", "n", "The codes of n bits.", "return [format(i ^ i >> 1, '0%db' % n) for i in range(2 ** n)]",
     [(1,), (3,)]),
    ("bits", "", "n", "Number of ones.", "return bin(n).count('1')", [*NUMBERS, (2 ** 100 - 1,)]),
    ("big_power", "", "n", "2 to the power of n.", "return 2 ** n", [(10,), (64,), (5000,)]),
    ("reverse_bytes", "", "data", "The bytes backwards.", "return data[::-1]", [(b"abc",), (b"",), (bytes(range(256)),)]),
    ("as_json", "import json\n\n", "value", "value as JSON.", "return json.dumps(value, sort_keys=True)",
     [({"b": [1, None], "a": True},), ([],)]),
    ("random_but_fixed", "import random\n\n", "seed", "Three numbers of a seed.",
     "r = random.Random(seed)\n    return [r.randint(0, 99) for _ in range(3)]", [(1,), (42,)]),
    ("stack_machine", "from dataclasses import dataclass, field\n\n", "words", "The top of a stack after some words.",
     "@dataclass\n    class Stack:\n        items: list = field(default_factory=list)\n"
     "    s = Stack()\n    for w in words:\n        s.items.append(s.items.pop() + s.items.pop() if w == '+' else w)\n"
     "    return s.items[-1] if s.items else None", [([1, 2, "+"],), ([],)]),
    ("lazy_squares", "", "n", "Squares below n, by a generator.",
     "def squares():\n        i = 0\n        while i * i < n:\n            yield i * i\n            i += 1\n    return list(squares())",
     NUMBERS),
    ("nested_exception", "", "x", "1/x, or None for zero, by way of an exception of its own.",
     "class Zero(Exception): pass\n    try:\n        if x == 0:\n            raise Zero\n        return 1 / x\n    except Zero:\n"
     "        return None", [(0,), (4,)]),
    ("deep_recursion", "import sys\n\n", "n", "n by counting down.",
     "sys.setrecursionlimit(20000)\n    def f(n):\n        return 0 if n == 0 else 1 + f(n - 1)\n    return f(n)",
     [(10,), (3000,)]),
    ("enumerated", "from enum import IntEnum\n\n", "n", "A colour by its number, as a number.",
     "class Colour(IntEnum):\n        RED = 1\n        BLUE = 2\n    return Colour(n)", [(1,), (2,)]),
    ("named", "from collections import namedtuple\n\n", "x, y", "A point.", "return namedtuple('P', 'x y')(x, y)", [(1, 2)]),
    ("not_a_number", "", "x", "x minus x is nan for infinity; told as text.", "return str(x - x)", [(float("inf"),), (1.0,)]),
    ("frozen", "", "xs", "The frozen set of xs.", "return frozenset(xs)", LISTS),
    ("walrus", "", "xs", "Squares above 10.", "return [y for x in xs if (y := x * x) > 10]", LISTS),
    ("matched", "", "shape", "The area of a shape written as a tuple.",
     "if shape[0] == 'circle':\n        return round(3.14159 * shape[1] ** 2, 3)\n    return shape[1] * shape[2]",
     [(("circle", 2),), (("box", 3, 4),)]),
    ("complex_roots", "import cmath\n\n", "a, b, c", "Roots of a quadratic equation, rounded.",
     "d = cmath.sqrt(b * b - 4 * a * c)\n    return [complex(round(z.real, 6), round(z.imag, 6)) for z in "
     "((-b + d) / (2 * a), (-b - d) / (2 * a))]", [(1, 0, 1), (1, -3, 2)]),
    ("text_wrapped", "import textwrap\n\n", "text", "Lines of at most eight characters.",
     "return textwrap.wrap(text, 8)", WORDS),
    ("unicode_names", "import unicodedata\n\n", "text", "Text without accents.",
     "return ''.join(c for c in unicodedata.normalize('NFD', text) if not unicodedata.combining(c))", WORDS),
    ("shoelace", "", "points", "Area of a polygon.",
     "return abs(sum(a * d - b * c for (a, b), (c, d) in zip(points, points[1:] + points[:1]))) / 2",
     [([(0, 0), (4, 0), (0, 3)],), ([(0, 0), (1, 0), (1, 1), (0, 1)],)]),
    ("knapsack", "", "items, room", "Best value of (weight, value) items within room.",
     "best = [0] * (room + 1)\n    for w, v in items:\n        for r in range(room, w - 1, -1):\n"
     "            best[r] = max(best[r], best[r - w] + v)\n    return best[room]", [([(2, 3), (3, 4), (4, 5)], 5), ([], 3)]),
    ("longest_increasing", "import bisect\n\n", "xs", "Length of the longest increasing subsequence.",
     "tails = []\n    for x in xs:\n        i = bisect.bisect_left(tails, x)\n        tails[i:i + 1] = [x]\n    return len(tails)",
     LISTS),
    ("topological", "", "edges", "Nodes so that every edge points forward, None in a circle.",
     "nodes = sorted({n for e in edges for n in e})\n    out = []\n    while nodes:\n        free = [n for n in nodes if not any("
     "b == n and a in nodes for a, b in edges)]\n        if not free:\n            return None\n        out.append(free[0])\n"
     "        nodes.remove(free[0])\n    return out", [([("a", "b"), ("b", "c")],), ([("a", "b"), ("b", "a")],)]),
    ("histogram", "", "xs", "Water that stays between bars.",
     "return sum(min(max(xs[:i + 1]), max(xs[i:])) - x for i, x in enumerate(xs))", [([3, 0, 2],), ([],), ([1, 2, 3],)]),
    ("interleave", "from itertools import chain, zip_longest\n\n", "a, b", "Elements of a and b in turns.",
     "return [x for x in chain.from_iterable(zip_longest(a, b)) if x is not None]", [([1, 2, 3], [9]), ([], [])]),
    ("luhn", "", "text", "Whether the check digit of a card number is right.",
     "d = [int(c) for c in text][::-1]\n    return (sum(d[::2]) + sum(sum(divmod(2 * x, 10)) for x in d[1::2])) % 10 == 0",
     [("79927398713",), ("79927398710",)]),
    ("look_and_say", "import re\n\n", "n", "The n-th word of 1, 11, 21, 1211, ...",
     "s = '1'\n    for _ in range(n):\n        s = re.sub(r'(.)\\1*', lambda m: str(len(m[0])) + m[1], s)\n    return s",
     [(0,), (1,), (6,)]),
    ("bin_search_root", "", "n", "Whole part of the cube root of n.",
     "lo, hi = 0, n + 1\n    while hi - lo > 1:\n        mid = (lo + hi) // 2\n        if mid ** 3 <= n:\n            lo = mid\n"
     "        else:\n            hi = mid\n    return lo", [*NUMBERS, (10 ** 30,)]),
    ("josephus", "", "n, k", "Who is left in a circle of n when every k-th leaves.",
     "s = 0\n    for i in range(2, n + 1):\n        s = (s + k) % i\n    return s + 1", [(7, 3), (1, 1), (41, 3)]),
    ("mode_of", "from statistics import multimode\n\n", "xs", "The most frequent values.", "return multimode(xs)", LISTS),
    ("clamped", "", "x, lo, hi", "x, but within lo and hi.", "return max(lo, min(hi, x))",
     [(5, 0, 3), (-1, 0, 3), (2.5, 0, 3)]),
    ("sign_pattern", "", "xs", "'+', '-' or '0' for each.", "return ''.join('0+-'[(x > 0) - (x < 0)] for x in xs)", LISTS),
    ("compressed", "import zlib\n\n", "text", "Whether compressing and back is the identity.",
     "return zlib.decompress(zlib.compress(text.encode())).decode()", WORDS),
    ("sorted_by_two", "", "rows", "Rows by second descending, then first.",
     "return sorted(rows, key=lambda r: (-r[1], r[0]))", [([("b", 1), ("a", 1), ("c", 2)],), ([],)]),
    ("string_times", "", "text, n", "text repeated, separated by dashes.", "return '-'.join([text] * n)",
     [("ab", 3), ("x", 0)]),
    ("any_all", "", "rows", "(any row all true, all rows any true).",
     "return any(all(r) for r in rows), all(any(r) for r in rows)", [([[1, 0], [1, 1]],), ([],), ([[]],)]),
]


def problems() -> list[dict[str, Any]]:
    """Rows in HumanEval's schema, with the expected values worked out here."""
    found = [_row(f"Local/{i}", *parts) for i, parts in enumerate(_spread())]
    assert len(found) == 164 and len({row["entry_point"] for row in found}) == 164
    return found


def _spread() -> Iterator[tuple[str, str, str, str, str, list[tuple[Any, ...]]]]:
    for name, imports, args, doc, body, calls, parameters in FAMILIES:
        for k in parameters:
            yield (name.replace("{k}", str(k)), imports, args, doc.replace("{k}", str(k)), body.replace("{k}", str(k)),
                   calls)
    yield from SINGLES


def _row(task_id: str, name: str, imports: str, args: str, doc: str, body: str,
         calls: list[tuple[Any, ...]]) -> dict[str, Any]:
    prompt = f'{imports}def {name}({args}):\n    """{doc}"""\n'
    solution = f"    {body}\n"
    names: dict[str, Any] = {"inf": float("inf")}
    exec(prompt + solution, names)
    lines = [f"    assert candidate(*{call!r}) == {_plain(names[name](*call))!r}" for call in calls]
    return {"task_id": task_id, "prompt": prompt, "canonical_solution": solution, "entry_point": name,
            "test": "from collections import *\nfrom decimal import Decimal\nfrom fractions import Fraction\n"
                    "inf = float('inf')\ndef P(x, y): return (x, y)\ndef check(candidate):\n" + "\n".join(lines) + "\n"}


def _plain(value: Any) -> Any:
    """Subclasses of dict and int print as themselves."""
    return dict(value) if isinstance(value, dict) else int(value) if type(value).__name__ == "Colour" else value
