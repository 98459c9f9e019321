"""Every equation of the derivation as two numbers that must agree: ``python -m pyro_vae.check [RUN]``.

The one side comes from the program (its parts, its Pyro model and guide), the other from
:mod:`pyro_vae.derivation` or from another line of the same derivation.
"""

import copy
import json
import math
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import NamedTuple

import numpy as np
import pyro
import pyro.distributions as dist
import torch
from pyro import poutine
from pyro.infer import Trace_ELBO, TraceMeanField_ELBO
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text
from torch import Tensor, nn

from pyro_vae import derivation, train
from pyro_vae.checkpoint import load
from pyro_vae.cli import Parser, command
from pyro_vae.encoders import DiagonalNormal
from pyro_vae.evidence.importance import log_evidence
from pyro_vae.evidence.result import Evidence
from pyro_vae.likelihoods import Bernoulli, Gaussian
from pyro_vae.networks import mlp
from pyro_vae.priors import StandardNormal
from pyro_vae.vae import VAE

ROUNDING = 1e-10  # the largest relative difference between two exact values
STANDARD_ERRORS = 4.0  # the largest difference of an estimate; of 100,000 correct rows 6 lie further out
NUM_DRAWS = 1000  # of z for each datum
NUM_GRADIENTS = 200
MAX_EVIDENCE_ERROR = 0.3  # nats; where log P(x) is known less well, its error bar can't be trusted either


@dataclass(frozen=True)
class Row:
    """One equation, its two sides, and whether they agree.

    Attributes:
        equation: The equation, in plain text.
        left: Its left side; of several values, their mean. ``None`` where the equation does not apply.
        right: Its right side, likewise.
        difference: Left minus right; of several exact values, the largest.
        standard_error: Of the difference; 0 where both sides are exact.
        verdict: "pass", "FAIL", "not applicable", or "measured" where nothing has to agree.
        note: Why it does not apply, or what the numbers say.
    """

    equation: str
    left: float | None
    right: float | None
    difference: float | None
    standard_error: float | None
    verdict: str
    note: str = ""


class Estimate(NamedTuple):
    """Values, one for each datum, and their standard errors: 0 where they are exact."""

    value: Tensor
    se: Tensor | float = 0.0


class Terms(NamedTuple):
    """The log-densities at draws of z, (K, B) each."""

    log_q: Tensor
    log_prior: Tensor
    log_likelihood: Tensor


LogEvidence = Callable[[VAE, Tensor], Evidence]

PRIOR_EXPECTATION = "log P(X) = log E_{z~P(z)} P(X|z)"
IDENTITY = "log P(X) - KL[Q || P(z|X)] = E_Q[log P(X|z)] - KL[Q || P(z)]"
BOUND = "ELBO <= log P(X), since KL[Q || P(z|X)] >= 0"
TIGHT = "ELBO = log P(X) where Q = P(z|X)"


def importance_sampling(vae: VAE, x: Tensor) -> Evidence:
    """Estimate log P(x) of each datum from draws of the guide."""
    return log_evidence(vae, x, num_samples=5 * NUM_DRAWS)


def check(vae: VAE, x: Tensor, *, evidence: LogEvidence = importance_sampling) -> list[Row]:
    r"""Check each equation of the derivation on a model, trained or not, and data.

    .. math:: \log P(x) - KL[Q \,\|\, P(z|x)] = E_Q[\log P(x|z)] - KL[Q \,\|\, P(z)]

    It computes in float64, on a copy of the model and with fixed seeds. What is
    intractable is estimated, and has a standard error.

    Args:
        vae: The model.
        x: Data, (B, D); a few dozen rows are enough.
        evidence: Estimates log P(x) of each datum, from fresh draws at each call.

    Returns:
        A row for each equation, in the order of the derivation.

    Reference:
        Doersch (2016), Tutorial on Variational Autoencoders, equations 1 to 10.

    Example:
        >>> vae, x = bernoulli()
        >>> {row.verdict for row in check(vae, x)} - {"not applicable", "measured"}
        {'pass'}
    """
    with _own_state():
        vae, x = copy.deepcopy(vae).double(), x.double()
        return [
            *evidence_rows(vae, x, evidence),
            *kl_rows(vae, x),
            *reparameterization_rows(vae, x),
            *objective_rows(vae, x),
            *variance_rows(reset(vae), x, "at initialisation"),
            *variance_rows(vae, x, "after training"),
        ]


