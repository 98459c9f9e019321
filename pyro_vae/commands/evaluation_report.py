"""What an evaluation says: figures of the set and of each example, for people, for scripts and for ArviZ."""

import math
import sys
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text
from torch import Tensor

from pyro_vae import plotting
from pyro_vae.commands.outputs import to_csv, with_error, without_impossible
from pyro_vae.data.pixels import TEST_SEED, VALIDATION_SEED
from pyro_vae.evidence import Evidence, arviz, khat_threshold
from pyro_vae.evidence.result import standard_error
from pyro_vae.likelihoods.bits import bits_per_dimension
from pyro_vae.machine.files import finite
from pyro_vae.machine.memory import largest
from pyro_vae.machine.reading import read_columns, read_json
from pyro_vae.machine.versions import versions
from pyro_vae.program import Program
from pyro_vae.runs.opening import Examples
from pyro_vae.vae import VAE

ARVIZ_EXAMPLES, ARVIZ_DRAWS, ARVIZ_ELEMENTS = 24, 100, 2**21  # so much in evaluation.nc, unless more are wanted
CURVE_EXAMPLES = 100  # at most so many are behind the plot of the bound against K
# What has to agree for two estimates to be compared.
PROTOCOL = ("estimator", "proposal", "num_samples")
EARLIER: dict[str, Any] = dict.fromkeys(("split", "estimator", "proposal"), (str,))
EARLIER |= dict.fromkeys(("num_examples", "num_samples"), (int,))
LOWEST = 0.01  # the quantile below which an example of the user's own is called unlikely


@dataclass(frozen=True)
class Estimate:
    """Evidence for each of the data ``x``, (N, D), and what belongs beside it.

    Attributes:
        estimator: "importance", "ais" or "bidirectional".
        options: Those of the estimator, and of the proposal.
        x: The data: those of the user, or simulated from the model.
        result: The estimates of log P(x).
        elbo: The encoder's ELBO, (N,): with another proposal, ``result.elbo`` is that one's.
        proposal: The guide that was sampled from; of AIS, the encoder.
        upper: Upper bounds on log P(x), (N,), where there are any.
    """

    estimator: str
    options: Mapping[str, Any]
    x: Tensor
    result: Evidence
    elbo: Tensor
    proposal: Program
    upper: Tensor | None = None


def summarize(
    vae: VAE, examples: Examples, estimate: Estimate, compared: dict[str, Any] | None = None
) -> dict[str, Any]:
    """Return the figures of the whole set. What is not finite, or not known, is None.

    Args:
        vae: The model.
        examples: What was asked for.
        estimate: What came out.
        compared: Of the user's own data, what :func:`reference` says.
    """
    result, config = estimate.result, vae.config
    options = {name: value for name, value in estimate.options.items() if value is not None}
    num_samples = options.pop("num_samples", options.get("num_chains"))
    summary: dict[str, Any] = {
        "split": examples.split,
        "data": examples.name,
        "pixels": config.pixels,
        "num_examples": len(estimate.x),
        "num_samples": num_samples,
        "estimator": estimate.estimator,
        **options,
        "log_evidence": result.mean,
        "log_evidence_se": result.mean_se,
        "log_evidence_mc_se": result.mean_mc_se,
        "elbo": estimate.elbo.mean().item(),
        "elbo_se": standard_error(estimate.elbo),
        "gap": (result.log_evidence - estimate.elbo).mean().item(),
        "num_impossible": int((~result.log_evidence.isfinite()).sum()),
        "ess": {"median": result.ess.median().item(), "min": result.ess.min().item()},
        "khat": _khat(result),
    }
    if estimate.upper is not None:
        gap = estimate.upper - result.log_evidence
        summary["upper_bound"] = {"mean": estimate.upper.mean().item(), "se": standard_error(estimate.upper)}
        summary["bounds_gap"] = {"mean": gap.mean().item(), "se": standard_error(gap), "max": gap.max().item()}
    if estimate.estimator == "importance":
        summary["proposal_elbo"] = result.elbo.mean().item()
        summary["max_num_samples"] = int(result.num_samples.max())  # that were drawn
        if options.keys() & {"target_se", "target_khat"}:
            summary["failed"] = result.failed.tolist()
    if examples.split != "simulated" and config.levels and config.pixels in ("levels", "dequantized"):
        levels = config.levels if config.pixels == "dequantized" else None
        bits = bits_per_dimension(result.log_evidence, estimate.x[0].numel(), levels)
        summary["bits_per_dimension"] = {"mean": bits.mean().item(), "se": standard_error(bits)}
    if examples.split == "all":
        summary["reference"] = compared
    summary |= {
        "units": "nats per example",
        "protocol": _protocol(summary),
        "versions": versions(),
    }
    return finite(summary)


