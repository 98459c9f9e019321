"""Variations of data: other data that could have come from the same latent causes."""

from typing import Any

import torch
from pyro import poutine
from pyro.poutine.messenger import Messenger
from torch import Tensor

from pyro_vae.distributions.location import middle
from pyro_vae.evidence.checks import check_count
from pyro_vae.evidence.importance import default_chunk_size
from pyro_vae.inference.generate import check_temperature, tempered
from pyro_vae.program import Data, Program, as_program, draw, num_data, quiet, reseed, sample_sites, take, trace


def augment(
    model: Any,
    guide: Any,
    x: Data | None = None,
    *,
    times: int = 5,
    temperature: float = 1.0,
    mean: bool = False,
    seed: int | None = None,
) -> Tensor:
    r"""Make variations of each datum: decode other draws of its latents.

    .. math:: z_{kb} \sim q_T(z | x_b), \quad x_{kb} \sim p(x | z_{kb})

    with the temperature T of :func:`pyro_vae.inference.generate.tempered`. Blanks (NaN) that the model takes are
    filled in the variations.

    Args:
        model: A Pyro model of ``x`` with one observed site, or a :class:`pyro_vae.VAE` followed by ``x`` alone.
        guide: Its guide, or any proposal over the same sites.
        x: Data, (N, ...), or a tuple of tensors with a row for each datum, passed as ``model(*x)``.
        times: K, variations of each datum.
        temperature: T, above 0: with 1, z is a draw from q(z|x); with less, closer to its middle; with more, further.
        mean: Return the means E[x|z] rather than draws of x; of categories the most probable ones.
        seed: Of the noise; by default it follows torch's global generator.

    Returns:
        Variations, (K, N, ...): those of datum b are ``[:, b]``.

    Raises:
        ValueError: If ``times`` or ``temperature`` is out of range, the guide can't be tempered, or not exactly one
            site is observed.

    Example:
        >>> from pyro_vae.evidence import LinearGaussian
        >>> exact = LinearGaussian(torch.ones(3, 1), scale=torch.full((3,), 0.1))
        >>> augment(exact.model, exact.guide, torch.tensor([[5.0] * 3]), times=2, seed=0).round()
        tensor([[[5., 5., 5.]],
        <BLANKLINE>
                [[5., 5., 5.]]])
    """
    model, guide, x = as_program(model, guide, x)
    check_count(times=times)
    check_temperature(temperature)
    proposal = _Tempered(temperature)(guide)
    with quiet(model, x, seed, guide) as seeds:
        rows = max(1, default_chunk_size(model, x) // times)
        columns = []
        for start in range(0, num_data(x), rows):
            reseed(seeds)
            columns.append(_variations(model, proposal, take(x, slice(start, start + rows)), times, mean))
        return torch.cat(columns, dim=1)


class _Tempered(Messenger):
    """Tempers each continuous latent site."""

    def __init__(self, temperature: float):
        super().__init__()
        self.temperature = temperature

    def _pyro_sample(self, msg: Any) -> None:
        fn = msg["fn"]
        if not (msg["is_observed"] or type(fn).__name__ == "_Subsample" or fn.support.is_discrete):
            msg["fn"] = tempered(fn, self.temperature)


def _variations(model: Program, proposal: Program, x: Data, times: int, mean: bool) -> Tensor:
    values, _ = draw(proposal, x, times)
    sites = sample_sites(trace(model, x, times, values))
    observed = [name for name, site in sites if site["is_observed"] and name not in values]
    if len(observed) != 1:
        raise ValueError(f"the model must observe exactly one site, to be varied, but it observes {observed or 'none'}")
    # The latents stay conditioned on, and what was observed is drawn anew.
    site: Any = trace(poutine.uncondition(model), x, times, values).nodes[observed[0]]
    return middle(site["fn"]) if mean else site["value"]
