"""The evidence lower bound with a weight on its KL, and free bits."""

import math
from collections.abc import Callable
from typing import Any

import torch
from pyro.distributions import Independent
from torch import Tensor
from torch.distributions import kl_divergence

from pyro_vae.objectives.closed_form import require_closed_form
from pyro_vae.objectives.per_datum import PerDatumELBO, joint_at, latents_of
from pyro_vae.program import Data, log_prob, sample_sites, trace


class KLWeightedELBO(PerDatumELBO):
    r"""The evidence lower bound with a weight on its KL term, which may warm up, and with free bits.

    .. math:: E_q[\log p(x|z)] - \beta_t \sum_j \max(\lambda, \mathrm{KL}_j), \quad
              \beta_t = \beta \min(1, t / T)

    :math:`\mathrm{KL}_j` is the batch's mean KL of latent dimension j where prior and posterior both factorise,
    otherwise of the latent site as a whole. With another weight than 1, or with free bits, it is no bound on
    log p(x) any more, and its name in a result should say so.

    Args:
        kl_weight: :math:`\beta`, at least 0.
        warmup_epochs: Let the weight rise linearly over so many epochs (T).
        free_bits: :math:`\lambda`, in nats: below it, a KL term costs the same and is not pushed further down.
        analytic: Compute the KL in closed form instead of from samples.
        num_particles: Samples of z for each datum.
        steps_per_epoch: Steps in an epoch; left at 1, ``warmup_epochs`` counts steps.

    Attributes:
        steps: Gradients taken until now (t).

    Raises:
        ValueError: From its methods, as for :class:`ImportanceWeightedELBO`, and where ``analytic`` is asked for
            and there is no closed form.

    Reference:
        Bowman et al. (2016), Generating Sentences from a Continuous Space, section 3.1; Kingma et al. (2016),
        Improved Variational Inference with Inverse Autoregressive Flow, appendix C.8; Higgins et al. (2017), beta-VAE,
        equation 4.

    Example:
        >>> from pyro_vae import build
        >>> vae, x = build((1, 4, 4)), torch.ones(3, 16)
        >>> KLWeightedELBO(kl_weight=4.0, analytic=True).bounds(vae.model, vae.guide, x).shape
        torch.Size([3])
    """

    scheduled = ("weight",)

    def __init__(
        self,
        kl_weight: float = 1.0,
        warmup_epochs: float = 0.0,
        free_bits: float = 0.0,
        analytic: bool = False,
        num_particles: int = 1,
        steps_per_epoch: int = 1,
    ):
        for name, value in {"kl_weight": kl_weight, "warmup_epochs": warmup_epochs, "free_bits": free_bits}.items():
            if not 0 <= value < math.inf:
                raise ValueError(f"{name}: expected a number of at least 0, got {value}")
        if num_particles < 1:
            raise ValueError(f"num_particles: expected at least 1, got {num_particles}")
        super().__init__(num_particles=num_particles, max_plate_nesting=1, vectorize_particles=True)
        self.kl_weight, self.free_bits, self.analytic = kl_weight, free_bits, analytic
        self.warmup_steps = warmup_epochs * steps_per_epoch
        self.steps = 0

    def advance(self) -> None:
        """Count the step."""
        self.steps += 1

    def weight(self) -> float:
        r"""Return the weight on the KL term now, :math:`\beta_t`."""
        return self.kl_weight * min(1.0, self.steps / self.warmup_steps if self.warmup_steps else 1.0)

    def bounds(self, model: Callable, guide: Callable, x: Data) -> Tensor:
        """Return each datum's weighted bound, (B,), in nats."""
        drawn = trace(guide, x, self.num_particles)
        z = latents_of(drawn)
        joint = joint_at(model, x, self.num_particles, z)
        observed = log_prob(joint, [name for name, _ in sample_sites(joint) if name not in z])  # (K, B)
        kl = torch.cat(
            [_kl_terms(drawn.nodes[name], joint.nodes[name], self.analytic).mean(0) for name in z], dim=-1
        )  # (B, J)
        if self.free_bits:  # without, an estimate of the KL may well be negative
            kl = torch.where(kl.mean(0) > self.free_bits, kl, self.free_bits)
        return observed.mean(0) - self.weight() * kl.sum(-1)


def _kl_terms(q_site: Any, p_site: Any, analytic: bool) -> Tensor:
    """Return log q(z) - log p(z), or its expectation, for each factor that both have, (K, B, J)."""
    q, p, z = q_site["fn"], p_site["fn"], q_site["value"]
    if q_site["mask"] is not None or p_site["mask"] is not None:
        raise ValueError(f"latent site {q_site['name']!r} has a mask; KLWeightedELBO takes none, Trace_ELBO does")
    factorised = all(isinstance(d, Independent) and d.reinterpreted_batch_ndims == 1 for d in (q, p))
    if factorised:
        q, p = q.base_dist, p.base_dist
    if analytic:
        require_closed_form(q_site["name"], q, p)
    kl = kl_divergence(q, p) if analytic else q.log_prob(z) - p.log_prob(z)
    return kl if factorised else kl.unsqueeze(-1)