def check_derivation() -> list[Row]:
    """Check each equation on models so small that every term is known.

    The evidence is that of a linear-Gaussian model, where quadrature gives the program's side
    and closed forms the other; the loss is the article's, of a Bernoulli model.

    Returns:
        A row for each equation, in the order of the derivation.

    Reference:
        Tipping & Bishop (1999), Probabilistic Principal Component Analysis, section 3.

    Example:
        >>> {row.verdict for row in check_derivation()}  == {"pass", "measured"}
        True
    """
    with _own_state():
        vae, exact, x = linear_gaussian()
        start, *_ = linear_gaussian(orthogonal=True)
        optimum, exact_optimum, x_optimum = linear_gaussian(orthogonal=True)
        set_to_posterior(optimum, exact_optimum)
        near = perturb(optimum)
        return [
            *exact_rows(vae, x, exact),
            *kl_rows(vae, x),
            *reparameterization_rows(vae, x, quadrature=True),
            *objective_rows(*bernoulli()),
            landing_row(optimum, x_optimum),
            *variance_rows(start, x_optimum, "at initialisation"),
            *variance_rows(near, x_optimum, "near the optimum"),
        ]


# The derivation: from P(X) to the bound


def exact_rows(vae: VAE, x: Tensor, exact: derivation.LinearGaussian) -> list[Row]:
    """The derivation on a linear-Gaussian model: quadrature over the program against closed forms."""
    q = vae.encoder(x)
    loc, scale, cov = q.mean, q.stddev, q.variance.diag_embed()
    posterior_loc, posterior_cov = exact.posterior(x)
    posterior = dist.MultivariateNormal(posterior_loc, posterior_cov)
    log_p = exact.log_evidence(x)
    kl_posterior = derivation.kl_normals(loc, cov, posterior_loc, posterior_cov)
    kl_prior = derivation.kl_standard_normal(loc, scale)

    z, weights = quadrature_nodes(vae.prior().expand(x.shape[:1]))
    integral = torch.logsumexp(terms(vae, x, z).log_likelihood + weights.log(), 0)
    z, weights = quadrature_nodes(q)
    log_q, log_prior, log_lik = terms(vae, x, z)

    def mean(values: Tensor) -> Tensor:
        return (weights * values).sum(0)

    definition = mean(log_q - posterior.log_prob(z))
    by_bayes = mean(log_q - log_lik - log_prior) + log_p
    return [
        _exact(PRIOR_EXPECTATION, log_p, integral),
        joint_row(vae, x),
        _exact("KL[Q || P(z|X)] = E_Q[log Q - log P(z|X)]", kl_posterior, definition),
        _exact("log P(z|X) = log P(X|z) + log P(z) - log P(X)", posterior.log_prob(z), log_lik + log_prior - log_p),
        _exact("KL[Q || P(z|X)] = E_Q[log Q - log P(X|z) - log P(z)] + log P(X)", kl_posterior, by_bayes),
        _exact("E_Q[log P(X|z)]: closed form = quadrature", exact.expected_log_likelihood(x, loc, cov), mean(log_lik)),
        _exact(IDENTITY, log_p - kl_posterior, mean(log_lik) - kl_prior),
        _bound(Estimate(exact.elbo(x, loc, cov)), Estimate(log_p)),
        _exact(TIGHT, exact.elbo(x, posterior_loc, posterior_cov), log_p),
    ]


