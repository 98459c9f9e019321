"""Proposals with heavier tails than the guide, as guides: importance weights need cover more than fit."""

import math
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from pyro import poutine
from pyro.distributions.transforms import AffineTransform
from pyro.poutine.indep_messenger import IndepMessenger
from pyro.poutine.messenger import Messenger, block_messengers
from torch import Tensor

from pyro_vae.evidence.latents import is_real, latent_sites, prior
from pyro_vae.program import Program, log_prob, sample_sites


def widened(guide: Program, factor: float) -> Program:
    r"""Widen every continuous site of a guide about its mean.

    .. math:: z' = \mathrm{E}[z] + c\,(z - \mathrm{E}[z]), \quad z \sim q

    Where q is a transformed distribution (log-normal, a flow), this is done before the transformation.

    Args:
        guide: A guide whose continuous sites, before any transformation, are unbounded and know their mean.
        factor: c, above 0; a standard deviation grows by it, a variance by its square.

    Returns:
        A guide over the same sites.

    Raises:
        ValueError: If the factor is not positive. When run: if a site has no mean, or is bounded.

    Reference:
        Owen (2013), Monte Carlo theory, methods and examples, section 9.2: heavier tails than the target's.

    Example:
        >>> from pyro_vae.evidence.exact import LinearGaussian
        >>> exact = LinearGaussian(torch.ones(3, 1), scale=torch.ones(3))
        >>> x = torch.zeros(1, 3)
        >>> torch.manual_seed(0).initial_seed()
        0
        >>> exact.guide(x), widened(exact.guide, 2.0)(x) / 2
        (tensor([[0.7...]]), tensor([[-0.1...]]))
    """
    if not factor > 0:
        raise ValueError(f"factor must be positive, got {factor}")

    def proposal(*x: Tensor) -> Any:
        with _Widen(factor):
            return guide(*x)

    return proposal


class _Widen(Messenger):
    def __init__(self, factor: float):
        super().__init__()
        self.factor = factor

    def _pyro_sample(self, msg: Any) -> None:
        fn = msg["fn"]
        if msg["is_observed"] or type(fn).__name__ == "_Subsample" or fn.support.is_discrete:
            return
        msg["fn"] = _widen(fn, self.factor, msg["name"])


def _widen(fn: Any, factor: float, name: str) -> Any:
    """Stretch a distribution about its mean; of a transformed one, the distribution that it starts from."""
    if isinstance(fn, torch.distributions.TransformedDistribution):
        return dist.TransformedDistribution(_widen(fn.base_dist, factor, name), fn.transforms)
    if isinstance(fn, torch.distributions.Independent):
        return dist.Independent(_widen(fn.base_dist, factor, name), fn.reinterpreted_batch_ndims)
    try:
        mean = fn.mean
    except NotImplementedError:
        mean = None
    if mean is None or not is_real(fn.support):
        raise ValueError(
            f"guide site '{name}' has {'no known mean' if mean is None else f'support {fn.support}'}, "
            "so it cannot be widened: use defensive or refined"
        )
    affine = AffineTransform((1 - factor) * mean, factor, event_dim=len(fn.event_shape))
    return dist.TransformedDistribution(fn, [affine])


def defensive(model: Program, guide: Program, fraction: float = 0.1) -> Program:
    r"""Mix a guide with the model's prior, so that no weight can exceed the likelihood over the fraction.

    .. math:: q'(z|x) = (1 - a)\,q(z|x) + a\,p(z) \quad\Rightarrow\quad p(x, z) / q'(z|x) \le p(x|z) / a

    All sites of a pair come from one of the two, and the density is that of the mixture.

    Args:
        model: The model whose prior it is.
        guide: A guide that can be scored at any z: not itself defensive.
        fraction: a, between 0 and 1.

    Returns:
        A guide over the same sites.

    Raises:
        ValueError: If the fraction is not between 0 and 1. When run: if the guide has auxiliary sites.

    Reference:
        Hesterberg (1995), Weighted Average Importance Sampling and Defensive Mixture Distributions, section 3.

    Example:
        >>> from pyro_vae.evidence.exact import LinearGaussian
        >>> from pyro_vae.evidence.importance import log_weights
        >>> exact = LinearGaussian(torch.ones(3, 1), scale=torch.ones(3))
        >>> proposal = defensive(exact.model, exact.guide, 0.2)
        >>> x, log_evidence = torch.zeros(1, 3), exact.log_evidence(torch.zeros(1, 3))
        >>> (log_weights(exact.model, proposal, x, num_samples=1000) - log_evidence).max() < -math.log(0.8)
        tensor(True)
    """
    if not 0 < fraction < 1:
        raise ValueError(f"fraction must be between 0 and 1, got {fraction}")
    base = prior(model)

    def proposal(*x: Tensor) -> None:
        # The two programs see the plates around them, but neither is seen by who runs the mixture.
        with block_messengers(lambda m: not isinstance(m, IndepMessenger)):
            of_guide, of_prior = poutine.trace(guide).get_trace(*x), poutine.trace(base).get_trace(*x)
            for name, site in sample_sites(of_guide):
                if site["infer"].get("is_auxiliary"):
                    raise ValueError(f"guide site '{name}' is auxiliary, so the guide cannot be scored at any z")
            event_dims = {name: len(site["fn"].event_shape) for name, site in latent_sites(model, x).items()}
            from_prior = torch.rand_like(_log_prob(of_guide)) < fraction
            values: dict[str, Tensor] = {}
            for name, event_dim in event_dims.items():
                mask = from_prior.reshape(from_prior.shape + (1,) * event_dim)
                drawn: list[Any] = [t.nodes[name]["value"] for t in (of_prior, of_guide)]
                values[name] = torch.where(mask, drawn[0], drawn[1])
            log_q, log_p = (
                _log_prob(poutine.trace(poutine.condition(program, data=values)).get_trace(*x))
                for program in (guide, base)
            )
            log_density = torch.logaddexp(log_q + math.log1p(-fraction), log_p + math.log(fraction))
        with pyro.plate("data", len(x[0]), dim=-1):
            for name, value in values.items():
                pyro.sample(name, dist.Delta(value, log_density, event_dim=event_dims[name]))
                log_density = torch.zeros_like(log_density)  # the first site carries all of it

    return proposal


def _log_prob(trace: poutine.Trace) -> Tensor:
    return log_prob(poutine.util.prune_subsample_sites(trace))
