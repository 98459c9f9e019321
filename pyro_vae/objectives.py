"""Objectives: what to maximise in training, and what it is made of."""

from collections.abc import Callable

import pyro
import torch
from pyro import poutine
from torch import Tensor


@torch.no_grad()
def elbo_terms(
    model: Callable, guide: Callable, x: Tensor, *, batch_size: int = 1000, seed: int = 0
) -> tuple[Tensor, Tensor]:
    r"""Estimate the two terms of each datum's ELBO from one posterior sample.

    .. math:: \mathrm{ELBO} = E_q[\log p(x|z)] - E_q[\log q(z|x) - \log p(z)]

    Args:
        model: A Pyro model with one data plate and observed sites inside of it.
        guide: Its guide.
        x: Data, (N, D).
        batch_size: How many data at once; bounds the memory.
        seed: Of the posterior samples. The global random state is left as it was.

    Returns:
        The reconstruction term and the KL term, (N,) each, in nats. Both are unbiased.

    Reference:
        Kingma & Welling (2014), equation 3.
    """
    reconstruction, kl = [], []
    devices = [x.device] if x.device.type == "cuda" else []
    with torch.random.fork_rng(devices), pyro.validation_enabled(False):
        torch.manual_seed(seed)
        for batch in x.split(batch_size):
            guide_trace = poutine.trace(guide).get_trace(batch)
            model_trace = poutine.trace(poutine.replay(model, guide_trace)).get_trace(batch)
            observed = _log_prob(model_trace, observed=True)
            latent = _log_prob(guide_trace) - _log_prob(model_trace)
            reconstruction.append(observed)
            kl.append(latent)
    return torch.cat(reconstruction), torch.cat(kl)


def _log_prob(trace: poutine.Trace, observed: bool = False) -> Tensor:
    """Sum the log-probabilities of a trace's latent (or observed) sites, for each datum."""
    trace.compute_log_prob(lambda name, site: site["is_observed"] == observed and not _is_plate(site))
    return sum(
        site["unscaled_log_prob"] if "unscaled_log_prob" in site else site["log_prob"]
        for site in trace.nodes.values()
        if site["type"] == "sample" and site["is_observed"] == observed and not _is_plate(site)
    )


def _is_plate(site: dict) -> bool:
    return type(site["fn"]).__name__ == "_Subsample"
