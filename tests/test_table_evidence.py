"""log P(X) of tables drawn from known models: rounded numbers, yes/no and categories, with blanks, by quadrature."""

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import pandas
import pytest
import torch
from scipy.special import logsumexp
from scipy.stats import logistic, norm
from torch import nn

import pyro_vae
from pyro_vae import VAE
from pyro_vae.base import Likelihood
from pyro_vae.build import make_part, of_columns
from pyro_vae.data import from_frame
from pyro_vae.data.tables import Column, Schema
from pyro_vae.encoders import DiagonalNormal
from pyro_vae.evidence import laplace, widened
from pyro_vae.likelihoods import WarpedLogistic
from pyro_vae.priors import StandardNormal

# In scales of each column, of two latent dimensions; the last two are of a utility with normal noise, for the names.
WEIGHT = np.array([[1.0, 0.3], [-0.6, 0.8], [0.5, 1.0], [1.5, -0.5], [0.7, 1.2]])
SIZES, BETWEEN = ("L", "M", "S"), (-0.5, 1.0)
WIDTH = 0.2  # of the grid
NODES = np.stack(np.meshgrid(*[np.arange(-7, 7, WIDTH)] * 2), -1).reshape(-1, 2)


@dataclass(frozen=True)
class Number:
    """Where numbers are, how wide, their noise in these scales, how many decimals they are rounded to, and a bound."""

    name: str
    loc: float
    scale: float
    noise: float
    decimals: int | None
    low: float | None = None

    @property
    def step(self) -> float | None:
        return None if self.decimals is None else 10.0**-self.decimals


NUMBERS = (
    Number("height", 170.0, 10.0, 0.5, decimals=1),
    Number("dose", 0.6, 0.5, 0.4, decimals=1, low=0.0),
    Number("income", 5e4, 2e4, 0.6, decimals=None),
)


@dataclass(frozen=True)
class Known:
    """A model under which log P(x) is a sum over a grid of z, to ten digits.

    Attributes:
        noise: Of the numbers, as scipy has it.
    """

    noise: Any = norm

    def draw(self, num, seed=0):
        """Return a table of as many rows."""
        rng = np.random.default_rng(seed)
        mean = rng.normal(size=(num, 2)) @ WEIGHT.T
        table = {}
        for d, number in enumerate(NUMBERS):
            own = number.loc + number.scale * (mean[:, d] + number.noise * self.noise.rvs(size=num, random_state=rng))
            own = own if number.decimals is None else own.round(number.decimals)
            table[number.name] = own if number.low is None else own.clip(number.low)
        table["member"] = np.where(mean[:, 3] + rng.normal(size=num) > 0, "yes", "no")
        table["size"] = np.array(SIZES)[np.searchsorted(BETWEEN, mean[:, 4] + rng.normal(size=num))]
        return pandas.DataFrame(table)

    def log_evidence(self, table):
        """Return log P of what is not blank in each row, (N,), in the table's own units."""
        mean = NODES @ WEIGHT.T
        total = norm.logpdf(NODES).sum(1) + 2 * np.log(WIDTH) + np.zeros((len(table), 1))
        for d, number in enumerate(NUMBERS):
            x = table[number.name].to_numpy()[:, None]
            total += np.where(np.isnan(x), 0, self._log_density(number, x, mean[:, d]))
        ends = np.array([-np.inf, *BETWEEN, np.inf])
        names = {"member": {"no": (-np.inf, 0), "yes": (0, np.inf)}, "size": zip(SIZES, pairwise(ends), strict=True)}
        for d, (column, cells) in enumerate(names.items(), len(NUMBERS)):
            for name, (low, high) in dict(cells).items():
                there = (table[column] == name).to_numpy()[:, None]
                total += np.where(there, log_probability(norm, low - mean[:, d], high - mean[:, d]), 0)
        return logsumexp(total, axis=1)

    def _log_density(self, number, x, mean):
        def standard(value):
            return ((value - number.loc) / number.scale - mean) / number.noise

        if number.step is None:
            return self.noise.logpdf(standard(x)) - np.log(number.scale * number.noise)
        lower, upper = x - number.step / 2, x + number.step / 2
        if number.low is not None:
            lower = np.where(x > number.low, lower, -np.inf)
        return log_probability(self.noise, standard(lower), standard(upper)) - np.log(number.step)


def log_probability(noise, a, b):
    """Return that of an interval from a to b, by the tail that it is nearer to."""
    flip = a > 0
    low, high = noise.logcdf(np.where(flip, -b, a)), noise.logcdf(np.where(flip, -a, b))
    return high + np.log(-np.expm1(low - high))


TABLE = Schema(
    (
        *(Column(n.name, "number", "float64", loc=n.loc, scale=n.scale, step=n.step, low=n.low) for n in NUMBERS),
        Column("member", "yes/no", "str", categories=("no", "yes")),
        Column("size", "category", "str", categories=SIZES),
    )
)


