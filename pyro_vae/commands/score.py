"""Score how unusual examples are: ``pyro-vae score RUN --data FILE``."""

import re
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from jsonargparse import Namespace
from torch import Tensor

from pyro_vae import data, plotting
from pyro_vae.commands.arguments import (
    Opened,
    add_proposal_argument,
    on_run,
    options_of,
    proposal_name,
    propose,
    run_parser,
)
from pyro_vae.commands.cli import Parser
from pyro_vae.commands.outputs import Results, beside, check_samples, to_csv, with_error, without_impossible
from pyro_vae.commands.progress import progress_bar
from pyro_vae.commands.unseen import models_for, trained_on
from pyro_vae.commands.unusual import Unusual, columns_csv, look_at_columns, named_columns, words
from pyro_vae.data.files import read_cells
from pyro_vae.evidence import khat_threshold
from pyro_vae.evidence.checks import check_count, check_data
from pyro_vae.inference import Scores, auroc, conformal_p_value, join_scores, score
from pyro_vae.machine.files import finite
from pyro_vae.machine.reading import check_file
from pyro_vae.machine.versions import versions
from pyro_vae.runs.opening import Examples, read_examples
from pyro_vae.vae import VAE

NAME = "score"
ABOVE = 3.0  # standard errors by which data have to be likelier than held-out ones to be told so


def parser() -> Parser:
    """Return the parser."""
    description = "Score how unusual each example is: log P(X), and its p-value against held-out normal data."
    parser = run_parser(NAME, description)
    add = parser.add_argument
    add(
        "--against",
        type=Literal["test", "validation"] | None,
        help="Which of the run's data are the held-out normal ones. Default: test; with --split test: validation.",
    )
    parser.add_options(score, "num_samples", "two_sided")
    add_proposal_argument(parser)
    add("--level", type=float, default=0.05, help="Flag where the p-value is at most this.")
    add("--fdr", action="store_true", help="Let the level bound the false ones among all flagged (Benjamini-Hochberg).")
    add(
        "--cross_fit",
        type=int | None,
        metavar="K",
        help="Score examples that the run was trained on by models that did not see them: train K with the run's "
        "options, each without a part of its training data.",
    )
    add(
        "--num_explained",
        type=int,
        default=20,
        help="Of how many of the most unusual rows of a table, such as are flagged, to say which columns make them so.",
    )
    add(
        "--anomalies",
        type=str | None,
        help="Which are known to be anomalies, for the AUROC: a .npy or .csv file with 0 or 1 for each example, or the "
        "labels of anomalies, such as 7 or 3,7.",
    )
    return parser


@on_run(NAME, parser)
def main(opened: Opened) -> None:
    """Score examples, and leave the files in a folder."""
    args, vae, device, examples = opened.args, opened.vae, opened.device, opened.examples
    held_out = read_examples(opened.run, vae, split=_against(args, examples), some=True)
    anomalous = None if args.anomalies is None else read_anomalies(args.anomalies, examples, args.max_examples)
    check_options(args, len(held_out.x))
    for x in (examples.x, held_out.x):
        check_data(vae.model, x)
    print(f"data        {examples.name}: {len(examples.x):,} {_kind(examples)}examples")
    print(f"held out    {held_out.name}: {len(held_out.x):,} {_kind(held_out)}examples, taken as normal")
    if examples.x.isnan().any() or held_out.x.isnan().any():
        print("blanks      log P(X) is that of the observed values: compare examples with blanks alike only")
    print(f"estimator   importance sampling, {args.num_samples:,} samples for each, {proposal_name(args)}, on {device}")
    start, x, normal = time.monotonic(), opened.x(), held_out.x.to(device)
    seen = trained_on(opened.run, vae, examples, args)
    for line in _seen(seen, args):
        print(line)
    parts = [(vae, torch.arange(len(x)))]
    if args.cross_fit is not None and seen is not None and (seen >= 0).any():
        parts = models_for(opened, seen, args.cross_fit)
    each = [(run_score(model, x[rows], normal, args), rows) for model, rows in parts]
    scores = each[0][0] if len(each) == 1 else join_scores(each)
    summary = summarize(scores, examples, held_out, anomalous, args)
    unusual = None
    if opened.names is not None:
        how = {"num_flagged": summary["flagged"], "most": args.num_explained, "names": opened.names}
        unusual = look_at_columns(parts, x, scores.rank.argsort(), **how, seed=args.seed + 2)
    summary |= {"num_trained_on": None if seen is None else int((seen >= 0).sum()), "cross_fit": args.cross_fit}
    summary |= {"device": str(device), "seconds": round(time.monotonic() - start, 3)}
    columns = by_example(scores, examples, anomalous, args)
    if seen is not None:
        columns["trained_on"] = (seen >= 0).long()
    files: dict[str, Any] = {"scores.json": summary}
    if unusual is not None:
        columns["columns"] = named_columns(unusual, len(x))
        files["columns.csv"] = columns_csv(unusual)
    files["scores.csv"] = to_csv(beside(columns, own_columns(opened)))
    results = Results(opened.folder, "scores").write(files)
    print(*_words(scores, summary, unusual), sep="\n")
    results.conclude(lambda path: draw(path, vae, scores, examples, args))


