"""What Pyro's ELBO classes lack: importance-weighted bounds with low-variance gradients, KL weights, free bits.

The classes plug into ``SVI(model, guide, optim, loss=...)`` for any Pyro program whose sample sites are all in one
data plate and can be reparameterised.
"""

import math
from abc import abstractmethod
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, ClassVar, Literal

import pyro
import torch
from pyro import poutine
from pyro.distributions import Independent
from pyro.infer import ELBO, TraceMeanField_ELBO
from pyro.infer.enum import get_importance_trace
from torch import Tensor
from torch.distributions import kl_divergence

from pyro_vae.program import Data, arguments, log_prob, num_data, sample_sites, take, trace


class PerDatumELBO(ELBO):
    """A bound on each datum's log-evidence, as a loss: minus its sum over the batch."""

    # Methods that give the numbers in it that change from step to step, for CompiledELBO to ask each time.
    scheduled: ClassVar[tuple[str, ...]] = ()

    def advance(self) -> None:
        """Go on to the next step."""

    @abstractmethod
    def bounds(self, model: Callable, guide: Callable, x: Data) -> Tensor:
        """Return the bound on log P(x) for each datum, (B,), in nats, with the gradient that training follows."""

    def _get_trace(self, model: Callable, guide: Callable, args: tuple, kwargs: dict) -> tuple:
        """Return the traces of model and guide, as Pyro asks of an ELBO."""
        return get_importance_trace("flat", self.max_plate_nesting, model, guide, args, kwargs)

    def differentiable_loss(self, model: Callable, guide: Callable, *x: Tensor) -> Tensor:
        """Return minus the sum of the bounds, in nats."""
        return -self.bounds(model, guide, x if len(x) > 1 else x[0]).sum()

    @torch.no_grad()
    def loss(self, model: Callable, guide: Callable, *x: Tensor) -> float:
        """Return minus the sum of the bounds, in nats, as a number."""
        return self.differentiable_loss(model, guide, *x).item()

    def loss_and_grads(self, model: Callable, guide: Callable, *x: Tensor) -> float:
        """Compute the loss and add its gradient to that of each parameter."""
        self.advance()
        loss = self.differentiable_loss(model, guide, *x)
        if loss.requires_grad:
            loss.backward()
        return loss.item()