def evidence_rows(vae: VAE, x: Tensor, evidence: LogEvidence) -> list[Row]:
    """The derivation on any model: log P(X), and all that follows from it, with error bars."""
    if not vae.likelihood.is_density:
        reason = "these data are outside the likelihood's support: P(X|z) is a loss, so P(X) has no meaning"
        return [_not_applicable(PRIOR_EXPECTATION, reason), joint_row(vae, x), _not_applicable(IDENTITY, reason)]
    first = evidence(vae, x)
    known = first.reliable & (first.se < MAX_EVIDENCE_ERROR)
    data = f"on the {int(known.sum())} of {len(x)} data whose log P(X) is known to {MAX_EVIDENCE_ERROR} nats"
    if not known.any():
        return [_not_applicable(PRIOR_EXPECTATION, data), joint_row(vae, x), _not_applicable(IDENTITY, data)]
    x = x[known]

    def estimate() -> Estimate:
        result = evidence(vae, x)
        return Estimate(result.log_evidence, _with_bias(result.se))

    log_p, again = estimate(), estimate()
    its_error = Estimate(torch.zeros(()), log_p.se)
    integral = _log_mean_exp(prior_weights(vae, x))
    total = _mean((prior_weights(vae, x) - log_p.value).exp())

    def posterior_over_q() -> Tensor:  # log P(z|X) / Q(z), by Bayes' rule
        log_q, log_prior, log_lik = terms(vae, x, vae.encoder(x).sample((NUM_DRAWS,)))
        return log_lik + log_prior - log_p.value - log_q

    log_ratio = posterior_over_q()
    kl_posterior = _mean(log_ratio.exp() - 1 - log_ratio)
    definition = _mean(-posterior_over_q())
    log_q, log_prior, log_lik = terms(vae, x, vae.encoder(x).sample((NUM_DRAWS,)))
    closed = closed_form_kl(vae, x)
    elbo = _mean(log_lik + log_prior - log_q) if closed is None else _mean(log_lik - closed)
    return [
        _estimated(
            PRIOR_EXPECTATION,
            log_p,
            integral,
            f"{data}; half the z come from P(z), half from Q, weighted so that the expectation is that over P(z)",
        ),
        joint_row(vae, x),
        _estimated(
            "KL[Q || P(z|X)] = E_Q[log Q - log P(z|X)]",
            kl_posterior,
            _sum(definition, its_error),
            "left as E_Q[r - 1 - log r] with r = P(z|X) / Q(z), of which no term is negative",
        ),
        _estimated(
            "1 = the integral over z of P(z|X) = P(X|z) P(z) / P(X)",
            Estimate(torch.ones(())),
            _sum(total, its_error),
        ),
        _estimated(IDENTITY, _sum(again, definition, -1.0), _sum(elbo, its_error)),
        _bound(elbo, again),
        _not_applicable(TIGHT, "P(z|X) has no closed form here"),
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
    return _exact("log P(X,z) of the Pyro model = log P(X|z) + log P(z)", joint, parts)


# The closed-form KL and the reparameterisation


def kl_rows(vae: VAE, x: Tensor) -> list[Row]:
    """The closed-form divergences against torch's and against sampling."""
    q = vae.encoder(x)
    normal = as_normal(q)
    rows = []
    by_torch = "KL[Q || N(0, I)]: closed form = torch.distributions"
    by_sampling = "KL[Q || N(0, I)]: closed form = E_Q[log Q - log P(z)]"
    if normal is None or not is_standard(vae.prior()):
        reason = f"no closed form is derived for {type(vae.encoder).__name__} and {type(vae.prior).__name__}"
        rows += [_not_applicable(by_torch, reason), _not_applicable(by_sampling, reason)]
    else:
        closed = derivation.kl_standard_normal(*normal)
        log_q, log_prior, _ = terms(vae, x, q.sample((NUM_DRAWS,)))
        rows += [
            _exact(by_torch, closed, dist.kl.kl_divergence(q, vae.prior())),
            _estimated(by_sampling, Estimate(closed), _mean(log_q - log_prior)),
        ]
    between = "KL[N(m, s^2) || N(m', s'^2)]: closed form = torch.distributions"
    if normal is None:
        return [*rows, _not_applicable(between, f"{type(vae.encoder).__name__} is not a diagonal normal")]
    loc, scale = normal
    other_loc, other_scale = loc.flip(0), scale.flip(0) * 1.5  # each datum's Q against another's
    p = dist.Normal(other_loc, other_scale).to_event(1)
    closed = derivation.kl_diagonal_normals(loc, scale, other_loc, other_scale)
    return [*rows, _exact(between, closed, dist.kl.kl_divergence(dist.Normal(loc, scale).to_event(1), p))]


def reparameterization_rows(vae: VAE, x: Tensor, *, quadrature: bool = False) -> list[Row]:
    """The density of mu + sigma * eps, and the two gradients of an expectation over Q."""
    return [*noise_rows(vae, x), gradient_row(vae, x, quadrature)]


def noise_rows(vae: VAE, x: Tensor) -> list[Row]:
    """The change of variables, and the spread of the guide's own draws."""
    density = "z = mu + sigma * eps has the density N(mu, sigma^2)"
    spread = "E_Q[(z - mu)^2 / sigma^2] = 1, z from the Pyro guide"
    normal = as_normal(vae.encoder(x))
    if normal is None:
        reason = f"{type(vae.encoder).__name__} is not a diagonal normal"
        return [_not_applicable(density, reason), _not_applicable(spread, reason)]
    loc, scale = (parameter.detach() for parameter in normal)
    eps = torch.randn_like(loc).requires_grad_()
    z = derivation.reparameterize(loc, scale, eps)
    (slope,) = torch.autograd.grad(z.sum(), eps)  # dz/deps; diagonal, since each z depends on its own eps
    changed = derivation.log_normal(eps, torch.zeros_like(loc), torch.ones_like(scale)) - slope.abs().log().sum(-1)
    draws = torch.stack([vae.guide(x).detach() for _ in range(NUM_DRAWS)])
    return [
        _exact(density, changed, dist.Normal(loc, scale).to_event(1).log_prob(z)),
        _estimated(spread, _mean(((draws - loc) / scale).square().mean(-1)), Estimate(torch.ones(()))),
    ]


def gradient_row(vae: VAE, x: Tensor, quadrature: bool) -> Row:
    """The pathwise against the score-function gradient of E_Q[log P(X|z)], and the ratio of their variances."""
    equation = "grad E_Q[log P(X|z)]: pathwise = score function"
    if not vae.encoder(x).has_rsample:
        return _not_applicable(equation, f"draws of {type(vae.encoder).__name__} are not differentiable")
    parameters = list(vae.encoder.parameters())
    with torch.no_grad():
        z = vae.encoder(x).sample((NUM_DRAWS // 10,))
        baseline = _mean(terms(vae, x, z).log_likelihood).value

    def pathwise(z: Tensor, weights: Tensor) -> Tensor:
        return (weights * log_likelihood(vae, x, z)).sum()

    def score(z: Tensor, weights: Tensor) -> Tensor:
        fixed = z.detach()
        signal = log_likelihood(vae, x, fixed).detach() - baseline  # E_Q[grad log Q] = 0: the baseline costs no bias
        return (weights * signal * vae.encoder(x).log_prob(fixed)).sum()

    def one_draw() -> tuple[Tensor, Tensor]:
        return vae.encoder(x).rsample((1,)), torch.ones((1, 1))

    by_path = Gradients(lambda: pathwise(*one_draw()), parameters)
    by_score = Gradients(lambda: score(*one_draw()), parameters)
    ratio = by_score.variances().mean() / by_path.variances().mean()
    note = f"the score function's variance, with a baseline, is {ratio.item():.3g} times the pathwise one"
    if quadrature:
        left, right = (_gradient(loss(*quadrature_nodes(vae.encoder(x))), parameters) for loss in (pathwise, score))
        return _exact(equation, left, right, note)
    direction = by_path.direction()
    note = "along the pathwise gradient's direction; " + note
    return _estimated(equation, by_path.along(direction), by_score.along(direction), note)


# The objective: Pyro's two, and the article's


def objective_rows(vae: VAE, x: Tensor) -> list[Row]:
    """Trace_ELBO, TraceMeanField_ELBO and the article's loss, in value and in gradient."""
    return [*elbo_rows(vae, x), *article_rows(vae, x)]


def elbo_rows(vae: VAE, x: Tensor) -> list[Row]:
    """Pyro's two objectives, with equal noise: they differ, but not on average."""
    value = "E[Trace_ELBO] = E[TraceMeanField_ELBO]"
    gradient = "E[grad Trace_ELBO] = E[grad TraceMeanField_ELBO]"
    if closed_form_kl(vae, x) is None:
        reason = no_closed_form(vae)
        return [_not_applicable(value, reason), _not_applicable(gradient, reason)]
    parameters = list(vae.encoder.parameters())
    direction = Gradients(lambda: pyro_loss(TraceMeanField_ELBO, vae, x), parameters).direction()
    values, slopes = [], []
    for seed in range(NUM_GRADIENTS):
        losses = [pyro_loss(kind, vae, x, seed) for kind in (Trace_ELBO, TraceMeanField_ELBO)]
        values.append(torch.stack(losses).detach() / len(x))
        slopes.append(torch.stack([_gradient(loss, parameters) @ direction for loss in losses]) / len(x))
    return [
        _paired(value, torch.stack(values)),
        _paired(gradient, torch.stack(slopes), "along the analytic gradient's direction"),
    ]


def article_rows(vae: VAE, x: Tensor) -> list[Row]:
    """The article's loss against Pyro's, from the same draws, and its cross-entropy against the likelihood."""
    value = "TraceMeanField_ELBO = BCE + KLD, equal noise"
    gradient = "grad TraceMeanField_ELBO = grad (BCE + KLD), equal noise"
    sampled = "Trace_ELBO = BCE + log Q - log P(z), equal noise"
    cross_entropy = "BCE = -log P(X|z)"
    torch.manual_seed(0)
    z = vae.guide(x)
    logits = bernoulli_logits(vae, z)
    if logits is None:
        reason = f"{type(vae.likelihood).__name__} is not the article's Bernoulli"
        return [_not_applicable(equation, reason) for equation in (value, gradient, sampled, cross_entropy)]
    rounding = rounding_of_probs(logits, x)
    bce = derivation.binary_cross_entropy(as_probs(logits), x)
    last = _exact(cross_entropy, bce, -log_likelihood(vae, x, z), rounding=rounding.max())

    normal = as_normal(vae.encoder(x))
    if normal is None or not is_standard(vae.prior()):
        reason = f"{type(vae.encoder).__name__} and {type(vae.prior).__name__} are not the article's normals"
        return [*(_not_applicable(equation, reason) for equation in (value, gradient, sampled)), last]
    loc, scale = normal
    eps = ((z - loc) / scale).detach()
    z = derivation.reparameterize(loc, scale, eps)
    logits = bernoulli_logits(vae, z)
    assert logits is not None
    article = derivation.article_loss(as_probs(logits), x, loc, 2 * scale.log())
    log_ratio = derivation.log_normal(z, loc, scale) - derivation.log_normal(z, torch.zeros_like(z), torch.ones_like(z))
    analytic, trace = (pyro_loss(kind, vae, x, seed=0) for kind in (TraceMeanField_ELBO, Trace_ELBO))
    parameters = [*vae.encoder.parameters(), *vae.decoder.parameters()]
    by_pyro, by_hand = (_gradient(loss, parameters, retain=True) for loss in (analytic, article))
    return [
        _exact(value, analytic, article, rounding=rounding.sum()),
        _exact(gradient, by_pyro, by_hand, "all parameters"),
        _exact(sampled, trace, (bce + log_ratio).sum(), rounding=rounding.sum()),
        last,
    ]


# The variance of the gradient


def landing_row(vae: VAE, x: Tensor) -> Row:
    """The sticking-the-landing gradient of a guide that is the posterior."""
    gradient = _gradient(landing_loss(vae, x), list(vae.encoder.parameters()))
    return _exact("sticking the landing: grad = 0 for each draw where Q = P(z|X)", gradient, torch.zeros_like(gradient))


def variance_rows(vae: VAE, x: Tensor, stage: str) -> list[Row]:
    """The variance of the encoder's gradient with the sampled KL, the analytic KL, and sticking the landing."""
    parameters = list(vae.encoder.parameters())

    def variance(loss: Callable[[], Tensor]) -> Tensor:
        return Gradients(lambda: loss() / len(x), parameters).variances()

    analytic_equation = f"gradient variance {stage}: sampled KL, analytic KL"
    landing_equation = f"gradient variance {stage}: sampled KL, sticking the landing"
    sampled = variance(lambda: pyro_loss(Trace_ELBO, vae, x))
    landing = variance(lambda: landing_loss(vae, x))
    rows = [_measured(landing_equation, sampled, landing, WHY_LANDING)]
    if closed_form_kl(vae, x) is None:
        return [_not_applicable(analytic_equation, no_closed_form(vae)), *rows]
    analytic = variance(lambda: pyro_loss(TraceMeanField_ELBO, vae, x))
    rows = [_measured(analytic_equation, sampled, analytic, WHY_ANALYTIC), *rows]
    return [
        *rows,
        _measured(f"gradient variance {stage}: analytic KL, sticking the landing", analytic, landing, WHY_LANDING),
    ]


# Why the left or the right estimator's gradient varies less.
WHY_ANALYTIC = (
    "the noise of the drawn log P(z) offsets some of that of log P(X|z)",
    "the draw of log P(z) no longer adds its own noise to that of log P(X|z)",
)
WHY_LANDING = (
    "drawn log Q brings more noise than it cancels, since Q is not close enough to P(z|X)",
    "along z, log Q cancels noise of log P(X,z): all of it where Q = P(z|X) (Roeder et al. 2017)",
)


def pyro_loss(kind: type[Trace_ELBO], vae: VAE, x: Tensor, seed: int | None = None) -> Tensor:
    """Pyro's objective, from one draw of z for each datum, summed over the batch."""
    if seed is not None:
        torch.manual_seed(seed)
    return kind(max_plate_nesting=1).differentiable_loss(vae.model, vae.guide, x)


def landing_loss(vae: VAE, x: Tensor) -> Tensor:
    """The negative ELBO whose log Q depends on the encoder through z alone (Roeder et al. 2017, equation 7)."""
    z = vae.encoder(x).rsample()
    held = copy.deepcopy(vae.encoder).requires_grad_(False)
    return (held(x).log_prob(z) - vae.prior().log_prob(z) - log_likelihood(vae, x, z)).sum()


class Gradients:
    """Independent draws of a random loss's gradient, of which none has to be kept."""

    def __init__(self, loss: Callable[[], Tensor], parameters: Sequence[Tensor]):
        self.loss = loss
        self.parameters = parameters

    def __call__(self, num: int) -> Iterator[Tensor]:
        """Yield ``num`` gradients, each as one long vector."""
        return (_gradient(self.loss(), self.parameters) for _ in range(num))

    def direction(self) -> Tensor:
        """The unit vector along the mean of some gradients."""
        return nn.functional.normalize(sum(self(NUM_GRADIENTS // 10), torch.zeros(())), dim=0)

    def along(self, direction: Tensor) -> Estimate:
        """The mean gradient's component along a direction."""
        return _mean(torch.stack([gradient @ direction for gradient in self(NUM_GRADIENTS)]))

    def variances(self) -> Tensor:
        """Unbiased estimates |g - g'|^2 / 2 of the components' summed variance, with the same noise at each call."""
        estimates = []
        for seed in range(NUM_GRADIENTS // 2):
            torch.manual_seed(seed)
            first, second = self(2)
            estimates.append((first - second).square().sum() / 2)
        return torch.stack(estimates)


# The models of a check without a run


def linear_gaussian(*, orthogonal: bool = False) -> tuple[VAE, derivation.LinearGaussian, Tensor]:
    """Return a small linear-Gaussian VAE, its closed form, and data, in float64.

    Args:
        orthogonal: Make the posterior's covariance diagonal, so that the guide can equal it.
    """
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        decoder = mlp(2, [], (5, 1)).double()
        encoder = DiagonalNormal(mlp(5, [], 2 * 2).double())
        weight, bias, scale = 0.7 * torch.randn(5, 2).double(), torch.randn(5).double(), 1.5
        if orthogonal:
            weight = torch.linalg.qr(weight)[0] * torch.tensor([1.0, 3.0])
        x = torch.randn(8, 5).double()
    exact = derivation.LinearGaussian(weight, bias, torch.full_like(bias, scale))
    with torch.no_grad():
        for parameter, value in zip(decoder.parameters(), (weight, bias), strict=True):
            parameter.copy_(value)
    vae = VAE(prior=StandardNormal(2).double(), encoder=encoder, decoder=decoder, likelihood=Gaussian(scale=scale))
    return vae, exact, x


@torch.no_grad()
def set_to_posterior(vae: VAE, exact: derivation.LinearGaussian) -> None:
    """Give the linear encoder of ``vae`` the mean and the deviations of P(z|x)."""
    layer = next(module for module in vae.encoder.modules() if isinstance(module, nn.Linear))
    origin, cov = exact.posterior(torch.zeros_like(exact.bias))
    slope = exact.posterior(torch.eye(len(exact.bias)).to(origin))[0] - origin  # (D, Z)
    layer.weight.copy_(torch.cat([slope.T, torch.zeros_like(slope.T)]))
    layer.bias.copy_(torch.cat([origin, 0.5 * cov.diagonal().log()]))


def perturb(vae: VAE, size: float = 0.05) -> VAE:
    """Return a copy whose encoder's weights are moved a little."""
    vae = copy.deepcopy(vae)
    with torch.no_grad():
        for parameter in vae.encoder.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=size)
    return vae


def reset(vae: VAE) -> VAE:
    """Return a copy whose encoder and decoder are untrained."""
    vae = copy.deepcopy(vae)
    for module in [*vae.encoder.modules(), *vae.decoder.modules()]:
        if callable(initialize := getattr(module, "reset_parameters", None)):
            initialize()
    return vae


def bernoulli() -> tuple[VAE, Tensor]:
    """Return a small VAE of the article's kind and data, in float64."""
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        vae = VAE(
            prior=StandardNormal(2),
            encoder=DiagonalNormal(mlp(12, [16], 2 * 2)),
            decoder=mlp(2, [16], (12, 1)),
            likelihood=Bernoulli(),
        )
        return vae.double(), torch.rand(8, 12).double().round()


# Densities, nodes and estimates


def log_likelihood(vae: VAE, x: Tensor, z: Tensor) -> Tensor:
    """log P(x|z), (..., B), for x of (B, D) and z of (..., B, Z)."""
    return vae.likelihood(vae.decoder(z)).log_prob(x)


@torch.no_grad()
def terms(vae: VAE, x: Tensor, z: Tensor) -> Terms:
    """The three log-densities at z, (K, B, Z), a few draws at once so that memory stays bounded."""
    q, prior = vae.encoder(x), vae.prior()
    at_once = max(1, 10**7 // (x.numel() * vae.likelihood.params_per_element))
    pieces = [(q.log_prob(part), prior.log_prob(part), log_likelihood(vae, x, part)) for part in z.split(at_once)]
    return Terms(*(torch.cat(piece) for piece in zip(*pieces, strict=True)))


def quadrature_nodes(p: torch.distributions.Distribution, num: int = 48) -> tuple[Tensor, Tensor]:
    """Gauss-Hermite nodes, (K, B, Z), and weights, (K, 1), for expectations over a diagonal normal."""
    points, weights = (torch.from_numpy(array) for array in np.polynomial.hermite_e.hermegauss(num))
    z_dim = p.event_shape[0]
    eps = torch.cartesian_prod(*[points] * z_dim).unsqueeze(1)  # (K, 1, Z)
    weights = torch.cartesian_prod(*[weights / weights.sum()] * z_dim).prod(-1, keepdim=True)
    return derivation.reparameterize(p.mean, p.stddev, eps), weights


def prior_weights(vae: VAE, x: Tensor) -> Tensor:
    """P(x|z) P(z) / R(z) in logs, (K, B), with z from R = P(z)/2 + Q(z)/2; its mean is E_{z~P(z)} P(x|z)."""
    half = (5 * NUM_DRAWS // 2,)
    z = torch.cat([vae.prior().expand(x.shape[:1]).sample(half), vae.encoder(x).sample(half)])
    log_q, log_prior, log_lik = terms(vae, x, z)
    return log_lik + log_prior - (torch.logaddexp(log_prior, log_q) - math.log(2))


def as_normal(q: dist.Distribution) -> tuple[Tensor, Tensor] | None:
    """The mean and the deviations of a diagonal normal, or None."""
    base = getattr(q, "base_dist", None)
    return (base.loc, base.scale) if isinstance(base, torch.distributions.Normal) else None


def is_standard(prior: dist.Distribution) -> bool:
    """Whether a distribution is N(0, I)."""
    normal = as_normal(prior)
    return normal is not None and bool((normal[0] == 0).all() and (normal[1] == 1).all())


def closed_form_kl(vae: VAE, x: Tensor) -> Tensor | None:
    """KL[Q || P(z)], (B,), or None where torch knows no closed form."""
    try:
        return dist.kl.kl_divergence(vae.encoder(x), vae.prior()).detach()
    except NotImplementedError:
        return None


def no_closed_form(vae: VAE) -> str:
    """Say between what there is no closed-form KL."""
    return f"no closed form of the KL between {type(vae.encoder).__name__} and {type(vae.prior).__name__}"


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


def _mean(values: Tensor) -> Estimate:
    """The mean over the first dimension."""
    return Estimate(values.mean(0), values.std(0) / math.sqrt(len(values)))


def _log_mean_exp(log_weights: Tensor) -> Estimate:
    value = log_weights.logsumexp(0) - math.log(len(log_weights))
    weights = (log_weights - value).exp()
    return Estimate(value, _with_bias(weights.std(0) / math.sqrt(len(weights))))


def _with_bias(se: Tensor) -> Tensor:
    """The root mean square error of the logarithm of a mean, which is too low by about se^2 / 2."""
    return torch.hypot(se, se.square() / 2)


def _sum(first: Estimate, second: Estimate, sign: float = 1.0) -> Estimate:
    se = torch.hypot(*(torch.as_tensor(estimate.se, dtype=torch.double) for estimate in (first, second)))
    return Estimate(first.value + sign * second.value, se)


def _gradient(loss: Tensor, parameters: Sequence[Tensor], *, retain: bool = False) -> Tensor:
    gradients = torch.autograd.grad(loss, parameters, retain_graph=retain, allow_unused=True, materialize_grads=True)
    return torch.cat([gradient.flatten() for gradient in gradients])


@contextmanager
def _own_state() -> Iterator[None]:
    """Fix the seed and use a parameter store of our own; leave both as they were."""
    with torch.random.fork_rng([]), pyro.get_param_store().scope():
        torch.manual_seed(0)
        yield


# Rows


def _exact(equation: str, left: Tensor, right: Tensor, note: str = "", *, rounding: Tensor | float = 0.0) -> Row:
    """Compare two exact values, element by element."""
    difference = (left - right).abs().max().item()
    allowed = ROUNDING * max(1.0, left.abs().max().item()) + float(rounding)
    verdict = "pass" if difference <= allowed else "FAIL"
    return Row(equation, left.mean().item(), right.mean().item(), difference, 0.0, verdict, note)


def _estimated(equation: str, left: Estimate, right: Estimate, note: str = "") -> Row:
    """Compare two independent estimates, on average over the data."""
    difference, se = _difference(left, right)
    verdict = "pass" if abs(difference) <= STANDARD_ERRORS * se else "FAIL"
    return Row(equation, left.value.mean().item(), right.value.mean().item(), difference, se, verdict, note)


def _paired(equation: str, draws: Tensor, note: str = "") -> Row:
    """Compare two estimates, (K, 2), whose draws have their noise in common."""
    left, right = draws.mean(0)
    return _estimated(equation, Estimate(left), Estimate(right, _mean(draws[:, 0] - draws[:, 1]).se), note)


def _bound(left: Estimate, right: Estimate) -> Row:
    """Check that the left side is the smaller one."""
    difference, se = _difference(left, right)
    verdict = "pass" if difference <= STANDARD_ERRORS * se else "FAIL"
    note = "the difference is -KL[Q || P(z|X)]"
    return Row(BOUND, left.value.mean().item(), right.value.mean().item(), difference, se, verdict, note)


def _measured(equation: str, left: Tensor, right: Tensor, why: tuple[str, str]) -> Row:
    """Set two figures side by side, (K,) draws of each with their noise in common, and say why one is smaller."""
    difference, se = (left - right).mean().item(), (left - right).std().item() / math.sqrt(len(left))
    if abs(difference) <= 2 * se:
        note = "no difference seen"
    elif difference < 0:
        note = f"the left one is {right.mean() / left.mean():.3g} times smaller: {why[0]}"
    else:
        note = f"the right one is {left.mean() / right.mean():.3g} times smaller: {why[1]}"
    return Row(equation, left.mean().item(), right.mean().item(), difference, se, "measured", note)


def _not_applicable(equation: str, reason: str) -> Row:
    return Row(equation, None, None, None, None, "not applicable", reason)


def _difference(left: Estimate, right: Estimate) -> tuple[float, float]:
    """The mean difference over the data, and its standard error."""
    difference = _sum(left, right, -1.0)
    se = torch.as_tensor(difference.se).expand_as(difference.value)
    return difference.value.mean().item(), se.square().sum().sqrt().item() / se.numel()


# The command line


def load_run(run: str, num: int = 32) -> tuple[VAE, Tensor]:
    """Return a run's model and the first of its test data."""
    return load(run), train.run_data(run).test[:num]


def show(rows: Sequence[Row]) -> None:
    """Print the rows as a table, and their notes below it."""
    console = Console() if sys.stdout.isatty() else Console(width=200, color_system=None)
    table = Table(box=box.SIMPLE if console.is_terminal else None, pad_edge=False)
    for name in ("equation", "left", "right", "difference", "standard error", "verdict"):
        table.add_column(name, justify="left" if name in ("equation", "verdict") else "right")
    notes = []
    for row in rows:
        mark = ""
        if row.note:
            notes.append(row.note)
            mark = f" [{len(notes)}]"
        style = {"pass": "green", "FAIL": "bold red"}.get(row.verdict, "dim")
        numbers = (
            [f"{row.left:.6g}", f"{row.right:.6g}", f"{row.difference:.2g}"] if row.left is not None else ["", "", ""]
        )
        error = f"{row.standard_error:.2g}" if row.standard_error else ("" if row.left is None else "exact")
        table.add_row(Text(row.equation + mark), *numbers, error, Text(row.verdict, style))
    console.print(table)
    for number, note in enumerate(notes, 1):
        console.print(Text(f"[{number}] {note}"))


@command
def main(argv: list[str] | None = None) -> None:
    """Check each equation of the derivation; end with status 1 if one fails."""
    parser = Parser(prog="python -m pyro_vae.check", description="Check each equation of the derivation.")
    parser.add_argument("run", nargs="?", help="A run folder. Default: models so small that every term is known.")
    parser.add_argument("--json", action="store_true", help="Print the rows as JSON.")
    args = parser.parse_args(argv)
    rows = check_derivation() if args.run is None else check(*load_run(args.run))
    if args.json:
        print(json.dumps([asdict(row) for row in rows], indent=2))
    else:
        show(rows)
    if any(row.verdict == "FAIL" for row in rows):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
