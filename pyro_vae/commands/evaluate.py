"""Estimate log P(X) of a run's data, or of your own: ``pyro-vae evaluate RUN``."""

import contextlib
import math
import re
import time
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import torch
from jsonargparse import Namespace
from torch import Tensor

from pyro_vae.commands.arguments import (
    add_proposal_argument,
    options_of,
    proposal_name,
    proposal_options,
    propose,
    read_chosen,
    refuse_unused,
    run_parser,
)
from pyro_vae.commands.classify import classify_and_write
from pyro_vae.commands.cli import Parser, command
from pyro_vae.commands.evaluation_report import (
    ARVIZ_DRAWS,
    ARVIZ_EXAMPLES,
    CURVE_EXAMPLES,
    Estimate,
    by_example,
    draw,
    num_exported,
    reference,
    show,
    summarize,
    to_netcdf,
)
from pyro_vae.commands.outputs import Results, bytes_of_datum, check_fits, check_samples
from pyro_vae.commands.progress import progress_bar
from pyro_vae.commands.unseen import say_trained_on
from pyro_vae.conditional import ConditionalVAE
from pyro_vae.evidence import Evidence, ais, bidirectional, log_evidence, log_weights, quasi_random
from pyro_vae.evidence.checks import check_count, check_data
from pyro_vae.machine.devices import bfloat16_products, check_seed, precision_on, resolve_device
from pyro_vae.machine.distributed import as_one, gathered, is_first, joined, own_share, rank
from pyro_vae.machine.files import named, write_file
from pyro_vae.machine.lock import LOCK, taken
from pyro_vae.program import Program
from pyro_vae.runs.checkpoint import identity, load
from pyro_vae.runs.folder import check_evaluation
from pyro_vae.runs.opening import Examples, load_run, size
from pyro_vae.vae import VAE

ESTIMATORS: dict[str, Callable[..., Any]] = {"importance": log_evidence, "ais": ais, "bidirectional": bidirectional}
SLOW_EXAMPLES = 100  # how many AIS takes where the user doesn't say
ELBO_SAMPLES = 100  # for each example, where the estimate itself doesn't give the encoder's ELBO
MAX_KEPT = 5000  # samples for each example, where all are kept: in the plot of the bound and for ArviZ


def parser() -> Parser:
    """Return the parser."""
    parser = run_parser("evaluate", "Estimate log P(X), with an error bar.", folder=False)
    add = parser.add_argument
    add(
        "--estimator",
        type=Literal[tuple(ESTIMATORS)],
        default="importance",
        help="importance: importance sampling; ais: annealed importance sampling, the slow reference, of the first 100 "
        "examples unless --max_examples says otherwise; "
        "bidirectional: bounds from both sides, on data simulated from the model.",
    )
    parser.add_options(log_evidence, "num_samples", "target_se", "target_khat", "max_num_samples")
    add_proposal_argument(parser)
    help = "Draw evenly spread samples, where the proposal is Gaussian; the errors given are then rather too large."
    add("--quasi_random", action="store_true", help=help)
    parser.add_options(ais, "num_temperatures", "num_chains", "num_leapfrog")
    add(
        "--precision",
        type=Literal["float32", "bfloat16"],
        default="float32",
        help="Of the factors of matrix products. bfloat16 is faster where the processor has it, and 8 bits exact.",
    )
    add(
        "--num_exported",
        type=int | None,
        help=f"How many examples, from the first on, go into evaluation.nc for ArviZ, with {ARVIZ_DRAWS} draws each. "
        f"Default: {ARVIZ_EXAMPLES}, or fewer if they are large; 0 leaves out the file.",
    )
    add(
        "--name",
        type=str | None,
        metavar="NAME",
        help="Write evaluation-NAME.* rather than evaluation.*; of --data: its own; of a run with "
        "--condition: classes, or the label.",
    )
    return parser


