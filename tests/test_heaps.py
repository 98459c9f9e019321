"""Columns of which some values were rounded more than others: 87, 93, 101.33."""

import math

import numpy as np
import pandas
import pytest
import torch

import pyro_vae
from pyro_vae.data.tables import Column, find_schema
from pyro_vae.likelihoods import WarpedLogistic

SHARE = 0.7


def pressures(num, ratio=100, seed=0):
    """Numbers with two decimals, of which a share was rounded to every ``ratio``-th of these."""
    rng = np.random.default_rng(seed)
    hundredths = np.round(100 * (90 + 14 * rng.normal(size=num)))
    rounded = rng.random(num) < SHARE
    return np.where(rounded, ratio * np.round(hundredths / ratio), hundredths) / 100


@pytest.mark.parametrize("ratio", [5, 10, 20, 50, 100, 500])
def test_the_coarser_grid_is_found(ratio):
    (column,) = find_schema(pandas.DataFrame({"p": pressures(2000, ratio)})).columns
    assert (column.step, column.coarse) == (0.01, ratio / 100)
    assert column.heaped == pytest.approx(SHARE, abs=4 * math.sqrt(SHARE * (1 - SHARE) / 2000) + 0.01)
    assert f"in steps of 0.01, {100 * column.heaped:.0f} % of {column.coarse:g}" in column.describe()
    assert Column.from_dict(column.as_dict()) == column


RNG = np.random.default_rng(1)
SMOOTH = {
    "normal": 90 + 14 * RNG.normal(size=2000),
    "narrow": 0.02 * RNG.normal(size=2000),
    "exponential": 3 * RNG.exponential(size=2000),
    "uniform": RNG.random(2000),
    "zeros": np.where(RNG.random(2000) < 0.4, 0, 5 * RNG.normal(size=2000)),
    "far from 0": 1_614_556_800_000_000_001 + 7 * RNG.integers(0, 2000, 2000),
    "few": 90 + 14 * RNG.normal(size=12),
}


@pytest.mark.parametrize("name", SMOOTH)
def test_none_is_found_where_there_is_none(name):
    values = SMOOTH[name] if SMOOTH[name].dtype.kind == "i" else np.round(SMOOTH[name], 2)
    (column,) = find_schema(pandas.DataFrame({"p": values}), wanted={"p": "number"}).columns
    assert (column.coarse, column.heaped) == (None, 0)


@pytest.mark.parametrize(
    "fact", [{"coarse": 0.015}, {"coarse": 0.01}, {"coarse": 1e9}, {"heaped": 0.0}, {"heaped": 1.0}]
)
def test_a_coarser_grid_that_is_none_is_refused(fact):
    facts = {"name": "p", "kind": "number", "dtype": "float64", "step": 0.01, "coarse": 1.0, "heaped": 0.5}
    Column.from_dict(facts)
    with pytest.raises(ValueError, match=r"expected a (whole multiple of a step|share from 0 to 1)"):
        Column.from_dict(facts | fact)


def fitted(ratio, offset, num=1000):
    """A column on a grid of 0.25 of which each ``ratio``-th value, from ``offset`` on, is likelier."""
    rng = np.random.default_rng(2)
    index = np.round(8 * rng.normal(size=num))
    coarse = offset + ratio * np.round((index - offset) / ratio)
    x = 0.25 * torch.from_numpy(np.where(rng.random(num) < SHARE, coarse, index)).unsqueeze(-1)
    likelihood = WarpedLogistic(steps=[0.25], heaps=[(ratio, offset, SHARE)]).double()
    likelihood.initialize(x)
    return likelihood, x


GRID = 0.25 * torch.arange(-4000, 4001, dtype=torch.float64).unsqueeze(-1)


@pytest.mark.parametrize(("ratio", "offset"), [(2, 1), (5, 0), (5, 3), (10, 7), (20, 0)])
@pytest.mark.parametrize(("loc", "scale"), [(0.0, 1.0), (1.3, 0.4), (-3.0, 0.1)])
def test_probabilities_sum_to_one_and_are_those_of_draws(ratio, offset, loc, scale):
    likelihood, x = fitted(ratio, offset)
    raw = likelihood.initial_raw(x)
    raw = torch.stack(
        [raw[..., 0] + loc, (scale - likelihood.min_scale) * torch.ones(1, dtype=torch.float64).log()], -1
    )
    raw[..., 1] = math.log(scale - likelihood.min_scale)
    p = likelihood(raw)
    probabilities = p.log_prob(GRID).exp() * 0.25
    assert probabilities.sum() == pytest.approx(1, abs=1e-6)

    torch.manual_seed(0)
    num = 40_000
    draws = p.sample((num,))
    assert likelihood.support.check(draws).all()
    counts = torch.bincount((draws[:, 0] / 0.25).round().long() + 4000, minlength=len(GRID))
    expected = num * probabilities
    frequent = expected > 20
    error = (counts - expected)[frequent] / (expected * (1 - probabilities))[frequent].sqrt()
    assert error.abs().max() < 4.5
    rare = int(counts[~frequent].sum()), float(expected[~frequent].sum())
    assert abs(rare[0] - rare[1]) < 4.5 * math.sqrt(rare[1]) + 1


def test_log_p_of_heaped_values_is_better_for_it():
    frame, other = (pandas.DataFrame({"p": pressures(2000, seed=seed)}) for seed in (0, 1))
    table = find_schema(frame)
    means = []
    for heaps in (True, False):
        vae = pyro_vae.build((1,), table=table)
        likelihood = vae.likelihood.likelihoods[0]
        if not heaps:
            likelihood = WarpedLogistic(units=likelihood.unit, steps=likelihood.step)
        x = table.encode(frame)
        likelihood.initialize(x)
        means.append(likelihood(likelihood.initial_raw(x)).log_prob(table.encode(other)).mean().item())
    # What is known of a value by how it was rounded: entropy of the two ways, and ratio^share of the width of a cell.
    assert means[0] - means[1] > 1


def test_rows_that_are_drawn_are_rounded_as_the_table_is():
    frame = pandas.DataFrame({"p": [f"{value:.2f}" for value in pressures(2000)]})
    vae = pyro_vae.build((1,), table=find_schema(frame), latent_dim=1)
    vae.initialize(vae.config.table.encode(frame))
    torch.manual_seed(0)
    made = vae.config.table.decode(vae.sample(2000))
    whole = [cells["p"].str.endswith(".00").mean() for cells in (frame, made)]
    assert abs(whole[0] - whole[1]) < 4 * math.sqrt(2 * SHARE * (1 - SHARE) / 2000)


@pytest.mark.parametrize("heap", [(1, 0, 0.5), (10, 10, 0.5), (10, 0, 1.0), (10, 0, 0.0)])
def test_heaps_that_are_none_are_refused(heap):
    with pytest.raises(ValueError, match="heaps must be"):
        WarpedLogistic(steps=[0.1], heaps=[heap])


@pytest.mark.parametrize("options", [{"steps": [None]}, {"steps": [0.1], "lows": [0.0]}])
def test_heaps_need_a_grid_without_bounds(options):
    with pytest.raises(ValueError, match="heaps must be"):
        WarpedLogistic(heaps=[(10, 0, 0.5)], **options)
