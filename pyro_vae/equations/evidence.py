"""The derivation: from P(X) to the bound."""

from typing import Any

import pyro
import pyro.distributions as dist
import torch
from pyro import poutine
from torch import Tensor

from pyro_vae.equations import closed_forms as derivation
from pyro_vae.equations.densities import Halves, closed_form_kl, log_likelihood, quadrature_nodes, terms
from pyro_vae.equations.rows import (
    Estimate,
    Row,
    at_most,
    estimated,
    exact,
    exactly,
    log_mean_exp,
    mean,
    not_applicable,
    with_bias,
)
from pyro_vae.evidence import Evidence, GaussianProposal, log_evidence, refined
from pyro_vae.vae import VAE

MAX_ERROR = 0.3  # nats; where log P(x) is known less well, its error bar can't be trusted either
WIDER = 1.2  # times the fitted Gaussian's deviations: a proposal's tails have to reach beyond the posterior's

PRIOR_EXPECTATION = "log P(X) = log E_{z~P(z)} P(X|z)"
DEFINITION = "KL[Q || P(z|X)] = E_Q[log Q - log P(z|X)]"
IDENTITY = "log P(X) - KL[Q || P(z|X)] = E_Q[log P(X|z)] - KL[Q || P(z)]"
BOUND = "ELBO <= log P(X), since KL[Q || P(z|X)] >= 0"
TIGHT = "ELBO = log P(X) where Q = P(z|X)"
_GAP = "the difference is -KL[Q || P(z|X)]"


def exact_rows(vae: VAE, x: Tensor, closed: derivation.LinearGaussian) -> list[Row]:
    """The derivation on a linear-Gaussian model: quadrature over the program against closed forms."""
    q = vae.encoder(x)
    loc, scale, cov = q.mean, q.stddev, q.variance.diag_embed()
    posterior_loc, posterior_cov = closed.posterior(x)
    posterior = dist.MultivariateNormal(posterior_loc, posterior_cov)
    log_p = closed.log_evidence(x)
    kl_posterior = derivation.kl_normals(loc, cov, posterior_loc, posterior_cov)
    kl_prior = derivation.kl_standard_normal(loc, scale)

    z, weights = quadrature_nodes(vae.prior().expand(x.shape[:1]))
    integral = torch.logsumexp(terms(vae, x, z).log_likelihood + weights.log(), 0)
    z, weights = quadrature_nodes(q)
    log_q, log_prior, log_lik = terms(vae, x, z)

    def expectation(values: Tensor) -> Tensor:
        return (weights * values).sum(0)

    definition = expectation(log_q - posterior.log_prob(z))
    by_bayes = expectation(log_q - log_lik - log_prior) + log_p
    expected = expectation(log_lik)
    return [
        exact(PRIOR_EXPECTATION, log_p, integral),
        joint_row(vae, x),
        exact(DEFINITION, kl_posterior, definition),
        exact("log P(z|X) = log P(X|z) + log P(z) - log P(X)", posterior.log_prob(z), log_lik + log_prior - log_p),
        exact("KL[Q || P(z|X)] = E_Q[log Q - log P(X|z) - log P(z)] + log P(X)", kl_posterior, by_bayes),
        exact("E_Q[log P(X|z)]: closed form = quadrature", closed.expected_log_likelihood(x, loc, cov), expected),
        exact(IDENTITY, log_p - kl_posterior, expected - kl_prior),
        at_most(BOUND, exactly(closed.elbo(x, loc, cov)), exactly(log_p), _GAP),
        exact(TIGHT, closed.elbo(x, posterior_loc, posterior_cov), log_p),
    ]


