"""Whether an objective has the closed forms that it asks for."""

from collections.abc import Callable
from typing import Any

import torch
from pyro import poutine
from pyro.infer import ELBO, TraceMeanField_ELBO
from torch.distributions import kl_divergence

from pyro_vae.objectives.per_datum import family, latents_of
from pyro_vae.program import Data, own_random_state, take, trace


def require_closed_form(name: str, q: Any, p: Any) -> None:
    """Refuse a pair of distributions whose KL divergence torch has no closed form for.

    Raises:
        ValueError: Naming the latent site and both distributions.
    """
    try:
        kl_divergence(q, p)
    except NotImplementedError:
        raise ValueError(
            f"the KL of site {name!r} has no closed form: KL[{family(q)} || {family(p)}]; "
            "use Trace_ELBO, which estimates it from samples"
        ) from None


def check_closed_forms(objective: ELBO, model: Callable, guide: Callable, x: Data) -> None:
    """Refuse an objective that asks for a closed form where there is none, on a few data.

    Pyro's ``TraceMeanField_ELBO`` would fall back to sampling without a word.

    Raises:
        ValueError: Naming the latent site and both distributions.
    """
    if not (isinstance(objective, TraceMeanField_ELBO) or getattr(objective, "analytic", False)):
        return
    few = take(x, slice(0, 2))
    with torch.no_grad(), own_random_state(x), poutine.block():
        drawn = trace(guide, few, 1)
        joint = trace(model, few, 1, latents_of(drawn))
    for name in latents_of(drawn):
        require_closed_form(name, drawn.nodes[name]["fn"], joint.nodes[name]["fn"])
