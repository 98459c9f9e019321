"""The pathwise and the score-function gradient, and how much gradients vary."""

import copy
from collections.abc import Callable, Iterator, Sequence

import torch
from pyro.infer import Trace_ELBO, TraceMeanField_ELBO
from torch import Tensor, nn

from pyro_vae.equations.densities import closed_form_kl, log_likelihood, no_closed_form, quadrature_nodes, terms
from pyro_vae.equations.rows import Estimate, Row, estimated, exact, mean, measured, not_applicable
from pyro_vae.vae import VAE


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


def gradient(loss: Tensor, parameters: Sequence[Tensor], *, retain: bool = False) -> Tensor:
    """The gradient as one long vector."""
    gradients = torch.autograd.grad(loss, parameters, retain_graph=retain, allow_unused=True, materialize_grads=True)
    return torch.cat([gradient.flatten() for gradient in gradients])


class Gradients:
    """Independent draws of a random loss's gradient, of which none has to be kept."""

    def __init__(self, loss: Callable[[], Tensor], parameters: Sequence[Tensor], num: int):
        self.loss, self.parameters, self.num = loss, parameters, num

    def draws(self, num: int) -> Iterator[Tensor]:
        """Yield ``num`` gradients."""
        return (gradient(self.loss(), self.parameters) for _ in range(num))

    def direction(self) -> Tensor:
        """The unit vector along the mean of fewer gradients."""
        return nn.functional.normalize(sum(self.draws(max(1, self.num // 10)), torch.zeros(())), dim=0)

    def along(self, direction: Tensor) -> Estimate:
        """The mean gradient's component along a direction."""
        return mean(torch.stack([gradient @ direction for gradient in self.draws(self.num)]))

    def variances(self) -> Tensor:
        """Unbiased estimates |g - g'|^2 / 2 of the components' summed variance, with the same noise at each call."""
        estimates = []
        for seed in range(self.num // 2):
            torch.manual_seed(seed)
            first, second = self.draws(2)
            estimates.append((first - second).square().sum() / 2)
        return torch.stack(estimates)


def pathwise_row(vae: VAE, x: Tensor, num: int, *, quadrature: bool = False) -> Row:
    """The pathwise against the score-function gradient of E_Q[log P(X|z)], and the ratio of their variances."""
    equation = "grad E_Q[log P(X|z)]: pathwise = score function"
    if not vae.encoder(x).has_rsample:
        return not_applicable([equation], f"draws of {type(vae.encoder).__name__} are not differentiable")[0]
    parameters = list(vae.encoder.parameters())
    with torch.no_grad():
        baseline = terms(vae, x, vae.encoder(x).sample((100,))).log_likelihood.mean(0)

    def pathwise(z: Tensor, weights: Tensor) -> Tensor:
        return (weights * log_likelihood(vae, x, z)).sum()

    def score(z: Tensor, weights: Tensor) -> Tensor:
        fixed = z.detach()
        signal = log_likelihood(vae, x, fixed).detach() - baseline  # E_Q[grad log Q] = 0: the baseline costs no bias
        return (weights * signal * vae.encoder(x).log_prob(fixed)).sum()

    def one_draw() -> tuple[Tensor, Tensor]:
        return vae.encoder(x).rsample((1,)), torch.ones((1, 1))

    by_path = Gradients(lambda: pathwise(*one_draw()), parameters, num)
    by_score = Gradients(lambda: score(*one_draw()), parameters, num)
    ratio = by_score.variances().mean() / by_path.variances().mean()
    note = f"the score function's variance, with a baseline, is {ratio.item():.3g} times the pathwise one"
    if quadrature:
        left, right = (gradient(loss(*quadrature_nodes(vae.encoder(x))), parameters) for loss in (pathwise, score))
        return exact(equation, left, right, note)
    direction = by_path.direction()
    note = "along the pathwise gradient's direction; " + note
    return estimated(equation, by_path.along(direction), by_score.along(direction), note)


def landing_row(vae: VAE, x: Tensor) -> Row:
    """The sticking-the-landing gradient of a guide that is the posterior."""
    slope = gradient(landing_loss(vae, x), list(vae.encoder.parameters()))
    return exact("sticking the landing: grad = 0 for each draw where Q = P(z|X)", slope, torch.zeros_like(slope))


# Why the left or the right estimator's gradient varies less.
WHY_ANALYTIC = (
    "the noise of the drawn log P(z) offsets some of that of log P(X|z)",
    "the draw of log P(z) no longer adds its own noise to that of log P(X|z)",
)
WHY_LANDING = (
    "drawn log Q brings more noise than it cancels, since Q is not close enough to P(z|X)",
    "along z, log Q cancels noise of log P(X,z): all of it where Q = P(z|X) (Roeder et al. 2017)",
)


def variance_rows(vae: VAE, x: Tensor, stage: str, num: int) -> list[Row]:
    """The variance of the encoder's gradient with the sampled KL, the analytic KL, and sticking the landing."""
    parameters = list(vae.encoder.parameters())

    def variance(loss: Callable[[], Tensor]) -> Tensor:
        return Gradients(lambda: loss() / len(x), parameters, num).variances()

    by_analytic, by_landing, both = (
        f"gradient variance {stage}: {pair}"
        for pair in (
            "sampled KL, analytic KL",
            "sampled KL, sticking the landing",
            "analytic KL, sticking the landing",
        )
    )
    sampled = variance(lambda: pyro_loss(Trace_ELBO, vae, x))
    landing = variance(lambda: landing_loss(vae, x))
    landing_row = measured(by_landing, sampled, landing, WHY_LANDING)
    if closed_form_kl(vae, x) is None:
        return [*not_applicable([by_analytic], no_closed_form(vae)), landing_row]
    analytic = variance(lambda: pyro_loss(TraceMeanField_ELBO, vae, x))
    return [
        measured(by_analytic, sampled, analytic, WHY_ANALYTIC),
        landing_row,
        measured(both, analytic, landing, WHY_LANDING),
    ]