def evidence_rows(vae: VAE, x: Tensor, num: int) -> list[Row]:
    """The derivation on any model: log P(X), and all that follows from it, with error bars."""
    whole = [PRIOR_EXPECTATION, DEFINITION, IDENTITY, BOUND, TIGHT]
    if not vae.likelihood.is_density:
        reason = "these data are outside the likelihood's support: P(X|z) is a loss, so P(X) has no meaning"
        return [*not_applicable(whole, reason), joint_row(vae, x)]
    fitted = fitted_gaussian(vae, x)

    def cover(x: Tensor) -> Any:  # Q itself may leave out much of the posterior
        if fitted is None:
            return vae.encoder(x)
        rows = fitted.rows(x)
        r = dist.MultivariateNormal(fitted.loc[rows], scale_tril=WIDER * fitted.scale_tril[rows])
        return Halves(vae.encoder(x), r)

    def importance_sampling(x: Tensor) -> Evidence:
        def guide(x: Tensor) -> None:
            with pyro.plate("data", len(x), dim=-1):
                pyro.sample("z", cover(x))

        return log_evidence(vae.model, guide, x, num_samples=num)

    def estimate() -> Estimate:
        result = importance_sampling(x)
        return Estimate(result.log_evidence, with_bias(result.se))

    first = importance_sampling(x)  # chooses the data; all that follows draws afresh
    known = first.reliable & (first.se < MAX_ERROR)
    data = f"on the {int(known.sum())} of {len(x)} data whose log P(X) is known to {MAX_ERROR} nats"
    if not known.any():
        return [*not_applicable(whole, data), joint_row(vae, x)]
    x = x[known]
    q, prior = vae.encoder(x), vae.prior().expand(x.shape[:1])
    log_p, again = estimate(), estimate()

    def from_prior() -> Tensor:  # P(x|z) P(z) / M(z) in logs, z ~ M, of which P(z) is one half
        m = Halves(prior, cover(x))
        z = m.sample((num,))
        _, log_prior, log_lik = terms(vae, x, z)
        return log_lik + log_prior - m.log_prob(z)

    # KL[Q || P*] = E_M[(Q log(Q / P*) - Q + P*) / M] with P* = P(z|X) and z ~ M; to first order it does
    # not depend on the error of log P(X), which is in P*.
    m = cover(x)
    z = m.sample((num,))
    log_q, log_prior, log_lik = terms(vae, x, z)
    log_posterior = log_lik + log_prior - log_p.value
    q_over_m, posterior_over_m = ((log_density - m.log_prob(z)).exp() for log_density in (log_q, log_posterior))
    kl_posterior = mean(q_over_m * (log_q - log_posterior - 1) + posterior_over_m)

    log_q, log_prior, log_lik = terms(vae, x, q.sample((num,)))
    definition = mean(log_q - log_lik - log_prior) + log_p
    log_q, log_prior, log_lik = terms(vae, x, q.sample((num,)))
    closed = closed_form_kl(vae, x)
    elbo = mean(log_lik + log_prior - log_q) if closed is None else mean(log_lik - closed)
    total = mean((from_prior() - log_p.value).exp()) + log_p.error
    return [
        estimated(
            PRIOR_EXPECTATION,
            log_p,
            log_mean_exp(from_prior()),
            f"{data}; half the z come from P(z), half from Q and from a Gaussian fitted to P(z|X), "
            "weighted so that the expectation is that over P(z)",
        ),
        joint_row(vae, x),
        estimated(
            DEFINITION,
            kl_posterior,
            definition,
            "left as the integral of Q log(Q / P*) - Q + P* with P* = P(z|X), which is nowhere negative",
        ),
        estimated(
            "1 = the integral over z of P(z|X) = P(X|z) P(z) / P(X)", exactly(torch.ones_like(total.value)), total
        ),
        estimated(IDENTITY, again - definition, elbo + log_p.error),
        at_most(BOUND, elbo, again, _GAP),
        *not_applicable([TIGHT], "P(z|X) has no closed form here"),
    ]


def joint_row(vae: VAE, x: Tensor) -> Row:
    """The Pyro model's joint log-density against the sum of its parts'."""
    guide_trace = poutine.trace(vae.guide).get_trace(x)
    model_trace = poutine.trace(poutine.replay(vae.model, guide_trace)).get_trace(x)
    model_trace.compute_log_prob()
    joint = model_trace.nodes["z"]["log_prob"] + model_trace.nodes["x"]["log_prob"]
    z = guide_trace.nodes["z"]["value"]
    assert isinstance(z, Tensor)
    parts = log_likelihood(vae, x, z) + vae.prior().log_prob(z)
    return exact("log P(X,z) of the Pyro model = log P(X|z) + log P(z)", joint, parts)


def fitted_gaussian(vae: VAE, x: Tensor) -> GaussianProposal | None:
    """Fit a Gaussian to each datum's posterior; None where z is bounded, or not known to be unbounded."""
    try:
        fitted = refined(vae.model, vae.guide, x, full_rank=True, steps=100, num_particles=4)
    except NotImplementedError:  # torch knows no way from real vectors to the prior's support
        return None
    return None if fitted.latents.transforms("z") else fitted