class ImportanceWeightedELBO(PerDatumELBO):
    r"""The importance-weighted bound of each datum, with a choice of gradient estimators.

    .. math:: \log \frac1K \sum_k w_k \le \log p(x) \text{ in expectation}, \quad
              w_k = \frac{p(x, z_k)}{q(z_k|x)}, \quad z_k \sim q(z|x)

    With :math:`\tilde w_k = w_k / \sum_j w_j`, the gradient with respect to the guide's parameters is

    - "plain": :math:`\sum_k \tilde w_k \nabla \log w_k`. With growing K its signal shrinks faster than its noise.
    - "stl", sticking the landing: without the part of zero mean,
      :math:`\sum_k \tilde w_k \frac{\partial \log w_k}{\partial z_k} \nabla z_k`. It vanishes at the exact posterior;
      for K > 1 it is biased.
    - "dreg", doubly reparameterised: :math:`\sum_k \tilde w_k^2 \frac{\partial \log w_k}{\partial z_k} \nabla z_k`.
      Unbiased, and its signal-to-noise ratio grows with K.

    The model's parameters always follow :math:`\sum_k \tilde w_k \nabla \log p(x, z_k)`.

    Args:
        num_particles: Samples of z for each datum, K. With one, the bound is the ELBO.
        gradient: How to estimate the gradient with respect to the guide's parameters.

    Raises:
        ValueError: From its methods, for a latent site that can't be reparameterised, and for any site
            outside of the data plate or with a scale.

    Reference:
        Burda et al. (2016), Importance Weighted Autoencoders, equations 8 and 14; Roeder et al. (2017), Sticking the
        Landing; Tucker et al. (2019), Doubly Reparameterized Gradient Estimators, equation 8; Rainforth et al. (2018),
        Tighter Variational Bounds are Not Necessarily Better.

    Example:
        >>> from pyro_vae import build
        >>> vae, x = build((1, 4, 4)), torch.ones(3, 16)
        >>> ImportanceWeightedELBO(num_particles=8, gradient="dreg").bounds(vae.model, vae.guide, x).shape
        torch.Size([3])
    """

    def __init__(self, num_particles: int = 8, gradient: Literal["plain", "stl", "dreg"] = "dreg"):
        if num_particles < 1:
            raise ValueError(f"num_particles: expected at least 1, got {num_particles}")
        if gradient not in ("plain", "stl", "dreg"):
            raise ValueError(f'gradient: expected "plain", "stl" or "dreg", got {gradient!r}')
        super().__init__(num_particles=num_particles, max_plate_nesting=1, vectorize_particles=True)
        self.gradient = gradient

    def bounds(self, model: Callable, guide: Callable, x: Data) -> Tensor:
        """Return log-mean-exp of each datum's log-weights, (B,), in nats."""
        drawn = trace(guide, x, self.num_particles)
        z = _latents(drawn)
        if self.gradient == "plain" or not torch.is_grad_enabled():
            log_w = log_prob(_joint(model, x, self.num_particles, z)) - log_prob(drawn)  # (K, B)
            return log_w.logsumexp(0) - math.log(self.num_particles)

        # d log w / dz is taken apart: through the model by autograd as usual, through log q with the guide's
        # parameters held fixed. Both arrive at `gated`, and go on from there to the guide's parameters.
        gated = {name: value.clone() for name, value in z.items()}
        log_p = log_prob(_joint(model, x, self.num_particles, gated))  # (K, B)
        leaves = {name: value.detach().requires_grad_() for name, value in z.items()}
        log_q = log_prob(_at(drawn, guide, x, leaves))  # (K, B)
        weights = (log_p - log_q).detach().softmax(0)
        surrogate = (weights * log_p).sum(0)
        for value, dq in zip(
            gated.values(), torch.autograd.grad((weights * log_q).sum(), [*leaves.values()]), strict=True
        ):
            surrogate = surrogate - (dq * value).reshape(*weights.shape, -1).sum((0, -1))
            if self.gradient == "dreg" and value.requires_grad:
                value.register_hook(
                    lambda gradient: gradient * weights.reshape(weights.shape + (1,) * (gradient.dim() - 2))
                )
        bound = (log_p - log_q).detach().logsumexp(0) - math.log(self.num_particles)
        return bound + surrogate - surrogate.detach()


def _at(drawn: poutine.Trace, guide: Callable, x: Data, leaves: dict[str, Tensor]) -> poutine.Trace:
    """Return the guide's trace with its draws replaced by leaves of the graph."""
    if len(leaves) > 1:  # the distribution of one draw may depend on another
        return trace(guide, x, len(next(iter(leaves.values()))), leaves)
    copied = drawn.copy()
    for name, leaf in leaves.items():
        copied.nodes[name] = drawn.nodes[name].copy()
        copied.nodes[name]["value"] = leaf
    return copied


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
        z = _latents(drawn)
        joint = _joint(model, x, self.num_particles, z)
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


def require_closed_form(name: str, q: Any, p: Any) -> None:
    """Refuse a pair of distributions whose KL divergence torch has no closed form for.

    Raises:
        ValueError: Naming the latent site and both distributions.
    """
    try:
        kl_divergence(q, p)
    except NotImplementedError:
        raise ValueError(
            f"the KL of site {name!r} has no closed form: KL[{_family(q)} || {_family(p)}]; "
            "use Trace_ELBO, which estimates it from samples"
        ) from None


