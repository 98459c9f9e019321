"""P(Y | X) of examples by Bayes' rule: ``pyro-vae classify RUN --data FILE``."""

import time
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor

from pyro_vae.commands.arguments import Opened, on_run, run_parser
from pyro_vae.commands.cli import Parser
from pyro_vae.commands.outputs import Results, check_samples, to_csv, with_error
from pyro_vae.commands.progress import progress_bar
from pyro_vae.commands.unseen import say_trained_on
from pyro_vae.conditional import ConditionalVAE
from pyro_vae.data.labels import UNKNOWN, in_words, named
from pyro_vae.evidence.checks import check_count, check_data
from pyro_vae.evidence.result import standard_error
from pyro_vae.inference import Classes, classify, score_classes
from pyro_vae.machine.versions import versions
from pyro_vae.runs.opening import Examples

NAME = "classify"


def parser() -> Parser:
    """Return the parser."""
    parser = run_parser(
        NAME,
        "P(Y | X) of examples by Bayes' rule, from log P(X, Y) of each class of a run with --condition. "
        "Its accuracy where labels are known.",
        label=False,
    )
    parser.add_options(classify, "num_samples")
    return parser


@on_run(NAME, parser, whole=True)
def main(opened: Opened) -> None:
    """Classify examples, and leave the files in a folder."""
    args, vae = opened.args, opened.vae
    if not isinstance(vae, ConditionalVAE):
        raise ValueError(f"{opened.run} was trained without labels; train with --condition label for P(Y | X)")
    check_count(num_samples=args.num_samples)
    say_trained_on(opened.run, vae, opened.examples, args)
    facts = {"seed": args.seed, "device": str(opened.device)}
    classify_and_write(Results(opened.folder, "classes"), vae, opened.examples, args.num_samples, facts)


def classify_and_write(
    results: Results,
    vae: ConditionalVAE,
    examples: Examples,
    num_samples: int,
    facts: dict[str, Any],
) -> None:
    """Estimate log P(x, y) of all classes, write the figures and show them; ``facts`` are the seed, the device …."""
    check_data(vae.model, examples.x)
    check_samples("num_samples", num_samples)
    kind = "" if examples.split == "all" else f"{examples.split} "
    names = vae.config.class_names
    print(f"data        {examples.name}: {len(examples.x):,} {kind}examples, {len(names)} classes ({in_words(names)})")
    print(f"estimator   importance sampling, {num_samples:,} samples for each example and class, on {facts['device']}")
    start, x = time.monotonic(), examples.x.to(facts["device"])
    with progress_bar("P(Y | X)") as progress:
        found = classify(vae, x, num_samples=num_samples, seed=facts["seed"], progress=progress)
    classes = Classes(found.log_joint.cpu(), found.se.cpu(), found.khat.cpu(), num_samples)
    seconds = round(time.monotonic() - start, 3)
    summary = summarize(vae, examples, classes) | facts | {"seconds": seconds}
    results.write({f"{results.name}.csv": by_example(vae, examples, classes), f"{results.name}.json": summary})
    show(summary)
    results.conclude()


def known_labels(vae: ConditionalVAE, examples: Examples) -> Tensor | None:
    """Return the examples' labels, (N,), with -1 for what is no class of the model; None where none is known."""
    if examples.labels is None:
        return None
    y = torch.where(examples.labels < vae.num_classes, examples.labels, UNKNOWN)
    return y if bool((y != UNKNOWN).any()) else None


def summarize(vae: ConditionalVAE, examples: Examples, classes: Classes) -> dict[str, Any]:
    """Return the figures of the whole set: nats per example, with standard errors over examples."""
    y = known_labels(vae, examples)
    figures = {"log_evidence": classes.log_evidence}
    if y is not None:
        joint, given = log_joint_and_given(vae, classes, y)
        figures |= {"log_evidence_given_label": given[y != UNKNOWN], "log_joint": joint[y != UNKNOWN]}
    trusted = classes.khat.gather(1, classes.label[:, None])[:, 0] < classes.threshold
    summary: dict[str, Any] = {
        "split": examples.split,
        "data": examples.name,
        "pixels": vae.config.pixels,
        "num_examples": len(examples.x),
        "num_classes": vae.num_classes,
        "classes": list(vae.config.class_names),
        "num_samples": classes.num_samples,
        "estimator": "importance",
    }
    for name, values in figures.items():
        summary |= {name: values.mean().item(), f"{name}_se": standard_error(values)}
    scores = None if y is None else score_classes(classes.log_probs, y)
    if scores is not None:
        summary["classification"] = asdict(scores)
    protocol = (
        f"log P(X, Y) of each class: log of the mean of K = {classes.num_samples} importance weights drawn from the "
        "encoder's q(z|x, y), in expectation a lower bound; log P(X) is their log-sum-exp, P(Y|X) their ratios; mean "
        "and standard error over examples"
    )
    return summary | {
        "khat_above_threshold": (~trusted).double().mean().item(),
        "units": "nats per example",
        "protocol": protocol,
        "versions": versions(),
    }


def log_joint_and_given(vae: ConditionalVAE, classes: Classes, y: Tensor) -> tuple[Tensor, Tensor]:
    """Return log P(x, y) and log P(x | y) of each example with its label, (N,) each; NaN where that is unknown."""
    at = y.clamp(min=0)
    joint = classes.log_joint.gather(1, at[:, None])[:, 0].masked_fill(y == UNKNOWN, torch.nan)
    return joint, joint - vae.class_probs.cpu().double().log()[at]


def by_example(vae: ConditionalVAE, examples: Examples, classes: Classes) -> str:
    """Return a row for each example, in their order, as CSV."""
    names = vae.config.class_names
    columns: dict[str, Any] = {"index": torch.arange(len(examples.x)), "predicted": named(classes.label, names)}
    y = known_labels(vae, examples)
    if y is not None:
        columns["label"] = named(y, names)
    columns |= {f"p_{name}": column for name, column in zip(names, classes.log_probs.exp().T, strict=True)}
    columns["log_evidence"] = classes.log_evidence
    if y is not None:
        columns["log_joint"], columns["log_evidence_given_label"] = log_joint_and_given(vae, classes, y)
    at = classes.label[:, None]
    columns |= {"se": classes.se.gather(1, at)[:, 0], "khat": classes.khat.gather(1, at)[:, 0]}
    return to_csv(columns)


def show(summary: dict[str, Any]) -> None:
    """Print the figures."""

    def figure(name: str) -> str:
        return with_error(summary[name], summary[f"{name}_se"])

    if "log_evidence_given_label" in summary:
        print(f"log P(X|Y)  {figure('log_evidence_given_label')} nats per example, of each example's own class")
        print(f"log P(X, Y) {figure('log_joint')}")
    print(f"log P(X)    {figure('log_evidence')} nats per example, summed over the classes")
    found = summary.get("classification")
    if found is not None:
        right = with_error(100 * found["accuracy"], 100 * found["accuracy_se"])
        log_score = with_error(found["log_score"], found["log_score_se"], 3)
        print(
            f"P(Y|X)      right in {right} % of {found['num_examples']:,} examples; log P(Y|X) {log_score} "
            f"nats; calibration error {found['calibration_error']:.3f}"
        )
    if summary["khat_above_threshold"]:
        part = 100 * summary["khat_above_threshold"]
        print(f"k-hat       of the likeliest class not below its threshold in {part:.0f} %: more --num_samples")
