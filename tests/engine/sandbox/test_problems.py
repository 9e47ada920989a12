"""HumanEval's schema through the sandbox: 164 right solutions pass, wrong ones and early exits never do."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from statistics import median

import pytest

from engine.sandbox.sandbox import Sandbox
from engine.sandbox.wire import WireError, pack, unpack
from engine.tasks.humaneval import problem_of, program_of

sys.path.insert(0, str(Path(__file__).parent))
from problems import problems

sys.path.pop(0)

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the sandbox needs Linux")
ROWS = problems()
EXITS = ("import os\nos._exit(0)", "import sys\nsys.exit(0)", "raise SystemExit", "quit()", "import os\nos.abort()",
         "def NAME(*a):\n    import os\n    os._exit(0)", "def NAME(*a):\n    import sys\n    sys.exit(0)",
         "def NAME(*a):\n    raise SystemExit(0)", "def NAME(*a):\n    exit()")


@pytest.fixture(scope="module")
def judge():
    with Sandbox() as box:
        yield lambda row, code: box.judge(code, row["entry_point"], row["test"], prelude=row["prompt"])


def test_all_164_canonical_solutions_pass(judge):
    seconds = []
    for row in ROWS:
        problem = problem_of(row)
        begin = time.perf_counter()
        verdict = judge(row, program_of(problem, problem.messages[1]["content"]))
        seconds.append(time.perf_counter() - begin)
        assert verdict.passed, (row["task_id"], row["entry_point"], verdict.reason)
    print(f"median {1e3 * median(seconds):.2f} ms")


def test_a_wrong_answer_fails_every_one_of_them(judge):
    for row in ROWS:
        assert not judge(row, f"def {row['entry_point']}(*a):\n    return 'wrong'").passed, row["entry_point"]


def test_no_early_exit_is_taken_for_a_pass(judge):
    for i, row in enumerate(ROWS):
        for code in (EXITS[i % len(EXITS)], EXITS[(i + 4) % len(EXITS)]):
            assert not judge(row, code.replace("NAME", row["entry_point"])).passed, (row["entry_point"], code)


def test_tests_may_use_helpers_of_the_prompt_and_expect_exceptions(judge):
    prompt = "def helper(x):\n    return x + 1\n\ndef f(x):\n    '''Twice the helper.'''\n"
    row = {"entry_point": "f", "prompt": prompt, "test":
           "def check(candidate):\n    assert candidate(1) == 2 * helper(1) == f(1)\n    try:\n        candidate('x')\n"
           "    except TypeError:\n        return\n    assert False\n"}
    assert judge(row, prompt + "    return 2 * helper(x)\n").passed
    assert not judge(row, prompt + "    return 4\n").passed


def test_the_reason_says_what_went_wrong(judge):
    row = {"entry_point": "f", "prompt": "", "test": "def check(c):\n    assert c(1) == 2, 'not two'\n"}
    assert judge(row, "def f(x): return 3").reason == "AssertionError: not two"
    assert judge(row, "def f(x): return y").reason.startswith("NameError")
    assert judge(row, "def f(x): return lambda: 1").reason == "WireError: function is not plain data"
    assert judge(row, "def g(x): return 3").reason == "KeyError: 'f'"
    assert "SyntaxError" in judge(row, "def f(x: return 3").reason


@pytest.mark.parametrize("value", [
    None, True, 0, -5, 2 ** 70, 1.5, float("inf"), "text", b"\x00\xff", [1, [2]], (1, (2, [])), {1, 2}, frozenset({3}),
    {"a": 1, (1, 2): [3]}, 1 + 2j, range(1, 9, 2), [], {}, (), set()])
def test_plain_values_keep_their_type(value):
    import json

    again = unpack(json.loads(json.dumps(pack(value))))
    assert again == value and type(again) is type(value)


@pytest.mark.parametrize("value", [{"dict": 3}, {"a": 1, "b": 2}, {"int": "x"}, {"tuple": 3}, {"dict": [[[], 1]]},
                                   {"range": [1, 2, 0]}, {"fraction": ["0x1", "0x0"]}, {"decimal": "x"}, {}])
def test_what_is_no_value_is_refused(value):
    with pytest.raises(WireError):
        unpack(value)


def test_objects_are_not_plain_data():
    with pytest.raises(WireError, match="object is not plain data"):
        pack([object()])
