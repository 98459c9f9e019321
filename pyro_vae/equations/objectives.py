"""Trace_ELBO, TraceMeanField_ELBO and the article's loss, in value and in gradient."""

import torch
from pyro.infer import Trace_ELBO, TraceMeanField_ELBO
from torch import Tensor

from pyro_vae.equations import closed_forms as derivation
from pyro_vae.equations.densities import as_normal, closed_form_kl, is_standard, log_likelihood, no_closed_form
from pyro_vae.equations.gradients import Gradients, gradient, pyro_loss
from pyro_vae.equations.rows import Row, exact, not_applicable, paired
from pyro_vae.vae import VAE


def elbo_rows(vae: VAE, x: Tensor, num: int) -> list[Row]:
    """Pyro's two objectives, with equal noise: they differ, but not on average."""
    value = "E[Trace_ELBO] = E[TraceMeanField_ELBO]"
    slope = "E[grad Trace_ELBO] = E[grad TraceMeanField_ELBO]"
    if closed_form_kl(vae, x) is None:
        return not_applicable([value, slope], no_closed_form(vae))
    parameters = list(vae.encoder.parameters())
    direction = Gradients(lambda: pyro_loss(TraceMeanField_ELBO, vae, x), parameters, num).direction()
    values, slopes = [], []
    for seed in range(num):
        losses = [pyro_loss(kind, vae, x, seed) for kind in (Trace_ELBO, TraceMeanField_ELBO)]
        values.append(torch.stack(losses).detach() / len(x))
        slopes.append(torch.stack([gradient(loss, parameters) @ direction for loss in losses]) / len(x))
    return [
        paired(value, torch.stack(values)),
        paired(slope, torch.stack(slopes), "along the analytic gradient's direction"),
    ]


def article_rows(vae: VAE, x: Tensor) -> list[Row]:
    """The article's loss against Pyro's, from the same draws, and its cross-entropy against the likelihood."""
    value = "TraceMeanField_ELBO = BCE + KLD, equal noise"
    slope = "grad TraceMeanField_ELBO = grad (BCE + KLD), equal noise"
    sampled = "Trace_ELBO = BCE + log Q - log P(z), equal noise"
    cross_entropy = "BCE = -log P(X|z)"
    torch.manual_seed(0)
    z = vae.guide(x)
    logits = bernoulli_logits(vae, z)
    if logits is None:
        reason = f"{type(vae.likelihood).__name__} is not the article's Bernoulli"
        return not_applicable([value, slope, sampled, cross_entropy], reason)
    rounding = rounding_of_probs(logits, x)
    bce = derivation.binary_cross_entropy(as_probs(logits), x)
    last = exact(cross_entropy, bce, -log_likelihood(vae, x, z), rounding=rounding.max())

    normal = as_normal(vae.encoder(x))
    if normal is None or not is_standard(vae.prior()):
        reason = f"{type(vae.encoder).__name__} and {type(vae.prior).__name__} are not the article's normals"
        return [*not_applicable([value, slope, sampled], reason), last]
    loc, scale = normal
    eps = ((z - loc) / scale).detach()
    z = derivation.reparameterize(loc, scale, eps)
    logits = bernoulli_logits(vae, z)
    assert logits is not None
    article = derivation.article_loss(as_probs(logits), x, loc, 2 * scale.log())
    log_ratio = derivation.log_normal(z, loc, scale) - derivation.log_normal(z, torch.zeros_like(z), torch.ones_like(z))
    analytic, trace = (pyro_loss(kind, vae, x, seed=0) for kind in (TraceMeanField_ELBO, Trace_ELBO))
    parameters = [*vae.encoder.parameters(), *vae.decoder.parameters()]
    by_pyro, by_hand = (gradient(loss, parameters, retain=True) for loss in (analytic, article))
    return [
        exact(value, analytic, article, rounding=rounding.sum()),
        exact(slope, by_pyro, by_hand, "all parameters"),
        exact(sampled, trace, (bce + log_ratio).sum(), rounding=rounding.sum()),
        last,
    ]


def bernoulli_logits(vae: VAE, z: Tensor) -> Tensor | None:
    """The logits of a Bernoulli likelihood at z, or None of another."""
    base = getattr(vae.likelihood(vae.decoder(z)), "base_dist", None)
    return base.logits if isinstance(base, torch.distributions.Bernoulli) else None


def as_probs(logits: Tensor) -> Tensor:
    """The article's sigmoid, kept below 1, where the gradient of log(1 - p) has no value."""
    return logits.sigmoid().clamp(max=1 - torch.finfo(logits.dtype).eps)


def rounding_of_probs(logits: Tensor, x: Tensor) -> Tensor:
    """The error of -sum (1 - x) log(1 - p), (B,), that comes of p being a rounded number."""
    return torch.finfo(logits.dtype).eps * ((1 - x) / (1 - as_probs(logits))).sum(-1).detach()