def _khat(result: Evidence) -> dict[str, float | None]:
    """Summarize k-hat, of which nothing is known where there are too few weights for a tail."""
    if result.khat.isinf().all():
        return {"median": None, "max": None, "fraction_above_threshold": None, "threshold": None}
    return {
        "median": result.khat.median().item(),
        "max": result.khat.max().item(),
        "fraction_above_threshold": (~result.reliable).double().mean().item(),
        "threshold": khat_threshold(int(result.num_samples.min())),
    }


def _protocol(summary: dict[str, Any]) -> str:
    if summary["estimator"] == "importance":
        how = (
            f"log of the mean of K = {summary['num_samples']} importance weights for each example, drawn from the "
            f"{summary['proposal']}{'' if summary['proposal'] == 'encoder' else ' proposal'}"
        )
        if summary["max_num_samples"] > summary["num_samples"]:
            how += f", K doubled up to {summary['max_num_samples']} where a target was missed"
    else:
        how = (
            f"log of the mean weight of {summary['num_chains']} annealed chains for each example, from the prior "
            f"through {summary['num_temperatures']} temperatures by HMC with {summary['num_leapfrog']} leapfrog steps"
        )
    parts = [how, "in expectation a lower bound"]
    if summary.get("quasi_random"):
        parts.append("quasi-random draws, of which the standard error is that of independent ones and rather too large")
    if summary["precision"] != "float32":
        parts.append(f"factors of matrix products in {summary['precision']}")
    if summary["split"] == "simulated":
        parts.append("data simulated from the model")
    elif summary["pixels"] in ("binarized", "dequantized"):
        seeds = {"train": "the evaluation's seed", "validation": f"seed {VALIDATION_SEED}"}
        parts.append(f"data {summary['pixels']} once with {seeds.get(summary['split'], f'seed {TEST_SEED}')}")
    return "; ".join([*parts, "mean and standard error over examples"])


def reference(run: Path, result: Evidence) -> dict[str, Any] | None:
    """Compare with what the run's own data got in an earlier evaluation; None if there was none."""
    try:
        earlier = read_json(run / "evaluation.json", **EARLIER)
        own = read_columns(run / "evaluation.csv", "log_evidence")["log_evidence"]
    except (OSError, ValueError):
        return None
    if earlier.get("split") not in ("test", "validation"):
        return None
    lowest = float(np.quantile(own, LOWEST, method="lower" if np.isinf(own).any() else "linear"))
    facts = {name: earlier.get(name) for name in ("split", "num_examples", *PROTOCOL)}
    return facts | {
        "quantile": LOWEST,
        "log_evidence": lowest,
        "num_below": int((result.log_evidence < lowest).sum()),
    }


def by_example(examples: Examples, estimate: Estimate, summary: dict[str, Any]) -> str:
    """Return a row for each example, in their order, as CSV."""
    result = estimate.result
    columns: dict[str, Tensor | np.ndarray] = {
        "index": torch.arange(len(estimate.x)),
        "log_evidence": result.log_evidence,
        "se": result.se,
        "ess": result.ess,
        "khat": result.khat,
        "elbo": estimate.elbo,
        "gap": result.log_evidence - estimate.elbo,
        "num_samples": result.num_samples,
    }
    if estimate.upper is not None:
        columns["upper_bound"] = estimate.upper
    if examples.label_names is not None:
        columns["label"] = examples.label_names
    if examples.split == "all":
        columns["rank"] = result.log_evidence.argsort(stable=True).argsort() + 1  # 1 is the least likely
        if summary["reference"] is not None:
            columns["unlikely"] = (result.log_evidence < summary["reference"]["log_evidence"]).long()
    return to_csv(columns)