def check_objective(objective: ELBO, model: Callable, guide: Callable, x: Data) -> None:
    """Refuse an objective that asks for a closed form where there is none, on a few data.

    Pyro's ``TraceMeanField_ELBO`` would fall back to sampling without a word.

    Raises:
        ValueError: Naming the latent site and both distributions.
    """
    if not (isinstance(objective, TraceMeanField_ELBO) or getattr(objective, "analytic", False)):
        return
    few = take(x, slice(0, 2))
    with torch.no_grad(), _own_random_state(x), poutine.block():
        drawn = trace(guide, few, 1)
        joint = trace(model, few, 1, _latents(drawn))
    for name in _latents(drawn):
        require_closed_form(name, drawn.nodes[name]["fn"], joint.nodes[name]["fn"])


def _latents(drawn: poutine.Trace) -> dict[str, Tensor]:
    """Return the guide's draws, all of them reparameterised."""
    for name, site in sample_sites(_per_datum(drawn)):
        if not site["fn"].has_rsample:
            raise ValueError(
                f"latent site {name!r}, {_family(site['fn'])}, can't be reparameterised; "
                "use Trace_ELBO or TraceEnum_ELBO"
            )
    return {name: site["value"] for name, site in sample_sites(drawn)}


def _joint(model: Callable, x: Data, num_samples: int, z: dict[str, Tensor]) -> poutine.Trace:
    """Run the model at the guide's draws, which have to be all of its latent sites."""
    joint = _per_datum(trace(model, x, num_samples, z))
    latent = {name for name, site in sample_sites(joint) if name in z or not site["is_observed"]}
    if latent != z.keys():
        raise ValueError(f"the model has the latent sites {sorted(latent)}, but the guide has {sorted(z)}")
    return joint


def _per_datum(ran: poutine.Trace) -> poutine.Trace:
    """Return the trace, all of whose sites are in the data plate and count once."""
    for name, site in sample_sites(ran):
        if site["scale"] != 1.0:
            raise ValueError(f"site {name!r} has the scale {site['scale']}; this objective takes none")
        if len(site["cond_indep_stack"]) < 2:
            raise ValueError(f"site {name!r} is outside of the data plate, where bounds can't be per datum")
    return ran


def _family(distribution: Any) -> str:
    while hasattr(distribution, "base_dist") and type(distribution).__name__ in ("Independent", "ExpandedDistribution"):
        distribution = distribution.base_dist
    return type(distribution).__name__


@torch.no_grad()
def elbo_terms(
    model: Callable, guide: Callable, x: Data, *, batch_size: int = 1000, seed: int = 0
) -> tuple[Tensor, Tensor]:
    r"""Estimate the two terms of each datum's ELBO from one posterior sample.

    .. math:: \mathrm{ELBO} = E_q[\log p(x|z)] - E_q[\log q(z|x) - \log p(z)]

    Args:
        model: A Pyro model with one data plate and observed sites inside of it.
        guide: Its guide.
        x: Data, (N, D), or a tuple of tensors with a row for each datum, passed as ``model(*x)``.
        batch_size: How many data at once; bounds the memory.
        seed: Of the posterior samples. The global random state is left as it was.

    Returns:
        The reconstruction term and the KL term, (N,) each, in nats. Both are unbiased.

    Reference:
        Kingma & Welling (2014), equation 3.
    """
    terms = []
    with _own_random_state(x), pyro.validation_enabled(False):
        torch.manual_seed(seed)
        for start in range(0, num_data(x), batch_size):
            batch = take(x, slice(start, start + batch_size))
            drawn = trace(guide, batch, 1)
            z = {name: site["value"] for name, site in sample_sites(drawn)}
            joint = trace(model, batch, 1, z)
            observed = [name for name, _ in sample_sites(joint) if name not in z]
            terms.append((log_prob(joint, observed)[0], (log_prob(drawn) - log_prob(joint, z))[0]))
    reconstruction, kl = zip(*terms, strict=True)
    return torch.cat(reconstruction), torch.cat(kl)


def _own_random_state(x: Data) -> AbstractContextManager:
    """Leave the global random state as it was."""
    device = arguments(x)[0].device
    return torch.random.fork_rng([device] if device.type == "cuda" else [])
