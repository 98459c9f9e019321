"""Anomaly scores: how unlikely a datum is, and how unusual that would be among normal data."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pyro_vae.data.arrays import ShowsShapes
from pyro_vae.evidence import Evidence, log_evidence
from pyro_vae.evidence.result import concatenate, rows_of
from pyro_vae.program import Data, arguments, as_data, as_program, num_data


@dataclass(frozen=True, repr=False)
class Scores(ShowsShapes):
    """How N data compare with n held-out ones.

    Attributes:
        evidence: log P(x) of the data, with error and diagnostics, (N,) each, nats.
        held_out: log P(x) of the held-out data, by the same estimator, (n,) each, nats.
        p_value: The conformal p-value of each datum, (N,): small where it is unlike the held-out data.
        rank: 1 for the datum with the smallest p-value, and among equal ones the smallest log P(x), (N,).
    """

    evidence: Evidence
    held_out: Evidence
    p_value: Tensor
    rank: Tensor


def score(
    model: Any,
    guide: Any,
    x: Data | None = None,
    *,
    held_out: Data,
    two_sided: bool = False,
    num_samples: int = 200,
    chunk_size: int | None = None,
    seed: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Scores:
    r"""Estimate log P(x) of each datum, and how often normal data would be as unlikely.

    Data and held-out data go through one and the same estimator. So if a datum comes from where the held-out data
    come from, its p-value is valid whatever the quality of the model and the estimate, which decide its power alone.
    Not so of data that the model was trained on, which it knows too well: see :func:`pyro_vae.training.cross_fit`.

    Args:
        model: A Pyro model of ``x``, or a :class:`pyro_vae.VAE` followed by ``x`` alone.
        guide: Its guide, or any proposal over the same sites. One that is fitted to data, such as
            :func:`pyro_vae.evidence.refined` returns, is to be fitted to both kinds of them.
        x: Data, (N, ...), or a tuple of tensors with a row for each datum, passed as ``model(*x)``.
        held_out: Normal data, (n, ...), that the model was not trained on.
        two_sided: Whether a datum that is too likely is as unusual as one that is too unlikely.
        num_samples: K, for each datum.
        chunk_size: The most (datum, sample) pairs decoded at once.
        seed: Of the noise; by default it follows torch's global generator.
        progress: Called with the number of data done, and of all, held-out ones included.

    Returns:
        The scores.

    Raises:
        ValueError: As :func:`pyro_vae.log_evidence`.

    Reference:
        Bates et al. (2023), Testing for Outliers with Conformal p-values, section 1.2; Nalisnick et al. (2019), Do
        Deep Generative Models Know What They Don't Know?, for why to look at both sides.

    Example:
        >>> from pyro_vae.evidence import LinearGaussian
        >>> normal = LinearGaussian(torch.ones(3, 1), scale=torch.ones(3))
        >>> held_out = torch.linspace(-2, 2, 99).unsqueeze(1).expand(-1, 3)
        >>> score(normal.model, normal.guide, torch.tensor([[0.05] * 3, [9.0] * 3]), held_out=held_out).p_value
        tensor([0.9700, 0.0100], dtype=torch.float64)
    """
    model, guide, x = as_program(model, guide, x)
    held_out = as_data(model, held_out, "held_out")
    pairs = list(zip(arguments(held_out), arguments(x), strict=True))
    for normal, given in pairs:
        if normal.shape[1:] != given.shape[1:]:
            raise ValueError(
                f"held_out has rows of shape {tuple(normal.shape[1:])}, but x of {tuple(given.shape[1:])}; "
                "both must be data of the model"
            )
    # In one call, so that nothing but where they come from tells one kind of data from the other.
    stacked = tuple(torch.cat(pair) for pair in pairs)
    both = log_evidence(
        model,
        guide,
        stacked if isinstance(x, tuple) else stacked[0],
        num_samples=num_samples,
        chunk_size=chunk_size,
        seed=seed,
        progress=progress,
    )
    first = num_data(held_out)
    of_held_out, of_x = rows_of(both, slice(first)), rows_of(both, slice(first, None))
    p_value = conformal_p_value(of_x.log_evidence, of_held_out.log_evidence, two_sided=two_sided)
    return Scores(of_x, of_held_out, p_value, _rank(p_value, of_x))


def join_scores(parts: Sequence[tuple[Scores, Tensor]]) -> Scores:
    """Join the scores of parts of the data that were each scored by a model of its own, as after cross-fitting.

    The p-value of each datum stays what it is, since held-out data were scored by the same model. The held-out
    estimates are the means over the models, with the largest k-hat.

    Args:
        parts: Scores, and which of all data they are of.
    """
    order = torch.cat([rows for _, rows in parts]).argsort()
    evidence = rows_of(concatenate([scores.evidence for scores, _ in parts]), order)
    held_out = _mean([scores.held_out for scores, _ in parts])
    p_value = torch.cat([scores.p_value for scores, _ in parts])[order]
    return Scores(evidence, held_out, p_value, _rank(p_value, evidence))


def _mean(evidences: Sequence[Evidence]) -> Evidence:
    """Return the mean over models of estimates for the same data."""
    stacked = {name: torch.stack([getattr(e, name) for e in evidences]) for name in ("log_evidence", "ess", "elbo")}
    return Evidence(
        **{name: values.mean(0) for name, values in stacked.items()},
        se=torch.stack([e.se for e in evidences]).square().sum(0).sqrt() / len(evidences),
        khat=torch.stack([e.khat for e in evidences]).amax(0),
        num_samples=evidences[0].num_samples,
    )


def _rank(p_value: Tensor, evidence: Evidence) -> Tensor:
    """Return 1 for the smallest p-value, and among equal ones for the smallest log P(x), and so on."""
    by_evidence = evidence.log_evidence.argsort(stable=True)
    order = by_evidence[p_value[by_evidence].argsort(stable=True)]
    return order.argsort() + 1


def conformal_p_value(scores: Tensor, held_out: Tensor, *, two_sided: bool = False) -> Tensor:
    r"""Return how often a score as low as each of these comes about among normal data.

    .. math:: p = \frac{1 + \#\{i : s_i \le s\}}{n + 1}

    over held-out scores :math:`s_i`. For a datum exchangeable with them, :math:`P(p \le \alpha) \le \alpha`,
    and p is uniform on its n + 1 values where scores are never equal; equal ones count against an anomaly.
    P-values of many data share the held-out ones and so are dependent, but so that the false discovery rate by
    Benjamini and Hochberg's procedure is controlled.

    Args:
        scores: Of the data, (N,); low is unusual.
        held_out: Of the held-out data, (n,).
        two_sided: Take twice the smaller of the p-values for low and for high scores, at most 1.

    Returns:
        P-values, (N,), float64, from 1 / (n + 1) to 1.

    Reference:
        Bates et al. (2023), Testing for Outliers with Conformal p-values, sections 1.2 and 2.

    Example:
        >>> conformal_p_value(torch.tensor([0.0, 2.5]), torch.tensor([1.0, 2.0, 3.0]))
        tensor([0.2500, 0.7500], dtype=torch.float64)
    """
    at_most = 1 + torch.searchsorted(held_out.sort().values, scores.contiguous(), right=True)
    p = at_most.double() / (len(held_out) + 1)
    if not two_sided:
        return p
    return (2 * torch.minimum(p, conformal_p_value(-scores, -held_out))).clamp(max=1)


def auroc(anomalous: Tensor, normal: Tensor) -> tuple[float, float]:
    r"""Return the area under the ROC curve, and its standard error, of scores that are low for anomalies.

    .. math:: \mathrm{AUROC} = P(s_{\mathrm{anomalous}} < s_{\mathrm{normal}})
        + \tfrac12 P(s_{\mathrm{anomalous}} = s_{\mathrm{normal}})

    Args:
        anomalous: Scores of anomalies, (M,).
        normal: Scores of normal data, (N,).

    Returns:
        The area, and its standard error over data of both kinds; infinite where there is a single one of a kind.

    Reference:
        DeLong, DeLong & Clarke-Pearson (1988), Comparing the areas under two or more correlated receiver operating
        characteristic curves, section 2.

    Example:
        >>> area, _ = auroc(torch.tensor([0.0, 2.0]), torch.tensor([1.0, 3.0, 4.0]))
        >>> round(area, 3)  # five of six pairs are in order
        0.833
    """
    above = 1 - _fraction_below(normal, anomalous)  # of the normal scores, those above each anomalous one: (M,)
    below = _fraction_below(anomalous, normal)  # (N,)
    if min(len(above), len(below)) < 2:
        return above.mean().item(), math.inf
    return above.mean().item(), (above.var() / len(above) + below.var() / len(below)).sqrt().item()


def _fraction_below(values: Tensor, thresholds: Tensor) -> Tensor:
    """Return the part of the values below each threshold, half of those equal to it included."""
    ordered, thresholds = values.sort().values, thresholds.contiguous()
    counts = [torch.searchsorted(ordered, thresholds, right=right) for right in (False, True)]
    return (counts[0] + counts[1]).double() / (2 * len(values))
