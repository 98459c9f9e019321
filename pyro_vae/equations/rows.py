"""A row of the check: an equation, its two sides, and whether they agree."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

ROUNDING = 1e-10  # the largest relative difference between two exact values
STANDARD_ERRORS = 4.0  # the largest difference of an estimate; of 100,000 correct rows 6 lie further out


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


@dataclass(frozen=True)
class Estimate:
    """Values, one for each datum, and their standard errors; sums take the errors for independent."""

    value: Tensor
    se: Tensor

    def __add__(self, other: "Estimate") -> "Estimate":
        """Add the values, and the squares of the errors."""
        return Estimate(self.value + other.value, torch.hypot(self.se, other.se))

    def __sub__(self, other: "Estimate") -> "Estimate":
        """Subtract the values, and add the squares of the errors."""
        return Estimate(self.value - other.value, torch.hypot(self.se, other.se))

    @property
    def error(self) -> "Estimate":
        """Nothing but the error: to be added where the value was used before."""
        return Estimate(torch.zeros_like(self.value), self.se)


def exactly(value: Tensor) -> Estimate:
    """An exact value."""
    return Estimate(value.detach(), torch.zeros_like(value))


def mean(values: Tensor) -> Estimate:
    """The mean over draws, the first dimension."""
    return Estimate(values.mean(0), values.std(0) / math.sqrt(len(values)))


def log_mean_exp(log_weights: Tensor) -> Estimate:
    """The logarithm of the mean over draws, the first dimension."""
    value = log_weights.logsumexp(0) - math.log(len(log_weights))
    return Estimate(value, with_bias(mean((log_weights - value).exp()).se))


def with_bias(se: Tensor) -> Tensor:
    """The root mean square error of the logarithm of a mean, which is too low by about se^2 / 2."""
    return torch.hypot(se, se.square() / 2)


def exact(equation: str, left: Tensor, right: Tensor, note: str = "", *, rounding: Tensor | float = 0.0) -> Row:
    """Compare two exact values, element by element."""
    difference = (left - right).abs().max().item()
    allowed = ROUNDING * max(1.0, left.abs().max().item()) + float(rounding)
    verdict = "pass" if difference <= allowed else "FAIL"
    return Row(equation, left.mean().item(), right.mean().item(), difference, 0.0, verdict, note)


def estimated(equation: str, left: Estimate, right: Estimate, note: str = "") -> Row:
    """Compare two independent estimates, on average over the data."""
    return _of_estimates(equation, left, right, note)


def paired(equation: str, draws: Tensor, note: str = "") -> Row:
    """Compare two estimates, (K, 2), whose draws have their noise in common."""
    left, right = draws.mean(0)
    return _of_estimates(equation, Estimate(left, mean(draws[:, 0] - draws[:, 1]).se), exactly(right), note)


def at_most(equation: str, left: Estimate, right: Estimate, note: str = "") -> Row:
    """Check that the left side is the smaller one."""
    return _of_estimates(equation, left, right, note, one_sided=True)


def measured(equation: str, left: Tensor, right: Tensor, why: tuple[str, str]) -> Row:
    """Set two figures side by side, (K,) draws of each with their noise in common, and say why one is smaller."""
    estimate = mean(left - right)
    difference, se = estimate.value.item(), estimate.se.item()
    if abs(difference) <= 2 * se:
        note = "no difference seen"
    elif difference < 0:
        note = f"the left one is {right.mean() / left.mean():.3g} times smaller: {why[0]}"
    else:
        note = f"the right one is {left.mean() / right.mean():.3g} times smaller: {why[1]}"
    return Row(equation, left.mean().item(), right.mean().item(), difference, se, "measured", note)


def not_applicable(equations: list[str], reason: str) -> list[Row]:
    """Say of some equations that they do not apply, and why."""
    return [Row(equation, None, None, None, None, "not applicable", reason) for equation in equations]


def _of_estimates(equation: str, left: Estimate, right: Estimate, note: str, *, one_sided: bool = False) -> Row:
    of_each = left - right
    difference = of_each.value.mean().item()
    se = of_each.se.square().sum().sqrt().item() / of_each.se.numel()
    verdict = "pass" if (difference if one_sided else abs(difference)) <= STANDARD_ERRORS * se else "FAIL"
    return Row(equation, left.value.mean().item(), right.value.mean().item(), difference, se, verdict, note)