@command
def main(argv: list[str] | None = None) -> None:
    """Evaluate a run, and leave the files in its folder; several processes of ``torchrun`` share the data."""
    with joined(), contextlib.ExitStack() as stack:
        with as_one():
            args = complete(parser().parse_args(argv), given=parser().parse_args(argv, defaults=False))
            check_seed(args.seed)
            run, device = named(args.run), resolve_device(args.device)
            model = identity(run)
            whole = load(run, trust=args.trust).to(device, torch.float32)
            over_classes = isinstance(whole, ConditionalVAE) and args.label is None
            if over_classes and args.name == "evaluation":
                args.name = "evaluation-classes"  # of other columns than the others have
            if is_first():
                busy = f"--name: another process writes {run / args.name}; wait for its end, or choose another name"
                stack.enter_context(taken(run, busy, name=f".{args.name}{LOCK}"))
                check_evaluation(run, args.name, args.overwrite)
            if not over_classes:
                vae = load_run(run, args.label, trust=args.trust).to(device)
                examples = read_chosen(run, vae, args)
                if args.estimator == "bidirectional":
                    examples = replace(examples, split="simulated", labels=None)
                check_data(vae.model, examples.x)
                _check_sizes(args, vae)
                exported = num_exported(vae, examples.x, args.num_exported)
                own, begin = own_share(examples.x.to(device))
            args.precision = precision_on(device, args.precision)
        results = Results(run, args.name, "run folder", lambda: _check_same_model(run, model))
        if over_classes:
            if is_first():
                _evaluate_classes(results, run, cast(ConditionalVAE, whole), args, device)
            return
        _introduce(args, vae, examples, device)
        if is_first():
            say_trained_on(run, vae, examples, args)
        start = time.monotonic()
        try:
            with bfloat16_products() if args.precision == "bfloat16" else contextlib.nullcontext():
                estimate = evaluate(vae, own, args)
            whole_estimate = together(estimate, begin)
        except KeyboardInterrupt:
            print("stopped; nothing was written")
            raise SystemExit(130) from None
        if not is_first():
            return
        seconds = round(time.monotonic() - start, 3)
        facts = {"seed": args.seed, "device": str(device), "seconds": seconds}
        compared = reference(run, whole_estimate.result) if args.data else None
        summary = summarize(vae, examples, whole_estimate, compared) | facts
        table = by_example(examples, whole_estimate, summary)
        results.write({f"{args.name}.csv": table, f"{args.name}.json": summary})
        show(whole_estimate, summary)
        # The draws are of this process's own data, which a proposal may be fitted to.
        kept = min(args.num_samples, MAX_KEPT), args.seed
        exported = min(exported, len(estimate.x))
        if exported:
            results.add("nc", lambda path: write_file(path, to_netcdf(vae, estimate, *kept, exported)))
        if results.names[-1].endswith(".nc"):
            print(
                f"exported    the first {exported:,} of {len(examples.x):,} examples to {results.names[-1]}, for ArviZ "
                "(--num_exported)"
            )
        results.conclude(lambda path: draw(path, vae, whole_estimate, bound_against_k(vae, estimate, *kept), summary))


def _check_same_model(run: Path, model: tuple[int, ...]) -> None:
    """Refuse to leave an evaluation in a run whose model is another one by now."""
    if identity(run) != model:
        raise ValueError(f"{run} was trained again in the meantime, and its model is another one; nothing was written")


def _evaluate_classes(results: Results, run: Path, vae: ConditionalVAE, args: Namespace, device: torch.device) -> None:
    """Evaluate a conditional run for all classes: log P(X | Y), log P(X) and P(Y | X)."""
    asked = ("proposal", "quasi_random", "target_se", "target_khat", "num_exported")
    if args.estimator != "importance" or any(args[name] for name in asked):
        raise ValueError(
            "--label: over all classes there is only importance sampling with the encoder; name one class with --label "
            "for other estimators, proposals, targets and a file for ArviZ"
        )
    examples = read_chosen(run, vae, args)
    say_trained_on(run, vae, examples, args)
    facts = {"seed": args.seed, "device": str(device), "precision": args.precision}
    with bfloat16_products() if args.precision == "bfloat16" else contextlib.nullcontext():
        classify_and_write(results, vae, examples, args.num_samples, facts)


def complete(args: Namespace, given: Namespace) -> Namespace:
    """Fill in the defaults that depend on others, and refuse options that would have no effect.

    Raises:
        ValueError: Naming the option.
    """
    refuse_unused("estimator", ESTIMATORS, given, args.estimator)
    for option in ("proposal", "quasi_random"):
        if args[option] and args.estimator != "importance":
            raise ValueError(f"--{option} belongs to --estimator importance, not {args.estimator}; leave it out")
    counts = ("num_samples", "num_temperatures", "num_chains", "num_leapfrog")
    check_count(**{name: args[name] for name in counts})
    for option in ("target_se", "target_khat"):
        if args[option] is not None and not args[option] > 0:
            raise ValueError(f"--{option} must be above 0, got {args[option]:g}")
    if args.max_num_samples is not None and args.target_se is None and args.target_khat is None:
        raise ValueError("--max_num_samples belongs to --target_se or --target_khat; leave it out, or add one of them")
    if args.estimator == "bidirectional" and (args.split or args.data):
        raise ValueError(
            "--estimator bidirectional simulates its data from the model, since only there is an upper bound known; "
            "leave out --split and --data, or use --estimator ais"
        )
    if args.max_examples is None and args.estimator != "importance":
        args.max_examples = SLOW_EXAMPLES
    part = Path(args.data).stem if args.name is None and args.data is not None else args.name
    if part is None and args.label is not None:
        part = re.sub(r"[^\w.-]+", "-", f"label-{args.label}")
    if part is not None and Path(part).name != part:
        raise ValueError(f"--name: expected a part of a file name, without a folder, got {part!r}")
    args.name = "evaluation" if part is None else f"evaluation-{part}"
    return args


def _check_sizes(args: Namespace, vae: VAE) -> None:
    """Refuse counts of what would not fit in memory.

    Raises:
        ValueError: Naming the option.
    """
    if args.estimator == "importance":
        check_samples("num_samples", args.num_samples)
        check_samples("max_num_samples", args.max_num_samples or args.num_samples)
    else:
        check_fits("num_chains", args.num_chains, 4 * bytes_of_datum(vae))
        check_fits("num_temperatures", args.num_temperatures, 512)  # a number, and a tensor of step sizes


