"""Settings survive the way to a command line and back, and what a person mistypes is named."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.config import ConfigError, Option, from_argv, from_mapping, options, to_argv
from engine.settings.evaluation import ChatEval
from engine.settings.training import BaseTrain
from engine.stage import STAGES


def values_of(option: Option) -> st.SearchStrategy[Any]:
    low, high = option.low, option.high
    if option.choices:
        usable: st.SearchStrategy[Any] = st.sampled_from(option.choices)
    elif option.type is bool:
        usable = st.booleans()
    elif option.type is int:
        usable = st.integers(int(low) if low is not None else -(10**12), int(high) if high is not None else 10**12)
    elif option.type is float:
        usable = st.floats(low, high, allow_nan=False)
    else:
        usable = st.text(min_size=1).filter(lambda text: text.lower() != "none")
    usable = usable.filter(lambda value: option.unset is None or value != option.unset)
    return st.none() | usable if option.optional else usable


@st.composite
def filled(draw: st.DrawFn) -> Any:
    config_type = draw(st.sampled_from([spec.config for spec in STAGES.values()]))
    known = options(config_type)
    names = draw(st.sets(st.sampled_from(sorted(known)))) if known else set()
    names |= {name for name, option in known.items() if option.required}
    return config_type(**{name: draw(values_of(known[name])) for name in names})


@given(filled())
def test_a_config_survives_its_command_line(config: Any) -> None:
    assert from_argv(type(config), to_argv(config)) == config


@given(filled())
def test_two_words_and_underscores_mean_the_same(config: Any) -> None:
    words = [word.partition("=") for word in to_argv(config)]
    split = [part for flag, _, value in words for part in (flag.replace("-", "_").replace("__", "--", 1), value)]
    assert from_argv(type(config), split) == config


@pytest.mark.parametrize(("argv", "text"), [
    (["--detph=3"], "did you mean depth"),
    (["--depth"], "--depth needs a value"),
    (["depth=3"], "--name=value"),
    (["--depth=three"], "--depth=three: expected a whole number"),
    (["--depth=0"], "--depth=0: must be at least 1"),
    (["--warmup-ratio=1.5"], "must be at most 1"),
    (["--warmup-ratio=nan"], "expected a number"),
    (["--device-type=gpu"], "not one of auto, cpu, cuda, mps"),
    (["--resume=maybe"], "expected true or false"),
])
def test_mistakes_are_named(argv: list[str], text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        from_argv(BaseTrain, argv)


def test_booleans_may_stand_alone_and_minus_one_means_unset() -> None:
    config = from_argv(BaseTrain, ["--resume", "--num_iterations=-1", "--depth", "1_2"])
    assert (config.resume, config.num_iterations, config.depth) == (True, None, 12)


@pytest.mark.parametrize("value", [[], {}, [1], True, 1.5, float("inf"), None, b"4"])
def test_values_of_a_wrong_type_are_refused(value: Any) -> None:
    with pytest.raises(ConfigError):
        from_mapping(ChatEval, {"batch_size": value})


def test_nanochats_short_flags_are_understood() -> None:
    from engine.settings.evaluation import ChatEval

    config = from_argv(ChatEval, ["-i", "mid", "-a", "GSM8K|MMLU", "-x=5", "--top-k", "3", "-n", "2"])
    assert (config.source, config.task_name, config.max_problems, config.top_k) == ("mid", "GSM8K|MMLU", 5, 3)
    assert config.num_samples == 2
    with pytest.raises(ConfigError, match="unexpected argument '-q'"):
        from_argv(ChatEval, ["-q", "1"])
