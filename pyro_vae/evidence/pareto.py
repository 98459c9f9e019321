"""The Pareto shape k-hat of importance weights: whether their mean can be trusted."""

import math

import torch
from torch import Tensor

_MAX_ELEMENTS = 2**22


def tail_length(num_samples: int) -> int:
    """Return how many of the largest weights the tail is fitted to, min(S/5, 3 sqrt(S)) rounded up."""
    return math.ceil(min(num_samples / 5, 3 * math.sqrt(num_samples)))


def khat_threshold(num_samples: int) -> float:
    """Return the k-hat below which S weights give a mean and a standard error to rely on.

    .. math:: \\min(1 - 1 / \\log_{10} S, 0.7)

    Reference:
        Vehtari et al. (2024), Pareto Smoothed Importance Sampling, section 3.2.4.

    Example:
        >>> khat_threshold(100), khat_threshold(5000)
        (0.5, 0.7)
    """
    return min(1 - 1 / math.log10(max(num_samples, 2)), 0.7)


def khat(log_weights: Tensor) -> Tensor:
    """Return the generalised Pareto shape of the upper tail of each datum's weights.

    Weights with a shape above 1/2 have no finite variance, above 1 no finite mean.

    Args:
        log_weights: (K, B), nats.

    Returns:
        k-hat, (B,), in float64; infinite where fewer than five weights are in the tail, since nothing is known about it
        then; 0 where at least five draws share the largest weight: that of a discrete latent or an exact posterior,
        whose weights have a bound.

    Reference:
        Vehtari et al. (2024), Pareto Smoothed Importance Sampling, section 3.

    Example:
        >>> weights = torch.rand(10_000, 1, generator=torch.Generator().manual_seed(0)) ** -0.5
        >>> khat(weights.log())  # exactly Pareto, with k = 1/2
        tensor([0.5...], dtype=torch.float64)
    """
    largest = min(tail_length(len(log_weights)) + 1, len(log_weights))
    return khat_of_tail(log_weights.double().topk(largest, dim=0).values.T, len(log_weights))


def khat_of_tail(largest: Tensor, num_samples: int) -> Tensor:
    """Return k-hat from the largest log-weights of ``num_samples``, (B, at least M + 1), in falling order."""
    size = tail_length(num_samples)
    result = largest.new_full((len(largest),), math.inf)
    if size < 5 or largest.shape[1] <= size:
        return result
    tail = largest[:, : size + 1] - largest[:, :1]
    cutoff = tail[:, size:].clamp(min=math.log(torch.finfo(tail.dtype).tiny))
    lengths = (tail > cutoff).sum(1)  # shorter than M where weights tie with the cutoff
    for length in lengths.unique().tolist():
        if length >= 5:
            rows = lengths == length
            excess = tail[rows, :length].flip(1).exp() - cutoff[rows].exp()
            result[rows] = pareto_shape(excess)
    return torch.where(_has_largest(largest[:, :size]), 0.0, result)


def _has_largest(largest: Tensor) -> Tensor:
    """Whether at least five draws share the largest log-weight, to rounding, (B, M) -> (B,)."""
    rounding = 4 * torch.finfo(torch.float32).eps * (1 + largest[:, :1].abs())
    return (largest[:, :1] - largest <= rounding).sum(1) >= 5


def pareto_shape(excess: Tensor) -> Tensor:
    r"""Fit the generalised Pareto distribution to each row, and return its shape k.

    An empirical Bayes estimate: with :math:`k(b) = \frac1n \sum_i \log(1 - b y_i)` and the
    profile likelihood :math:`\ell(b) = n (\log(-b / k(b)) - k(b) - 1)`, b is its mean over a grid
    of quantiles of a prior, weighted by :math:`e^{\ell}`; k(b) is then drawn towards 1/2 by
    ten prior observations.

    Args:
        excess: Exceedances over the cutoff, (B, n), positive, rising along the row.

    Returns:
        Shapes, (B,).

    Reference:
        Zhang & Stephens (2009), A New and Efficient Estimation Method for the Generalized
        Pareto Distribution, equations 8 to 11; the last step from Vehtari et al. (2024), appendix G.
    """
    n = excess.shape[1]
    num_grid = 30 + math.isqrt(n)
    rows = max(1, _MAX_ELEMENTS // (n * num_grid))
    return torch.cat([_pareto_shape(part, num_grid) for part in excess.split(rows)])


def _pareto_shape(excess: Tensor, num_grid: int) -> Tensor:
    n = excess.shape[1]
    grid = torch.arange(1, num_grid + 1, dtype=excess.dtype, device=excess.device) - 0.5
    quartile = excess[:, int(n / 4 + 0.5) - 1, None]
    b = 1 / excess[:, -1:] + (1 - (num_grid / grid).sqrt()) / (3 * quartile)  # (B, grid)
    k = torch.log1p(-b[:, :, None] * excess[:, None, :]).mean(-1)
    log_likelihood = n * (torch.log(-b / k) - k - 1)
    weight = log_likelihood.nan_to_num(-math.inf).softmax(1)
    weight = torch.where(weight >= 10 * torch.finfo(excess.dtype).eps, weight, 0)
    b_mean = (b * weight).sum(1, keepdim=True) / weight.sum(1, keepdim=True)
    k = torch.log1p(-b_mean * excess).mean(1)
    return ((n * k + 10 * 0.5) / (n + 10)).nan_to_num(math.inf)
