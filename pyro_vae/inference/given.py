"""Rows of a table that agree with what is known of them: draws from P(row | cells, condition)."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pyro_vae.data.tables.conditions import as_row, read_conditions
from pyro_vae.evidence import Evidence
from pyro_vae.evidence.checks import check_count, check_data
from pyro_vae.evidence.importance import Sampler
from pyro_vae.inference.blanks import fitted, kept_within, plausible, with_blanks
from pyro_vae.inference.generate import CHUNK_ELEMENTS, Decoded, decode, draws
from pyro_vae.inference.impute import resample
from pyro_vae.program import quiet, reseed
from pyro_vae.vae import VAE

_ROWS = 10_000  # that are drawn at once, at most
_WEIGHTS = 10  # for each draw, so that few of them have their latents in common
_TRIES = 1_000_000, 100  # draws at most until a condition is given up: in all, or if more, for each row


@dataclass(frozen=True, repr=False)
class Conditioned(Decoded):
    """Rows of a table that were drawn under conditions.

    Attributes:
        x: The rows, (num, D), in 64 bits, so that cells that were given keep their digits.
        z: The latents that they were made from, (num, Z).
        far_out: Which cells were given, (D,), from beyond what draws from the model make plausible (see
            :func:`pyro_vae.inference.blanks.plausible`): the model knows nothing there.
        evidence: log P(given cells), (1,), with its error, ESS and k-hat; None where none was given.
        tried: How many rows were drawn.
        met: How many of them met the condition; all without one.
    """

    far_out: Tensor
    evidence: Evidence | None
    tried: int
    met: int

    @property
    def probability(self) -> tuple[float, float]:
        """The probability of the condition, given the cells, and its standard error."""
        p = self.met / self.tried
        return p, math.sqrt(p * (1 - p) / self.tried)


def sample_given(
    vae: VAE,
    num: int,
    given: Mapping[str, Any] | None = None,
    where: str = "",
    *,
    max_draws: int | None = None,
    num_samples: int = 1000,
    num_starts: int = 4,
    steps: int = 100,
    seed: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Conditioned:
    r"""Draw rows of a table of which some cells are known, or that meet a condition, or both.

    .. math:: x \sim p(x \mid x_\mathrm{given}, \mathrm{where}) \propto p(x_\mathrm{others} | x_\mathrm{given})\,
        1[\mathrm{where}(x)]

    A row of the given cells alone is a row with blanks, whose latents are drawn by importance resampling as in
    :func:`pyro_vae.inference.impute`, from ten weights a draw; without any, z ~ p(z). Of these rows those are kept that
    meet the condition.

    Args:
        vae: A VAE of a table, which knows what the columns are.
        num: How many rows.
        given: Cells by the names of their columns: texts as the table has them, or values.
        where: Comparisons with commas between them, all of which have to hold, such as ``age>=60,sex!=male``. The signs
            are =, !=, <, <=, >, >=, and ``in {a,b}`` of categories; values are written as in the table.
        max_draws: Give up when so many rows were drawn and too few met the condition. Default: a million, or a hundred
            for each row that is wanted.
        num_samples: Weights at least, of a batch of draws.
        num_starts: Gaussians that the proposal is mixed of.
        steps: Gradient steps that find the mode of each of them, and as many that fit it from there.
        seed: Of the noise; by default it follows torch's global generator.
        progress: Called with how much is done, and of how much.

    Returns:
        The rows, with the diagnostics. ``table.decode(x)`` of ``table = vae.config.table`` is a data frame of them.

    Raises:
        ValueError: If the model is none of a table, there is no such column, a value is none of it, or too few rows
            meet the condition.

    Example:
        >>> import pandas
        >>> from pyro_vae import build, data
        >>> people = data.from_frame(pandas.DataFrame({"age": range(20, 70), "sex": ["f", "m"] * 25}))
        >>> vae = build(people.shape, table=people.table, latent_dim=2)
        >>> vae.initialize(people.train)
        >>> rows = sample_given(vae, 30, {"sex": "f"}, "age>=60", steps=10, seed=0)
        >>> people.table.decode(rows.x)["sex"].unique().tolist()
        ['f']
    """
    check_count(num=num, num_samples=num_samples, num_starts=num_starts, steps=steps)
    max_draws = max(_TRIES[0], _TRIES[1] * num) if max_draws is None else max_draws
    check_count(max_draws=max_draws)
    table = vae.config.table
    if table is None:
        raise ValueError(
            "given and where speak of the columns of a table, but the model is of data without such; train it on a "
            ".csv or .parquet file, or a data frame, and without a likelihood for all columns alike"
        )
    row, conditions = as_row(given or {}, table), read_conditions(where, table)
    for condition in conditions:
        if not row[condition.at].isnan() and not condition.holds(row[None]).all():
            raise ValueError(
                f"where: {condition.text} does not hold where {condition.column.name} is as given; drop one"
            )
    x = vae.rows(row[None])
    model, row = with_blanks(vae.model), row.to(x.device)
    check_data(model, x)
    kept: list[tuple[Tensor, Tensor]] = []
    evidence, tried, met = None, 0, 0
    with quiet(model, x, seed, vae.guide) as seeds:
        within = low, high = plausible(model, torch.full_like(x, torch.nan))
        guide, sampler = kept_within(vae.guide, within), None
        if given:
            reseed(seeds)
            proposal = fitted(
                model, guide, x, num_starts=num_starts, steps=steps, seed=int(torch.randint(2**62, ())), within=within
            )
            sampler = Sampler(model, proposal, x, num_samples, None, seeds)
        rows = min(_ROWS, max(1, CHUNK_ELEMENTS // len(row)))
        while met < num and (not conditions or tried < max_draws):
            size = min(rows, max_draws - tried if conditions else num - met)
            if sampler is None:
                z = draws(vae.prior(), size, seeds)
            else:
                z, weighed = _posterior_draws(sampler, max(num_samples, _WEIGHTS * size), size)
                evidence = evidence or weighed
            made = torch.where(row.isnan(), decode(vae, z, mean=False).double(), row)
            held = torch.ones(size, dtype=torch.bool, device=row.device)
            for condition in conditions:
                held &= condition.holds(made)
            kept.append((made[held], z[held]))
            tried, met = tried + size, met + int(held.sum())
            if progress is not None:
                progress(min(max(met * max_draws, tried * num), num * max_draws), num * max_draws)
    if met < num:
        raise ValueError(_too_few(where, num, tried, met))
    made, z = (torch.cat(parts)[:num] for parts in zip(*kept, strict=True))
    return Conditioned(made, z, ((x < low) | (x > high))[0], evidence, tried, met)


def _posterior_draws(sampler: Sampler, num_samples: int, num: int) -> tuple[Tensor, Evidence]:
    """Draw latents given the cells, (num, Z)."""
    values, evidence = resample(sampler, sampler.blocks()[0], num_samples, num)
    if not evidence.log_evidence.isfinite().all():
        raise ValueError("given: the model gives these cells no density; look for a value that is far out of range")
    return values["z"][:, 0], evidence


def _too_few(where: str, num: int, tried: int, met: int) -> str:
    """Say how improbable a condition is, and what to do."""
    p, se = met / tried, math.sqrt(met) / tried
    probable = f"about {p:.2g} ± {se:.1g}" if met else f"below {3 / tried:.2g} (at 95 %)"
    more = f"raise max_draws to {math.ceil(1.5 * num / p):,}" if met else "raise max_draws"
    return (
        f"where: expected {num:,} rows, but of {tried:,} draws {met:,} met {where}, whose probability is {probable}; "
        f"loosen it, ask for fewer rows, say by given what a cell has to be equal to, or {more}"
    )