class Decoder(nn.Module):
    """From z to what the likelihoods of the columns take, by the equations of the known model."""

    def __init__(self, room):
        super().__init__()
        self.weight, self.room = nn.Parameter(torch.from_numpy(WEIGHT)), room

    def forward(self, z):
        mean = z @ self.weight.T
        log_scale = torch.tensor([number.noise - 0.01 for number in NUMBERS]).to(z).log()
        numbers = torch.stack([mean[..., :3], log_scale.expand(mean[..., :3].shape)], -1).flatten(-2)
        member = torch.special.log_ndtr(mean[..., 3]) - torch.special.log_ndtr(-mean[..., 3])
        size = nn.functional.pad(torch.special.ndtr(torch.tensor(BETWEEN).to(z) - mean[..., 4:]), (1, 0))
        size = nn.functional.pad(size, (0, 1), value=1.0).diff().log()
        raw = torch.cat([numbers, member[..., None], size], -1)
        return nn.functional.pad(raw, (0, len(WEIGHT) * self.room - raw.shape[-1])).unflatten(-1, (-1, self.room))


class Nowhere(nn.Module):
    """From x to the prior's location and log-scale."""

    def forward(self, x):
        return x.new_zeros(*x.shape[:-1], 4)


def by_hand():
    """The model with logistic noise, as a VAE with the likelihoods that its table asks for, on straight scales."""
    likelihood = make_part(of_columns(TABLE), Likelihood, {}).double()
    (numbers,) = (part for part in likelihood.likelihoods if isinstance(part, WarpedLogistic))
    fields = numbers.state_dict()
    fields["warp_centre"].zero_(), fields["warp_bend"].fill_(1e8)  # asinh(x / 1e8) is x / 1e8
    for d, (step, low) in enumerate(zip(numbers.step, numbers.low, strict=True)):
        at = low + step / 2 if np.isfinite(low) else 0.0
        fields["warp_knots"][d], fields["warp_levels"][d] = at, at
        fields["warp_bins"][d] = torch.tensor([at, 1, at, 1, 1, 1, 0, 0])
        if np.isfinite(low):
            fields["warp_bins"][d, 0] = torch.tensor([at, 1, at - 1, 1, 1, 1, 1, low])
    decoder = Decoder(likelihood.params_per_element)
    vae = VAE(
        prior=StandardNormal(2).double(),
        encoder=DiagonalNormal(Nowhere()),
        decoder=decoder,
        likelihood=likelihood,
        missing=True,
    )
    return vae.eval()


@pytest.mark.parametrize("blank", [0.0, 0.4])
def test_log_evidence_is_the_known_one_within_its_standard_errors(blank):
    known, vae = Known(logistic), by_hand()
    table = known.draw(60)
    table = table.mask(np.random.default_rng(1).random(table.shape) < blank)
    x = TABLE.encode(table, dtype=torch.float64)
    proposal = widened(laplace(vae.model, vae.guide, x, seed=1), 1.3)
    found = pyro_vae.log_evidence(vae.model, proposal, x, num_samples=4000, seed=0)
    errors = (found.log_evidence.numpy() - known.log_evidence(table)) / found.se.numpy()
    assert found.se.max() < 0.02
    assert abs(errors).max() < 4
    assert 0.5 < (errors**2).mean() < 1.7


def test_parts_of_tables_come_near_to_the_best_that_there_is_and_never_above():
    """The model that the table is drawn from has the highest mean log P of new rows in expectation, here -16.6 nats."""
    known = Known()
    data, new = from_frame(known.draw(2000)), known.draw(500, seed=1)
    torch.manual_seed(0)
    vae = pyro_vae.build(data.shape, table=data.table)
    pyro_vae.fit(vae, data, epochs=60, progress=False)
    found = pyro_vae.log_evidence(vae, new, num_samples=500, seed=0).log_evidence
    loss = known.log_evidence(new) - found.double().numpy()
    assert loss.mean() > -3 * loss.std() / len(loss) ** 0.5
    assert loss.mean() < 0.15  # 0.06 nats, with a standard error of 0.02


@pytest.mark.parametrize(("factor", "shift"), [(1e-9, 0.0), (1e9, 0.0), (1.0, 1e9), (1e-9, 1e-3), (1e9, 1e12)])
def test_another_unit_changes_the_density_by_its_jacobian_alone(factor, shift):
    rng = np.random.default_rng(0)
    z, noise = rng.normal(size=300), rng.normal(size=(2, 300))
    table = pandas.DataFrame({"sex": np.where(z > 0, "f", "m"), "rounded": z + noise[0], "heavy": np.exp(z + noise[1])})
    table = table.round({"rounded": 2, "heavy": 5})  # the second is finer than is taken to be a grid
    other = table.assign(**{name: table[name] * factor + shift for name in ("rounded", "heavy")})
    figures = []
    for frame in (table, other):
        data = from_frame(frame)
        torch.manual_seed(0)
        vae = pyro_vae.build(data.shape, table=data.table, latent_dim=2)
        pyro_vae.fit(vae, data, epochs=5, progress=False)
        figures.append(pyro_vae.log_evidence(vae, data.test, num_samples=50, seed=0).log_evidence)
    torch.testing.assert_close(figures[0] - 2 * np.log(factor), figures[1], atol=2e-5, rtol=0)
