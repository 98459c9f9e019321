"""What filling blanks has come to: for each example, and in words."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from pyro_vae.commands.column_errors import ColumnErrors, column_errors
from pyro_vae.commands.outputs import some_of, unordered, with_error
from pyro_vae.evidence.result import rows_of, standard_error
from pyro_vae.inference import Imputation, MissingLogProb
from pyro_vae.vae import VAE

if TYPE_CHECKING:
    from pyro_vae.commands.impute import Task


def by_example(vae: VAE, task: "Task", filled: Imputation, scored: MissingLogProb | None) -> dict[str, Any]:
    """Return a row for each example, as columns by name."""
    columns: dict[str, Any] = {"row": task.rows, "blanks": task.x.isnan().sum(1)}
    columns |= {"filled": (~unfilled(filled)).long(), "implausible": filled.implausible.sum(1)}
    if filled.evidence is not None:
        evidence = filled.evidence
        columns |= {"log_p_observed": evidence.log_evidence, "se": evidence.se, "ess": evidence.ess}
        columns |= {"khat": evidence.khat, "reliable": evidence.reliable.long()}
    else:
        columns |= {"acceptance": filled.acceptance, "rhat": filled.rhat}
    if scored is not None:
        columns |= {"squared_error": squared_error(vae, task, filled)}
        columns |= {"log_p_missing": scored.log_prob, "log_p_missing_se": scored.se}
    return columns


def unfilled(filled: Imputation) -> Tensor:
    """Return which examples stay blank, (N,)."""
    return filled.mean.isnan().any(1)


def squared_error(vae: VAE, task: "Task", filled: Imputation) -> Tensor:
    """Return the mean squared error over the blanks of each example whose truth is known, (N,).

    Of a table, numbers are in units of their columns' scales, and what is a category counts 1 where it is wrong.
    """
    mean, truth = filled.mean.cpu(), _truth(task)
    off = (mean - truth).square()
    return (
        torch.where(unordered(vae, truth), (mean.round() != truth).where(off.isfinite(), torch.nan), off)
        .double()
        .nanmean(1)
    )


def errors_of(vae: VAE, task: "Task", filled: Imputation) -> ColumnErrors:
    """Return how far off each column of a table is where its truth is known."""
    return column_errors(vae, filled.mean.cpu(), _truth(task))


def _truth(task: "Task") -> Tensor:
    """Return what is known of the blanks, (N, D), and NaN elsewhere."""
    assert task.truth is not None
    return task.truth.where(task.x.isnan(), torch.nan)


def names_of(task: "Task") -> list[str]:
    """Return the names of a table's columns."""
    return list(task.columns or [f"column {d + 1}" for d in range(task.shape[0])])


def words(vae: VAE, task: "Task", filled: Imputation, scored: MissingLogProb | None) -> Iterator[str]:
    """Yield what there is to say, line by line."""
    none = unfilled(filled).cpu()
    if none.all():
        pass
    elif filled.evidence is not None:
        evidence = rows_of(filled.evidence, ~none)
        doubtful = int((~evidence.reliable).sum())
        yield (
            f"observed    log P(x_observed) {evidence.mean:.3f} nats per example; ESS {evidence.ess.median():.0f} in "
            f"the median, {evidence.ess.min():.0f} at least; k-hat too high in {doubtful:,} of {len(evidence.se):,}"
        )
        if doubtful:
            yield "            whose completions may be too alike: try more --num_samples, or more --num_starts"
    else:
        assert filled.acceptance is not None
        assert filled.rhat is not None
        yield (
            f"chains      accepted {filled.acceptance.mean():.1%}; R-hat {filled.rhat.nanmedian():.2f} in the median, "
            f"{filled.rhat[~none].max():.2f} at most"
        )
    if scored is not None:
        yield from _scores(vae, task, filled, scored)
    for rows, why in (
        (task.rows[none].tolist(), "the model gives what they observe no density; look for values far out of range"),
        (task.unlabelled, "without a label that the run knows; name their class with --label"),
    ):
        if rows:
            yield f"left blank  row {some_of(rows)}: {why}"
    marked = filled.implausible.any(1)
    if marked.any():
        names = None if len(task.shape) == 3 else names_of(task)
        where = "" if names is None else f" of {some_of([names[d] for d in filled.implausible.any(0).nonzero()])}"
        yield (
            f"implausible {int(filled.implausible.sum()):,} values{where} in row "
            f"{some_of(task.rows[marked.cpu()].tolist())}: far beyond other data and draws from the model"
        )


def _scores(vae: VAE, task: "Task", filled: Imputation, scored: MissingLogProb) -> Iterator[str]:
    if len(task.shape) == 3:
        yield f"truth       mean squared error {(filled.mean.cpu() - _truth(task)).square().nanmean():.4g} per pixel"
    else:
        yield from errors_of(vae, task, filled).words("truth", names_of(task))
    known = scored.log_prob.isfinite() & ~_truth(task).isnan().all(1).to(scored.log_prob.device)
    log_prob, se = scored.log_prob[known], scored.se[known]
    figure = with_error(log_prob.mean().item(), standard_error(log_prob), 3)
    monte_carlo = se.square().sum().sqrt().item() / max(len(se), 1)
    yield f"            log P(x_missing|x_observed) {figure} nats per example (Monte Carlo {monte_carlo:.3f})"
