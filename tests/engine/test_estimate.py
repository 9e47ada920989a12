"""The price of a recipe against nanochat's own worked numbers: parameters, FLOPs, steps, tokens, hours."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from engine.config import ConfigError
from engine.estimate import machine_costs, training_costs
from engine.hardware import KINDS
from engine.recipe import Recipe, parse


def recipe(base: str, vocab_size: int = 65_536, more: str = "") -> Recipe:
    text = f'[[stage]]\nstage = "tok_train"\nvocab_size = {vocab_size}\n[[stage]]\nstage = "base_train"\n{base}\n{more}'
    return parse(text, Path("mine.toml"))


@pytest.mark.parametrize(("depth", "parameters", "flops_per_token", "steps", "flops"), [
    (4, 36_700_160, 1.447e8, 1_400, 1.06e17),
    (12, 185_597_952, 1.038e9, 7_080, 3.85e18),
    (20, 560_988_160, 3.491758e9, 21_400, 3.917670e19),
    (26, 1_081_999_360, 6.900941e9, 41_275, 1.49e20),
    (32, 1_879_048_192, 1.207960e10, 71_680, 4.539628e20),
])
def test_the_classic_dial(depth: int, parameters: int, flops_per_token: float, steps: int, flops: float) -> None:
    (cost,) = training_costs(recipe(f"depth = {depth}"))
    assert (cost.parameters, cost.steps, cost.tokens) == (parameters, steps, steps * 524_288)
    assert cost.flops_per_token == pytest.approx(flops_per_token, rel=1e-3)
    assert cost.flops == pytest.approx(flops, rel=5e-3)


def test_the_modern_record_run() -> None:
    settings = ('architecture = "modern"\ndepth = 24\ntarget_param_data_ratio = 8\n'
                "device_batch_size = 16\ncompile = true")
    (cost,) = training_costs(recipe(settings, 32_768))
    assert (cost.steps, cost.tokens_per_step) == (5_568, 1_048_576)
    assert next(m for m in machine_costs(recipe(settings, 32_768)) if m.machine.name == "8xh100").fits


def test_published_batch_sizes_fit_80_gb_and_twice_as_many_do_not() -> None:
    for depth, batch in ((20, 32), (26, 16), (32, 8)):
        for rows, fits in ((batch, True), (4 * batch, False)):
            costs = machine_costs(recipe(f"depth = {depth}\ncompile = true\ndevice_batch_size = {rows}"))
            assert {m.fits for m in costs} == {fits}, (depth, rows)


def test_hours_and_money_follow_from_flops_or_from_the_recipe() -> None:
    machines = {m.machine.name: m for m in machine_costs(recipe("depth = 20"), 3.0)}
    eight, one = machines["8xh100"], machines["1xh100"]
    assert eight.hours == pytest.approx(2.9, rel=0.03)  # as the first speedrun logged
    assert not eight.measured and one.hours == pytest.approx(8 * eight.hours) and one.usd == pytest.approx(eight.usd)
    told = parse('[minutes]\n8xh100 = 231\n[[stage]]\nstage = "base_train"\n', Path("told.toml"))
    known = machine_costs(told, 3.0)[0]
    assert (known.measured, known.hours, known.usd) == (True, 3.85, pytest.approx(92.4))
    assert machine_costs(told)[0].usd == pytest.approx(3.85 * 8 * KINDS["8xh100"].gpu.usd_per_hour)


def test_later_stages_take_the_shape_of_the_base_model() -> None:
    more = '[[stage]]\nstage = "mid_train"\nnum_iterations = 100\n[[stage]]\nstage = "chat_sft"\n'
    base, mid, sft = training_costs(recipe("depth = 4\nnum_iterations = 50", more=more))
    assert mid.parameters == sft.parameters == base.parameters and base.steps == 50
    assert mid.tokens == 100 * 524_288 and sft.steps is None and sft.flops is None


@pytest.mark.parametrize("settings", ["depth = 3\nwidth = 100\nhead_dim = 33", "depth = 4\ntarget_flops = 5"])
def test_settings_that_make_no_training_are_refused(settings: str) -> None:
    with pytest.raises(ConfigError, match="base_train"):
        training_costs(recipe(settings))


def test_nothing_heavy_is_imported() -> None:
    code = "import sys, engine.estimate; assert not {'torch', 'numpy', 'pyarrow'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
