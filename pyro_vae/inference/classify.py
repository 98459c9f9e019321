"""P(Y | X) by Bayes' rule, from log P(X, Y) of each class."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pyro_vae.data.arrays import ShowsShapes
from pyro_vae.data.labels import UNKNOWN
from pyro_vae.evidence import khat_threshold, log_evidence
from pyro_vae.evidence.checks import check_count
from pyro_vae.program import arguments, as_data


@dataclass(frozen=True, repr=False)
class Classes(ShowsShapes):
    r"""Estimates of log P(x, y) for each of N data and C classes, in nats, and what follows from them.

    Attributes:
        log_joint: log P(x, y = c) by importance sampling, (N, C): in expectation lower bounds.
        se: Their Monte Carlo standard errors, (N, C).
        khat: Pareto shapes of the weights' tails, (N, C).
        num_samples: K, of each.
    """

    log_joint: Tensor
    se: Tensor
    khat: Tensor
    num_samples: int

    @property
    def log_evidence(self) -> Tensor:
        r"""Return :math:`\log P(x) = \log \sum_c P(x, c)`, (N,)."""
        return self.log_joint.logsumexp(-1)

    @property
    def log_probs(self) -> Tensor:
        r"""Return :math:`\log P(y = c | x) = \log P(x, c) - \log P(x)`, (N, C)."""
        return self.log_joint.log_softmax(-1)

    @property
    def label(self) -> Tensor:
        """Return the likeliest class of each, (N,)."""
        return self.log_joint.argmax(-1)

    @property
    def threshold(self) -> float:
        """Return what k-hat has to be below for an estimate to be trusted."""
        return khat_threshold(self.num_samples)


def classify(
    model: Any,
    guide: Any,
    x: Tensor | None = None,
    *,
    num_classes: int | None = None,
    num_samples: int = 100,
    seed: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Classes:
    r"""Estimate log P(x, y) for all classes, and so P(y | x).

    .. math:: P(y | x) = \frac{P(x, y)}{\sum_c P(x, c)}, \qquad
              P(x, y) \approx \frac1K \sum_k \frac{p(x, y, z_k)}{q(z_k | x, y)}, \quad z_k \sim q(z | x, y)

    All classes are estimated with the same noise, so that much of it leaves their differences.

    Args:
        model: A Pyro model of (x, y), or a :class:`pyro_vae.ConditionalVAE` followed by ``x`` alone.
        guide: Its guide, of (x, y) as well.
        x: Data, (N, D).
        num_classes: C; of a ``ConditionalVAE`` it is known.
        num_samples: K, for each datum and class.
        seed: Of the noise; by default it follows torch's global generator.
        progress: Called with how much is done, and of how much.

    Returns:
        The estimates. P(y | x) of noisy ones is a little too sure, by about their squared standard error.

    Raises:
        ValueError: As :func:`pyro_vae.log_evidence`, and if the number of classes isn't known.

    Reference:
        Bayes' rule; the estimate is that of Burda et al. (2016), Importance Weighted Autoencoders, section 3.

    Example:
        >>> import pyro_vae
        >>> vae = pyro_vae.build((1, 4, 4), latent_dim=2, num_classes=3)
        >>> classify(vae, torch.zeros(5, 16), num_samples=10).log_probs.shape
        torch.Size([5, 3])
    """
    if x is None:
        model, guide, x, num_classes = model.model, model.guide, guide, model.num_classes
    if num_classes is None:
        raise ValueError("num_classes: expected the number of classes that the model has, got None")
    check_count(num_classes=num_classes, num_samples=num_samples)
    x = arguments(as_data(model, x))[0]
    seed = int(torch.randint(2**62, ())) if seed is None else seed
    found = []
    for c in range(num_classes):
        y = torch.full((len(x),), c, device=x.device)
        found.append(log_evidence(model, guide, (x, y), num_samples=num_samples, seed=seed))
        if progress is not None:
            progress(c + 1, num_classes)
    log_joint, se, khat = (torch.stack([getattr(e, f) for e in found], -1) for f in ("log_evidence", "se", "khat"))
    return Classes(log_joint, se, khat, num_samples)


@dataclass(frozen=True)
class ClassScores:
    """How well P(Y | X) does on data whose labels are known.

    Attributes:
        accuracy: The part of the data whose likeliest class is the right one.
        accuracy_se: Its standard error over data; infinite for a single one.
        log_score: The mean of log P(y | x) of the right class, nats: 0 at best.
        log_score_se: Its standard error over data; infinite for a single one.
        calibration_error: How far the probability of the likeliest class is from how often it is right: in ten bins of
            that probability, and then in the mean over data.
        num_examples: Of how many data.
    """

    accuracy: float
    accuracy_se: float
    log_score: float
    log_score_se: float
    calibration_error: float
    num_examples: int


def score_classes(log_probs: Tensor, y: Tensor) -> ClassScores | None:
    """Compare log P(y | x), (N, C), with labels, (N,), where known; None where no label is.

    Raises:
        ArithmeticError: When some are NaN, as of a datum that no class gives any probability.

    Reference:
        Guo et al. (2017), On Calibration of Modern Neural Networks, equation 3.

    Example:
        >>> score_classes(torch.tensor([[0.9, 0.1], [0.4, 0.6]]).log(), torch.tensor([0, 0])).accuracy
        0.5
    """
    known = (y != UNKNOWN) & (y < log_probs.shape[1])
    if not known.any():
        return None
    log_probs, y = log_probs[known].double(), y[known]
    if (unknown := log_probs.isnan().any(-1)).any():
        raise ArithmeticError(
            f"P(y | x) is unknown for {int(unknown.sum())} of {len(y)} data, which no class gives any probability that "
            "is a number; look for weights, or data, that are out of range"
        )
    right = (log_probs.argmax(-1) == y).double()
    scores = log_probs.gather(1, y[:, None])[:, 0]
    sure = log_probs.max(-1).values.exp()
    bins = (10 * sure).long().clamp(max=9)
    gaps = torch.zeros(10, dtype=torch.float64, device=y.device).index_add(0, bins, sure - right)
    size = len(y)

    def error(values: Tensor) -> float:
        return math.sqrt(values.var(correction=0).item() / size) if size > 1 else math.inf

    return ClassScores(
        accuracy=right.mean().item(),
        accuracy_se=error(right),
        log_score=scores.mean().item(),
        log_score_se=error(scores),
        calibration_error=gaps.abs().sum().item() / size,
        num_examples=size,
    )