def _seen(seen: Tensor | None, args: Namespace) -> Iterator[str]:
    """Yield what there is to say of examples that the run was trained on, line by line."""
    if seen is None:
        if args.cross_fit is not None:
            raise ValueError("--cross_fit: the run's training data are gone; bring them back, or leave it out")
        if args.data is not None:
            yield "trained on  perhaps some of these examples: the run's own data are gone"
        return
    count = int((seen >= 0).sum())
    if args.cross_fit is not None:
        what = f"{count:,} of {len(seen):,} examples" if count else "no example, since none was trained on"
        yield f"cross-fit   {what}; each by one of {args.cross_fit} models that did not see it"
    elif count:
        yield f"trained on  {count:,} of {len(seen):,} examples: the model knows them too well, their p-values are too"
        yield "            large; --cross_fit 5 scores each by a model that did not see it"


def own_columns(opened: Opened) -> Iterator[tuple[str, Any]]:
    """Yield the columns of the user's table, by name: of a .csv file as they stand there."""
    examples, data_file = opened.examples, opened.args.data
    if opened.names is None:
        return
    if (table := opened.vae.config.table) is not None:
        frame = table.decode(examples.x) if examples.frame is None else examples.frame
        yield from ((name, frame[name].tolist()) for name in frame.columns)
        return
    if examples.rows is None or Path(data_file).suffix.lower() != ".csv":
        yield from zip(opened.names, examples.x.T, strict=True)
        return
    names, lines = read_cells(Path(data_file))
    cells = [lines[row] for row in examples.rows.tolist()]
    for d, name in enumerate(names or opened.names):
        yield name, [line[d] for line in cells]


def _against(args: Namespace, examples: Examples) -> Literal["test", "validation"]:
    against: Literal["test", "validation"] = args.against or ("validation" if examples.split == "test" else "test")
    if against == examples.split:
        raise ValueError(f"--against {against}: these are the very examples to score; name the other of the two")
    return against


def _kind(examples: Examples) -> str:
    return "" if examples.split == "all" else f"{examples.split} "


def check_options(args: Namespace, num_held_out: int) -> None:
    """Refuse numbers that make no sense, and warn of a level that no example can reach.

    Raises:
        ValueError: Naming the option.
    """
    check_count(num_samples=args.num_samples)
    check_samples("num_samples", args.num_samples)
    if args.num_explained < 0:
        raise ValueError(f"--num_explained must be at least 0, got {args.num_explained}")
    if args.cross_fit is not None and args.cross_fit < 2:
        raise ValueError(f"--cross_fit must be at least 2, got {args.cross_fit}")
    smallest = (2 if args.two_sided else 1) / (num_held_out + 1)
    if not 0 < args.level < 1:
        raise ValueError(f"--level must be between 0 and 1, got {args.level:g}")
    if args.level < smallest:
        warnings.warn(
            f"--level {args.level:g} can't be reached: with {num_held_out:,} held-out examples no p-value is below "
            f"{smallest:.3g}, and nothing will be flagged; raise it, or train with a larger --test or --validation",
            stacklevel=2,
        )


def read_anomalies(what: str, examples: Examples, max_examples: int | None = None) -> Tensor:
    """Return which examples are anomalies, (N,) bool, from a file of 0 and 1 or by their labels.

    Raises:
        ValueError: When the file doesn't fit, or there are no such labels.
        FileNotFoundError: When there is no such file.
    """
    names, labels = what.split(","), examples.label_names
    if re.fullmatch(r"-?\d+(,-?\d+)*", what) or (labels is not None and set(names) <= {*labels.astype(str)}):
        if labels is None:
            raise ValueError(f"--anomalies {what}: {examples.name} has no labels; give a file of 0 and 1 instead")
        anomalous = torch.from_numpy(np.isin(labels.astype(str), names))
    else:
        values = _read_zeros_and_ones(what)[:max_examples]
        if len(values) != len(examples.x) or not np.isin(values, (0, 1)).all():
            raise ValueError(
                f"--anomalies {what}: expected 0 or 1 for each of the {len(examples.x):,} examples, but it holds "
                + (f"{len(values):,} values" if len(values) != len(examples.x) else "others")
            )
        anomalous = torch.from_numpy(values == 1)
    if not anomalous.any():
        raise ValueError(f"--anomalies {what}: none of the {len(examples.x):,} examples is one")
    return anomalous


