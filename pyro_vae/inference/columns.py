"""Which columns make a datum unusual: the density of each of them given all others."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pyro_vae.data.arrays import ShowsShapes
from pyro_vae.data.tables.column import UNORDERED
from pyro_vae.inference.blanks import as_tensor_program
from pyro_vae.inference.impute import impute
from pyro_vae.vae import VAE


@dataclass(frozen=True, repr=False)
class ColumnScores(ShowsShapes):
    r"""How N data fit their D columns, each given the others. NaN where a value is blank, or nothing can be said.

    Attributes:
        log_prob: :math:`\log p(x_d | x_{-d})`, (N, D), nats; in the unit of the column, of a table in its own.
        se: Its Monte Carlo standard error, (N, D).
        mean: :math:`\mathrm{E}[x_d | x_{-d}]`, (N, D); of categories the most frequent one.
        sd: The standard deviation of :math:`x_d` given the others, (N, D); NaN of categories.
        surprise: :math:`-\log [\sigma_d\, p(x_d | x_{-d})]`, (N, D), nats, with the standard deviation
            :math:`\sigma_d` in the same unit, or the step of the grid that the column lies on if that is more, and 1
            of categories: what no unit changes. 0.9 at the mean of a normal density, 5.4 three deviations off.
        reliable: Whether k-hat is below its threshold with the column and without it, (N, D).
    """

    log_prob: Tensor
    se: Tensor
    mean: Tensor
    sd: Tensor
    surprise: Tensor
    reliable: Tensor


def score_columns(
    model: Any,
    guide: Any,
    x: Tensor | None = None,
    *,
    num_samples: int = 500,
    num_starts: int = 1,
    steps: int = 100,
    seed: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> ColumnScores:
    r"""Estimate how probable each value of a datum is given the others.

    .. math:: \log p(x_d | x_{-d}) = \log P(x) - \log P(x_{-d})

    Each by importance weights :math:`\frac1K \sum_k p(\cdot, z_k) / q(z_k)` from a proposal that is fitted to these
    very values (:func:`pyro_vae.inference.blanks.fitted`), since the encoder's z are drawn to a value that is far out.
    Both are too low in expectation, by about half their squared standard errors, and the difference is no bound.

    Args:
        model: A :class:`pyro_vae.VAE`, followed by ``x`` alone; or as for :func:`pyro_vae.inference.impute`.
        guide: Its guide.
        x: Data, (N, D), of which D + 1 times as many are fitted to.
        num_samples: K weights for each datum, and for each without one of its columns.
        num_starts: As for :func:`pyro_vae.inference.impute`.
        steps: As for :func:`pyro_vae.inference.impute`.
        seed: Of the noise; by default it follows torch's global generator.
        progress: Called with the number of fits done, and of all.

    Returns:
        The estimates, with what the others let expect of each value.

    Raises:
        ValueError: As :func:`pyro_vae.inference.impute`.

    Reference:
        Mattei & Frellsen (2019), MIWAE: Deep Generative Modelling and Imputation of Incomplete Data Sets, equation 6,
        for log P(x_observed).

    Example:
        >>> from pyro_vae import build
        >>> vae = build((3,), likelihood="Gaussian", pixels="raw", latent_dim=1)
        >>> score_columns(vae, torch.tensor([[0.1, 0.2, 50.0]]), num_samples=50, steps=20, seed=0).surprise.argmax(1)
        tensor([2])
    """
    table = model.config.table if isinstance(model, VAE) else None
    model, guide, x = as_tensor_program(model, guide, x)
    rows, columns = (~x.isnan()).nonzero().T
    without = x[rows].scatter(1, columns[:, None], torch.nan)
    how: dict[str, Any] = {"num_samples": num_samples, "num_starts": num_starts, "steps": steps, "seed": seed}
    filled = impute(model, guide, torch.cat([x, without]), **how, progress=progress)
    evidence = filled.evidence
    assert evidence is not None

    def as_table(values: Tensor) -> Tensor:
        return torch.full_like(x, torch.nan, dtype=values.dtype).index_put((rows, columns), values)

    num, each = len(x), torch.arange(len(rows), device=x.device)
    log_prob = evidence.log_evidence[rows] - evidence.log_evidence[num:]
    se = (evidence.se[rows].square() + evidence.se[num:].square()).sqrt()
    mean, sd = (values[num:][each, columns] for values in (filled.mean, filled.sd))
    if table is None:
        drawn = as_table(filled.completions[0, num:][each, columns])
        whole = ((drawn == drawn.round()) | drawn.isnan()).all(0) & ((x == x.round()) | x.isnan()).all(0)
        unit, step = torch.ones_like(x[0]), whole.to(x)
    else:
        grids = [(c.scale, 1.0 if c.kind in UNORDERED else c.step or 0.0) for c in table.modelled]
        unit, step = torch.tensor(grids, dtype=torch.float64, device=x.device).T
    least = step.clamp(min=torch.finfo(sd.dtype).tiny)[columns]
    scale = torch.maximum(sd.nan_to_num(0) * unit[columns], least)
    reliable = as_table((evidence.reliable[rows] & evidence.reliable[num:]).double()) == 1
    return ColumnScores(
        as_table(log_prob), as_table(se), as_table(mean), as_table(sd), as_table(-log_prob - scale.log()), reliable
    )
