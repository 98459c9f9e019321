"""What an estimate of log P(X) says about itself: for each datum, and for the set."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, fields

import torch
from torch import Tensor

from pyro_vae.evidence.pareto import khat_of_tail, khat_threshold, tail_length


@dataclass(frozen=True, repr=False)
class Evidence:
    r"""Estimates of log P(X), one for each of N data, in nats.

    With weights :math:`w_k = p(x, z_k) / q(z_k | x)`, :math:`\log \hat P = \log \frac1K \sum_k w_k` is
    in expectation a lower bound that tightens with K; its bias is about :math:`-\mathrm{se}^2 / 2`.

    Attributes:
        log_evidence: :math:`\log \hat P(x)`, (N,).
        se: Its Monte Carlo standard error by the delta method, (N,); only as good as ``khat`` is low.
        ess: Effective sample size :math:`(\sum w)^2 / \sum w^2`, (N,), from 1 to K.
        khat: Pareto shape of the weights' tail, (N,); see ``reliable``.
        elbo: Mean log-weight, (N,): the evidence lower bound of the proposal that was used.
        num_samples: Samples drawn for each datum, (N,).
        failed: Data for which a wanted ``target_se`` or ``target_khat`` was not reached, indices.
    """

    log_evidence: Tensor
    se: Tensor
    ess: Tensor
    khat: Tensor
    elbo: Tensor
    num_samples: Tensor
    failed: Tensor = field(default_factory=lambda: torch.empty(0, dtype=torch.long))

    def __repr__(self) -> str:
        return f"Evidence({self})"

    @property
    def gap(self) -> Tensor:
        """KL(q || p(z|x)) = log P(x) - ELBO for each datum, (N,)."""
        return self.log_evidence - self.elbo

    @property
    def reliable(self) -> Tensor:
        """Whether k-hat is below the threshold for the number of samples, (N,)."""
        counts, where = self.num_samples.unique(return_inverse=True)
        thresholds = self.khat.new_tensor([khat_threshold(count) for count in counts.tolist()])
        return self.khat < thresholds[where]

    @property
    def mean(self) -> float:
        """Mean log P(x) over the data: nats per example."""
        return self.log_evidence.mean().item()

    @property
    def mean_se(self) -> float:
        """Standard error of ``mean`` for other data of the same kind: the spread over data, over sqrt(N)."""
        return standard_error(self.log_evidence)

    @property
    def mean_mc_se(self) -> float:
        """The part of it that more samples would remove: Monte Carlo error on these very data."""
        return self.se.square().sum().sqrt().item() / len(self.se)

    def __str__(self) -> str:
        unreliable = int((~self.reliable).sum())
        return (
            f"log P(X) = {self.mean:.3f} nats per example, over {len(self.se)} data; standard error {self.mean_se:.3f} "
            f"over data, of which {self.mean_mc_se:.3f} Monte Carlo; ELBO {self.elbo.mean().item():.3f}; "
            f"k-hat above its threshold in {unreliable} data"
        )


def standard_error(values: Tensor) -> float:
    """Return the standard error of the mean of independent values; infinite for a single one."""
    return values.std().item() / math.sqrt(len(values)) if len(values) > 1 else math.inf


def from_log_weights(log_weights: Tensor) -> Evidence:
    """Return the estimates that follow from log-weights, (K, B), nats.

    Example:
        >>> from_log_weights(torch.tensor([[0.0], [0.0]])).log_evidence
        tensor([0.], dtype=torch.float64)
    """
    running = RunningWeights(log_weights.shape[1], len(log_weights), log_weights.device)
    running.add(slice(None), log_weights)
    return running.result()


def concatenate(parts: Sequence[Evidence]) -> Evidence:
    """Join the estimates of several parts of the data."""
    return Evidence(**{f.name: torch.cat([getattr(part, f.name) for part in parts]) for f in fields(Evidence)})


def rows_of(evidence: Evidence, rows: slice | Tensor) -> Evidence:
    """Return the estimates of some of the data, without those that ``failed``."""
    return Evidence(**{f.name: getattr(evidence, f.name)[rows] for f in fields(Evidence) if f.name != "failed"})


class RunningWeights:
    """What is kept of the weights while they stream: four sums and the largest, for each datum.

    Args:
        size: Number of data, B.
        max_samples: The most samples that will be added for a datum, which decides how many of the largest to keep.
        device: Where to keep them.
    """

    def __init__(self, size: int, max_samples: int, device: torch.device):
        self.count = torch.zeros(size, dtype=torch.long, device=device)
        self.sum_log = torch.zeros(size, dtype=torch.float64, device=device)  # sum log w
        self.log_sum = torch.full_like(self.sum_log, -math.inf)  # log sum w
        self.log_sum_square = torch.full_like(self.sum_log, -math.inf)  # log sum w^2
        self.largest = self.log_sum[:, None].repeat(1, tail_length(max_samples) + 1)

    def add(self, rows: slice | Tensor, log_weights: Tensor) -> None:
        """Take in more weights, (K, B), of the data at ``rows``."""
        log_weights = log_weights.double().T  # (B, K)
        self.count[rows] += log_weights.shape[1]
        self.log_sum[rows] = torch.logaddexp(self.log_sum[rows], log_weights.logsumexp(1))
        self.log_sum_square[rows] = torch.logaddexp(self.log_sum_square[rows], (2 * log_weights).logsumexp(1))
        self.sum_log[rows] += log_weights.sum(1)
        both = torch.cat([self.largest[rows], log_weights], dim=1)
        self.largest[rows] = both.topk(self.largest.shape[1], dim=1).values

    def result(self) -> Evidence:
        """Return the estimates so far."""
        count = self.count.double()
        log_evidence = self.log_sum - count.log()
        ess = (2 * self.log_sum - self.log_sum_square).exp()
        # Var(mean w) / (mean w)^2, with the unbiased variance, is (1 / ESS - 1 / K) K / (K - 1).
        relative = (1 / ess - 1 / count).clamp(min=0) * count / (count - 1)
        khat = torch.full_like(ess, math.inf)
        for drawn in self.count.unique().tolist():
            rows = self.count == drawn
            khat[rows] = khat_of_tail(self.largest[rows], drawn)
        return Evidence(
            log_evidence=log_evidence,
            se=relative.sqrt().nan_to_num(nan=math.inf),
            ess=ess,
            khat=khat,
            elbo=self.sum_log / count,
            num_samples=self.count.clone(),
        )
