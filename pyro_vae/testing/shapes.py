"""Shapes, and what a likelihood does with data."""

import copy
import math
from typing import Any

import torch

from pyro_vae.testing.case import Case
from pyro_vae.testing.saying import expect, expect_close, saying


def check_shapes(name: str, p: Any, batch: tuple[int, ...], event: tuple[int, ...], given: str) -> None:
    came = f"{tuple(p.batch_shape)} and {tuple(p.event_shape)}"
    expect(
        (p.batch_shape, p.event_shape) == (batch, event),
        name,
        f"batch shape {batch} and event shape {event}{given}",
        came,
    )


def check_prior_shapes(case: Case, lead: tuple[int, ...]) -> None:
    name, z_dim = case.name, case.z_dim
    with saying(name, f"with samples of shape {(*lead, z_dim)}"):
        p = case.vae.prior()
        check_shapes(name, p, (), (z_dim,), "")
        came = p.log_prob(p.sample(torch.Size(lead))).shape
        expect(came == lead, name, f"log p(z) of shape {lead} for {lead} draws", tuple(came))
    with saying(name, f"expanded to the batch shape {lead}, as a plate does"):
        expanded = p.expand(lead)
        z = expanded.sample(torch.Size([5]))
        expect(z.shape == (5, *lead, z_dim), name, f"draws of shape {(5, *lead, z_dim)}", tuple(z.shape))
        distinct, number = len(z.flatten(0, -2).unique(dim=0)), 5 * math.prod(lead)
        expect(distinct == number, name, f"{number} independent draws when expanded to {lead}", f"{distinct} distinct")
        expect_close(expanded.log_prob(z.clone()), p.log_prob(z), name, "the same log p(z) when expanded")


def check_encoder_shapes(case: Case, lead: tuple[int, ...]) -> None:
    name, shape = case.name, (*lead, case.x_dim)
    x = torch.randn(shape, dtype=torch.float64)
    with saying(name, f"with x of shape {shape}"):
        q = case.vae.encoder(x)
        check_shapes(name, q, lead, (case.z_dim,), f" for x of shape {shape}")
        expect(q.has_rsample, name, "a distribution that can be reparameterised (rsample)", type(q).__name__)
        z = q.rsample(torch.Size([5]))
        expect(z.shape == (5, *lead, case.z_dim), name, f"draws of shape {(5, *lead, case.z_dim)}", tuple(z.shape))
        rows = x.reshape(-1, case.x_dim)
        alone = [
            case.vae.encoder(row).log_prob(draw)
            for draws in z
            for row, draw in zip(rows, draws.reshape(-1, case.z_dim), strict=True)
        ]
        what = f"the same log q(z|x) of each datum among others, {shape}, and alone"
        expect_close(q.log_prob(z), torch.stack(alone).view(5, *lead), name, what)
    with saying(name, f"expanded to the batch shape {(4, *lead)}"):
        expanded = q.expand((4, *lead)).log_prob(z[:4].clone())
        expect_close(expanded, q.log_prob(z)[:4], name, "the same log q(z|x) when expanded")


def check_likelihood_shapes(case: Case, lead: tuple[int, ...]) -> None:
    name, likelihood, x_dim = case.name, case.vae.likelihood, case.x_dim
    raw = torch.randn(*lead, x_dim, likelihood.params_per_element, dtype=torch.float64)
    given = f"raw outputs of shape {tuple(raw.shape)}"
    with saying(name, f"with {given}"):
        p = likelihood(raw)
        check_shapes(name, p, lead, (x_dim,), f" for {given}")
        expect(p.mean.shape == (*lead, x_dim), name, f"a mean of shape {(*lead, x_dim)}", tuple(p.mean.shape))
        x = p.sample(torch.Size([5]))
        expect(x.shape == (5, *lead, x_dim), name, f"draws of shape {(5, *lead, x_dim)}", tuple(x.shape))
        rows = raw.view(-1, x_dim, likelihood.params_per_element)
        alone = [
            likelihood(row).log_prob(draw)
            for draws in x
            for row, draw in zip(rows, draws.reshape(-1, x_dim), strict=True)
        ]
        what = f"the same log p(x|z) of each datum among others, {given}, and alone"
        expect_close(p.log_prob(x), torch.stack(alone).view(5, *lead), name, what)
    with saying(name, "with its own draws as data (its support and accepts say what data it takes)"):
        likelihood.check(x.reshape(-1, x_dim))


@torch.no_grad()
def check_data(case: Case) -> None:
    """Check what a likelihood does with data: blanks, refusals and initial values."""
    name, likelihood = case.name, copy.deepcopy(case.vae.likelihood)
    p = likelihood(0.5 * torch.randn(20, case.x_dim, likelihood.params_per_element, dtype=torch.float64))
    x = p.sample()
    blank = torch.arange(x.numel()).view(x.shape) % 3 == 0
    with_blanks = x.masked_fill(blank, math.nan)
    try:
        likelihood.check(with_blanks)
    except ValueError:
        pass
    else:
        expect(False, name, "a ValueError of its check for data with NaN", "none")
    with saying(name, "with data whose blanks its own fill filled"):
        likelihood.check(likelihood.fill(with_blanks))
    try:
        observed, nothing = (likelihood.observed_part(p, torch.full_like(blank, seen)) for seen in (True, False))
    except ValueError:  # as it says itself
        pass
    else:
        expect_close(observed.log_prob(x), p.log_prob(x), name, "the whole log p(x|z) where everything is observed")
        zero = torch.zeros(len(x), dtype=torch.float64)
        expect_close(nothing.log_prob(x), zero, name, "no log p(x|z) where nothing is observed")
    with saying(name, "when it initializes itself from data"):
        likelihood.initialize(x)
        raw = likelihood.initial_raw(x)
    if raw is not None:
        shape = (case.x_dim, likelihood.params_per_element)
        expect(raw.shape == shape and raw.isfinite().all(), name, f"finite initial_raw of shape {shape}", raw)
