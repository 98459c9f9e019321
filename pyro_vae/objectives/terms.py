"""The two terms of the evidence lower bound."""

from collections.abc import Callable

import pyro
import torch
from torch import Tensor

from pyro_vae.machine.progress import Progress, reported
from pyro_vae.program import Data, as_data, log_prob, num_data, own_random_state, sample_sites, take, trace


@torch.no_grad()
def elbo_terms(
    model: Callable,
    guide: Callable,
    x: Data,
    *,
    batch_size: int = 1000,
    seed: int = 0,
    progress: Progress | None = None,
) -> tuple[Tensor, Tensor]:
    r"""Estimate the two terms of each datum's ELBO from one posterior sample.

    .. math:: \mathrm{ELBO} = E_q[\log p(x|z)] - E_q[\log q(z|x) - \log p(z)]

    Args:
        model: A Pyro model with one data plate and observed sites inside of it.
        guide: Its guide.
        x: Data, (N, D), or a tuple of tensors with a row for each datum, passed as ``model(*x)``.
        batch_size: How many data at once; bounds the memory.
        seed: Of the posterior samples. The global random state is left as it was.
        progress: Called with how many batches are done, and of how many.

    Returns:
        The reconstruction term and the KL term, (N,) each, in nats. Both are unbiased.

    Reference:
        Kingma & Welling (2014), equation 3.
    """
    x = as_data(model, x)
    terms = []
    with own_random_state(x), pyro.validation_enabled(False):
        torch.manual_seed(seed)
        for start in reported(range(0, num_data(x), batch_size), progress):
            batch = take(x, slice(start, start + batch_size))
            drawn = trace(guide, batch, 1)
            z = {name: site["value"] for name, site in sample_sites(drawn)}
            joint = trace(model, batch, 1, z)
            observed = [name for name, _ in sample_sites(joint) if name not in z]
            terms.append((log_prob(joint, observed)[0], (log_prob(drawn) - log_prob(joint, z))[0]))
    reconstruction, kl = zip(*terms, strict=True)
    return torch.cat(reconstruction), torch.cat(kl)