def num_exported(vae: VAE, x: Tensor, wanted: int | None) -> int:
    """Return how many of the examples, (N, D), go into the file for ArviZ.

    Raises:
        ValueError: When so many are wanted that their draws would take more than a quarter of the memory.
    """
    each = ARVIZ_DRAWS * x[0].numel()
    if wanted is None:
        return min(ARVIZ_EXAMPLES, max(1, ARVIZ_ELEMENTS // each), len(x))
    # Of float32, or of a table of float64, in two groups, joined from parts.
    most = largest() // ((16 if vae.config.table is None else 32) * each)
    if not 0 <= wanted <= most:
        raise ValueError(f"--num_exported: expected from 0 to {most:,} examples of this size, got {wanted:,}")
    return min(wanted, len(x))


def to_netcdf(vae: VAE, estimate: Estimate, num_samples: int, seed: int, count: int) -> bytes:
    """Return posterior draws, weights and diagnostics of the first examples, as ArviZ writes them to a file."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # ArviZ 0.x announces its 1.x line
        draws = arviz.to_arviz(
            vae.model,
            estimate.proposal,
            estimate.x[:count],
            num_samples=num_samples,
            num_draws=ARVIZ_DRAWS,
            seed=seed,
        )
        return arviz.to_netcdf(draws)


def draw(path: Path, vae: VAE, estimate: Estimate, bounds: dict, summary: dict[str, Any]) -> None:
    """Draw the picture."""
    result, shape = estimate.result, vae.config.x_shape
    threshold = None
    if estimate.upper is not None:
        quality, name = estimate.upper - result.log_evidence, "gap between the bounds, nats"
    elif summary["khat"]["threshold"] is not None:
        quality, name, threshold = result.khat, "k-hat of each example", summary["khat"]["threshold"]
    else:
        quality, name = result.se, "standard error of each example, nats"
    part = result.log_evidence.isfinite().nonzero()[:CURVE_EXAMPLES, 0]
    own, own_se = result.log_evidence[part].mean().item(), result.se[part].square().mean().item() ** 0.5
    own_se /= len(result.se[part]) ** 0.5
    few = "all" if len(part) == len(result.se) else f"the first {CURVE_EXAMPLES}"
    estimator = {"importance": "estimate", "ais": "AIS", "bidirectional": "AIS, from below"}[summary["estimator"]]
    plotting.evidence(
        result.log_evidence.cpu().numpy(),
        path,
        bounds=bounds,
        level=(own, own_se, f"{estimator}, {few} examples"),
        quality=quality.cpu().numpy(),
        quality_name=name,
        doubtful=(~result.reliable if threshold else torch.zeros_like(result.reliable)).cpu().numpy(),
        threshold=threshold,
        title=f"log P(X) of {summary['num_examples']:,} examples ({_what(summary)})",
        images=estimate.x.reshape(-1, *shape[1:]).cpu().numpy() if len(shape) == 3 else None,
    )


def show(estimate: Estimate, summary: dict[str, Any]) -> None:
    """Print the figures as a table, and in words what they say."""
    result = estimate.result
    console = Console(highlight=False) if sys.stdout.isatty() else Console(width=120, color_system=None)
    table = Table(box=box.SIMPLE if console.is_terminal else None, pad_edge=False)
    for name in ("nats per example", "mean", "std. error", "smallest", "median", "largest"):
        table.add_column(name, justify="left" if name == "nats per example" else "right")
    rows = {"log P(X)": result.log_evidence, "ELBO, encoder": estimate.elbo}
    rows["KL[q(z|x) ‖ p(z|x)]"] = result.log_evidence - estimate.elbo
    if estimate.upper is not None:
        rows = {"log P(X), from above": estimate.upper, "log P(X), from below": result.log_evidence} | rows
        del rows["log P(X)"]
        rows["gap between both"] = estimate.upper - result.log_evidence
    for name, values in rows.items():
        figures = (values.mean().item(), standard_error(values), *_spread(values))
        table.add_row(Text(name), *(f"{figure:.3f}" if math.isfinite(figure) else "" for figure in figures))
    table.add_section()
    samples = "" if result.num_samples.unique().numel() > 1 else f" of {int(result.num_samples[0]):,}"
    for name, values, digits in (
        ("Monte Carlo std. error", result.se, 3),
        (f"effective samples{samples}", result.ess, 0),
        ("Pareto k-hat", result.khat, 2),
    ):
        shown = (f"{value:,.{digits}f}" if math.isfinite(value) else "unknown" for value in _spread(values))
        table.add_row(name, "", "", *shown)
    print()
    console.print(table)
    if not console.is_terminal:  # there, the frame ends in a blank line
        print()
    print(*_words(estimate, summary), sep="\n")


def _spread(values: Tensor) -> tuple[float, float, float]:
    return values.min().item(), values.median().item(), values.max().item()


def _words(estimate: Estimate, summary: dict[str, Any]) -> Iterator[str]:
    """Yield what the figures say, line by line."""
    result, khat = estimate.result, summary["khat"]
    log_evidence = with_error(result.mean, summary["log_evidence_se"])
    monte_carlo = "" if summary["log_evidence_mc_se"] is None else f", {summary['log_evidence_mc_se']:.2g} Monte Carlo"
    yield (
        f"log P(X)    {log_evidence} nats per example ({summary['num_examples']:,} examples"
        f"{monte_carlo}; in expectation a lower bound)"
    )
    yield from without_impossible(result.log_evidence)
    if "bits_per_dimension" in summary:
        bits = summary["bits_per_dimension"]
        yield f"            {with_error(bits['mean'], bits['se'], 3)} bits per dimension"
    if "bounds_gap" in summary:
        mean, most = (with_error(summary["bounds_gap"][name], digits=3) for name in ("mean", "max"))
        yield f"bounds      {mean} nats apart, at most {most}: in expectation the error of either is no larger"
    if khat["threshold"] is None:
        if summary["estimator"] == "importance":
            yield "k-hat       unknown: the weights are equal, or too few for a tail; 25 samples are needed"
    elif khat["fraction_above_threshold"] == 0:
        yield f"k-hat       below its threshold, {khat['threshold']:.2f}, in all examples: the errors can be trusted"
    else:
        worst = int(result.khat.argmax())
        remedy = "--proposal Refined"
        if summary.get("proposal") == "Refined":
            remedy = f"{'' if summary['full_rank'] else '--proposal.full_rank true, or '}more --num_samples"
        yield (
            f"k-hat       not below its threshold, {khat['threshold']:.2f}, in {int((~result.reliable).sum()):,} of "
            f"{summary['num_examples']:,} examples, most in index {worst}:\n            their log P(X) may be too low, "
            f"and its standard error can't be trusted; try {remedy}"
        )
    failed = summary.get("failed")
    if failed:
        some = ", ".join(map(str, failed[:10])) + (", …" if len(failed) > 10 else "")
        most = summary["max_num_samples"]
        yield f"target      missed by {len(failed):,} examples after {most:,} samples: index {some}"
    elif failed is not None:
        yield f"target      met by all examples, with at most {summary['max_num_samples']:,} samples"
    if summary["split"] == "all":
        order = result.log_evidence.argsort()[:5].tolist()
        least = ", ".join(f"{i} ({result.log_evidence[i].item():.1f})" for i in order)
        yield f"unlikely    the least likely are index {least}"
        if summary["reference"] is None:
            yield "            evaluate the run's test examples first (without --data) to have these compared with them"
        else:
            yield f"            {_compared(summary)}"


def _compared(summary: dict[str, Any]) -> str:
    own = summary["reference"]
    lowest = with_error(own["log_evidence"], digits=1)
    text = (
        f"{own['num_below']:,} of {summary['num_examples']:,} are below {lowest} nats, as are "
        f"{100 * own['quantile']:.0f} % of the run's {own['num_examples']:,} {own['split']} examples"
    )
    if any(own[name] != summary.get(name) for name in PROTOCOL):
        protocol = ", ".join(f"{name} {own[name]}" for name in PROTOCOL)
        text += f" (by another protocol than here: {protocol})"
    return text


def _what(summary: dict[str, Any]) -> str:
    of = {"simulated": "simulated from the model", "all": summary["data"]}
    how = f"K = {summary['num_samples']:,}, {summary['proposal']}" if "proposal" in summary else summary["estimator"]
    return f"{of.get(summary['split'], summary['data'] + ' ' + summary['split'])}; {how}"