def _read_zeros_and_ones(name: str) -> np.ndarray:
    path = Path(name)
    if path.suffix.lower() != ".npy":
        return data.read(name, pixels="raw").x.numpy().reshape(-1)
    check_file(path)
    try:
        values = np.load(path, mmap_mode="r", allow_pickle=False).reshape(-1)
        return np.array(values[: 2**28], dtype=np.float32)
    except (ValueError, TypeError, EOFError) as error:
        raise ValueError(
            f"--anomalies {name}: expected a .npy file of numbers: {' '.join(str(error).split())}"
        ) from None


def run_score(vae: VAE, x: Tensor, held_out: Tensor, args: Namespace) -> Scores:
    """Score data against held-out ones, with the proposal that the options name."""
    guide = propose(vae, torch.cat([held_out, x]), args)
    with progress_bar("log P(X)") as progress:
        return score(vae.model, guide, x, held_out=held_out, progress=progress, **options_of(score, args))


def called_anomalies(p_value: Tensor, args: Namespace) -> tuple[Tensor, Tensor]:
    """Return what the level is compared with, p-values or with --fdr adjusted ones, and the flags, (N,) each."""
    compared = p_value
    if args.fdr:
        from scipy.stats import false_discovery_control

        compared = torch.from_numpy(false_discovery_control(p_value.cpu().numpy(), method="bh"))
    # A level such as 0.05 may be meant to equal a p-value, such as 1 / 20, that rounding puts above it.
    return compared, compared.cpu() <= args.level * (1 + 1e-12)


def summarize(
    scores: Scores, examples: Examples, held_out: Examples, anomalous: Tensor | None, args: Namespace
) -> dict[str, Any]:
    """Return the figures of the set, as scores.json holds them."""
    given, normal = scores.evidence, scores.held_out
    likelier, likelier_se = auroc(normal.log_evidence, given.log_evidence)
    summary: dict[str, Any] = {
        "data": examples.name,
        "split": examples.split,
        "num_examples": len(examples.x),
        "held_out": held_out.split,
        "num_held_out": len(held_out.x),
        "num_samples": args.num_samples,
        "proposal": proposal_name(args),
        "log_evidence": given.mean,
        "log_evidence_se": given.mean_se,
        "held_out_log_evidence": normal.mean,
        "held_out_log_evidence_se": normal.mean_se,
        "probability_above_held_out": {"mean": likelier, "se": likelier_se},
        "khat_above_threshold": int((~given.reliable).sum()),
        "held_out_khat_above_threshold": int((~normal.reliable).sum()),
        "level": args.level,
        "fdr": args.fdr,
        "two_sided": args.two_sided,
        "flagged": int(called_anomalies(scores.p_value, args)[1].sum()),
        "auroc": None if anomalous is None else _auroc(scores, anomalous),
        "units": "nats per example",
        "protocol": _protocol(held_out, args),
        "seed": args.seed,
        "versions": versions(),
    }
    return finite(summary)


def _auroc(scores: Scores, anomalous: Tensor) -> dict[str, Any]:
    """Compare known anomalies with the normal ones among the examples, or where there are none with the held-out."""
    anomalous = anomalous.to(scores.p_value.device)
    given, held_out = scores.evidence.log_evidence, scores.held_out.log_evidence
    result: dict[str, Any] = {"num_anomalies": int(anomalous.sum()), "normal": "examples"}
    two_sided = conformal_p_value(given, held_out, two_sided=True)
    normal = {"log_evidence": given[~anomalous], "two_sided": two_sided[~anomalous]}
    if anomalous.all():
        result["normal"] = "held out"
        normal = {"log_evidence": held_out, "two_sided": conformal_p_value(held_out, held_out, two_sided=True)}
    result["num_normal"] = len(normal["log_evidence"])
    for name, of_anomalies in (("log_evidence", given[anomalous]), ("two_sided", two_sided[anomalous])):
        area, se = auroc(of_anomalies, normal[name])
        result[name] = {"auroc": area, "se": se}
    return result