def evaluate(vae: VAE, x: Tensor, args: Namespace) -> Estimate:
    """Estimate log P(x), and the encoder's ELBO beside it; each process has random numbers of its own."""
    args = args.clone()
    args.seed += 10 * rank()  # the next few are for the proposals
    options = options_of(ESTIMATORS[args.estimator], args)
    seed, proposal, upper = args.seed, vae.guide, None
    if args.estimator == "importance":
        proposal = propose(vae, x, args)
        proposal = quasi_random(proposal) if args.quasi_random else proposal
        with progress_bar("log P(X)") as progress:
            result = log_evidence(vae.model, proposal, x, **options, progress=progress)
        options |= {"proposal": proposal_name(args), "quasi_random": args.quasi_random}
        options = proposal_options(args) | options
    else:
        with progress_bar("annealing") as progress:
            if args.estimator == "ais":
                result = ais(vae.model, x, **options, progress=progress)
            else:
                bounds = bidirectional(vae.model, x, **options, progress=progress)
                x, result, upper = bounds.x, bounds.lower, bounds.upper
    from_encoder = args.estimator == "importance" and args.proposal is None
    elbo = result.elbo if from_encoder else log_evidence(vae, x, num_samples=ELBO_SAMPLES, seed=seed).elbo
    options = {name: value for name, value in options.items() if name != "seed"} | {"precision": args.precision}
    return Estimate(args.estimator, options, x, result, elbo, proposal, upper)


def together(estimate: Estimate, begin: int) -> Estimate:
    """Join the estimates of all processes, whose data begin at ``begin``."""
    result = replace(estimate.result, failed=estimate.result.failed + begin)
    joint = {field.name: gathered(getattr(result, field.name)) for field in fields(result)}
    upper = None if estimate.upper is None else gathered(estimate.upper)
    return replace(
        estimate, x=gathered(estimate.x), result=Evidence(**joint), elbo=gathered(estimate.elbo), upper=upper
    )


def bound_against_k(
    vae: VAE, estimate: Estimate, num_samples: int, seed: int
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    r"""Return the mean of :math:`\log \frac1K \sum_k w_k` for K = 1, 2, 4, …, by the name of the proposal."""
    ks = sorted({2**i for i in range(int(math.log2(num_samples)) + 1)} | {num_samples})
    proposals: dict[str, Program] = {"encoder": vae.guide}
    proposals[estimate.options.get("proposal", "encoder")] = estimate.proposal
    curves = {}
    possible = estimate.result.log_evidence.isfinite()
    x = estimate.x[possible if possible.any() else ...][:CURVE_EXAMPLES]
    for name, proposal in proposals.items():
        log_w = log_weights(vae.model, proposal, x, num_samples=num_samples, seed=seed)
        # Over as many groups of K as there are.
        groups = [log_w[: num_samples // k * k].double().unflatten(0, (-1, k)) for k in ks]
        means = [(group.logsumexp(1) - math.log(k)).mean().item() for k, group in zip(ks, groups, strict=True)]
        curves[name] = np.array(ks), np.array(means)
    return curves


def _introduce(args: Namespace, vae: VAE, examples: Examples, device: torch.device) -> None:
    config = vae.config
    names = config.names
    kind = "" if examples.split in ("all", "simulated") else f"{examples.split} "
    what = f"{len(examples.x):,} {kind}examples of {size(config.x_shape)}, {config.pixels}"
    print(f"data        {f'{what}, simulated' if examples.split == 'simulated' else f'{examples.name}: {what}'}")
    print(
        f"model       prior {names['prior']}, encoder {names['encoder']}, likelihood {names['likelihood']}, "
        f"{config.latent_dim} latent dimensions"
    )
    if args.estimator == "importance":
        proposal = "the encoder" if args.proposal is None else f"the {proposal_name(args)} proposal"
        how = f"importance sampling, {args.num_samples:,} samples for each example from {proposal}"
    else:
        name = "annealed importance sampling" if args.estimator == "ais" else "bidirectional Monte Carlo"
        how = f"{name}, {args.num_temperatures:,} temperatures, {args.num_chains} chains for each example"
    print(f"estimator   {how}, on {device}{', in bfloat16' if args.precision == 'bfloat16' else ''}")
    if args.estimator != "importance":
        # Four chains tune the step sizes; the others go once, or back as well.
        passes = min(4, args.num_chains) + args.num_chains * (2 if args.estimator == "bidirectional" else 1)
        gradients = len(examples.x) * passes * args.num_temperatures * (args.num_leapfrog + 1)
        print(f"work        about {_rounded(gradients)} gradients of log p(x, z); --max_examples makes it less")


def _rounded(number: int) -> str:
    for unit, name in ((10**9, "billion"), (10**6, "million"), (10**3, "thousand")):
        if number >= unit:
            return f"{number / unit:.3g} {name}"
    return str(number)