def _protocol(held_out: Examples, args: Namespace) -> str:
    sides = "twice the smaller of both sides' p-values" if args.two_sided else "one-sided"
    flags = "Benjamini-Hochberg over all examples" if args.fdr else "each example by itself"
    return (
        f"log of the mean of K = {args.num_samples} importance weights, {proposal_name(args)} proposal, held-out and "
        f"given examples alike; conformal p-value (1 + #[held-out score <= score]) / (n + 1) against the "
        f"{held_out.split} examples, {sides}, ties counted against an anomaly; flags: {flags}; AUROC with DeLong's "
        "standard error"
    ) + ("" if args.cross_fit is None else f"; what was trained on, by one of {args.cross_fit} models without it")


def by_example(scores: Scores, examples: Examples, anomalous: Tensor | None, args: Namespace) -> dict[str, Any]:
    """Return a row for each example, in their order, as columns by name."""
    compared, flagged = called_anomalies(scores.p_value, args)
    columns: dict[str, Any] = {
        "index": torch.arange(len(examples.x)),
        "log_evidence": scores.evidence.log_evidence,
        "se": scores.evidence.se,
        "khat": scores.evidence.khat,
        "p_value": scores.p_value,
    }
    if args.fdr:
        columns["adjusted_p_value"] = compared
    columns |= {"rank": scores.rank, "flag": flagged.long()}
    if examples.label_names is not None:
        columns["label"] = examples.label_names
    if anomalous is not None:
        columns["anomaly"] = anomalous.long()
    return columns


def draw(path: Path, vae: VAE, scores: Scores, examples: Examples, args: Namespace) -> None:
    """Draw the picture."""
    shape = vae.config.x_shape
    plotting.scores(
        scores.evidence.log_evidence.cpu().numpy(),
        scores.held_out.log_evidence.cpu().numpy(),
        path,
        p_value=scores.p_value.cpu().numpy(),
        flagged=called_anomalies(scores.p_value, args)[1].numpy(),
        order=scores.rank.argsort().cpu().numpy(),
        title=f"{Path(examples.name).name} against held-out data (K = {args.num_samples:,}, {proposal_name(args)})",
        images=examples.x.reshape(-1, *shape[1:]).numpy() if len(shape) == 3 else None,
    )


def _words(scores: Scores, summary: dict[str, Any], unusual: Unusual | None) -> Iterator[str]:
    """Yield what the figures say, line by line."""
    count, normal = summary["num_examples"], summary["num_held_out"]
    for name, what, of in (("log P(X)", "", scores.evidence), ("  held out", "held_out_", scores.held_out)):
        figure = with_error(of.mean, summary[f"{what}log_evidence_se"])
        yield f"{name:<12}{figure} nats per example (in expectation a lower bound)"
        yield from without_impossible(of.log_evidence)
    level = summary["level"]
    bounded = "the normal ones among them" if summary["fdr"] else "those of normal data"
    yield f"flagged     {summary['flagged']:,} of {count:,} at level {level:g}, which in expectation bounds {bounded},"
    yield "            where normal data are distributed as the held-out ones are"
    order = scores.rank.argsort()[:5].tolist()
    some = ", ".join(f"{i} (p = {scores.p_value[i].item():.2g})" for i in order)
    yield f"unusual     index {some}; the smallest possible p is {(1 + summary['two_sided']) / (normal + 1):.2g}"
    if unusual is not None:
        yield from words(unusual)
    likelier = summary["probability_above_held_out"]
    if likelier["se"] is not None and likelier["mean"] > 0.5 + ABOVE * likelier["se"]:
        yield (
            f"likelier    than a held-out example with probability {with_error(likelier['mean'], likelier['se'], 3)}: "
            "data of another kind can be, if simpler"
        )
        if not summary["two_sided"]:
            yield "            --two_sided flags what is too likely as well"
    doubtful, threshold = summary["khat_above_threshold"], khat_threshold(summary["num_samples"])
    if not scores.evidence.khat.isfinite().any():
        yield "k-hat       unknown: the weights are equal, or too few for a tail; 25 samples are needed"
    elif doubtful:
        yield (
            f"k-hat       not below {threshold:.2f} in {doubtful:,} of {count:,} examples and "
            f"{summary['held_out_khat_above_threshold']:,} of {normal:,} held-out ones; their log P(X)"
        )
        better = "more --num_samples" if summary["proposal"] == "Refined" else "--proposal Refined"
        yield f"            may be too low, which p-values allow for: try {better}"
    if summary["auroc"] is not None:
        found = summary["auroc"]
        areas = []
        for name, what in (("log_evidence", "by log P(X)"), ("two_sided", "two-sided")):
            area, se = found[name].values()
            areas.append(f"{with_error(area, se, 3)} {what}")
        kind = "" if found["normal"] == "examples" else "held-out "
        counts = f"{found['num_anomalies']:,} anomalies, {found['num_normal']:,} normal {kind}examples"
        yield f"AUROC       {', '.join(areas)}: {counts}"
