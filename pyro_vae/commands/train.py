"""Train a VAE from the command line: ``python -m pyro_vae.train``."""

import contextlib
import datetime
import itertools
import os
import re
import shlex
import sys
from collections.abc import Callable
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any, Literal

import torch
import yaml
from jsonargparse import Namespace
from pyro.infer import ELBO

from pyro_vae import data, encoders, likelihoods, objectives, priors  # noqa: F401  (classes for the parser)
from pyro_vae.base import Encoder, Likelihood, Prior
from pyro_vae.build import FILLED_IN, build, find_class, make_part
from pyro_vae.commands.cli import Parser, command, fail
from pyro_vae.commands.outputs import with_error
from pyro_vae.conditional import ConditionalVAE
from pyro_vae.data import Data
from pyro_vae.data.labels import UNKNOWN
from pyro_vae.machine.devices import own_seed
from pyro_vae.machine.distributed import ProcessLost, as_one, from_first, is_first, joined
from pyro_vae.machine.files import named, subfolder
from pyro_vae.runs import folder, keeping
from pyro_vae.runs.checkpoint import load_training
from pyro_vae.training.loop import Row, Training
from pyro_vae.training.options import Options
from pyro_vae.training.progress import TrainingProgress
from pyro_vae.vae import VAE

PARTS = {"prior": Prior, "encoder": Encoder, "likelihood": Likelihood, "objective": ELBO}
DEFAULTS = {
    "prior": "pyro_vae.priors.StandardNormal",
    "encoder": "pyro_vae.encoders.DiagonalNormal",
    "likelihood": "pyro_vae.likelihoods.Bernoulli",
    "objective": "pyro.infer.Trace_ELBO",
}
BUILD_OPTIONS = ("latent_dim", "network", "hidden_dims", "activation", "label_in")
# Options about the one call: they don't make the run what it is, and don't belong into its configuration.
OF_THE_CALL = ("config", "run", "overwrite", "resume", "log")


def parser() -> Parser:
    """Return the parser; its options are the parameters of the functions and classes that take them."""
    parser = Parser(prog="python -m pyro_vae.train", description="Train a VAE, and leave a run folder.")
    parser.add_argument("--config", action="config", help="A YAML file of options, such as a run's config.yaml.")
    parser.add_argument("--run", type=str | None, help="The run folder to make. Default: runs/DATA-DATE-TIME.")
    parser.add_argument("--overwrite", action="store_true", help="Replace the run that is in the folder.")
    parser.add_argument("--resume", type=str | None, metavar="RUN", help="Go on with a run from its last checkpoint.")
    parser.add_argument("--log", type=Literal["tensorboard"] | None, help="Log the metrics there as well.")
    parser.add_function_arguments(data.load, skip={"preferred", "missing"})
    missing = "Take data with blanks (NaN, in a .csv file also empty cells and NA), and train on the rest."
    parser.add_argument("--missing", action="store_true", help=missing)
    for name, base in PARTS.items():
        parser.add_subclass_arguments(base, name, skip=FILLED_IN, instantiate=False, required=False)
    # Not the objective's: the parser would hand the default's options on to the class chosen instead.
    parser.set_defaults({name: {"class_path": DEFAULTS[name]} for name in ("prior", "encoder", "likelihood")})
    parser.add_function_arguments(build, skip={"x_shape", *PARTS, "levels", "pixels", "missing", "num_classes"})
    parser.add_class_arguments(Options, instantiate=False)
    return parser


def parse(argv: list[str] | None) -> Namespace:
    """Parse the options; with ``--resume``, on top of the run's own.

    Raises:
        ValueError: When a resumed run's configuration would change.
    """
    argv = sys.argv[1:] if argv is None else argv
    config = _parse(argv)
    if config.resume is None:
        return config
    stored_path = Path(config.resume) / folder.CONFIG
    if not stored_path.exists():
        raise FileNotFoundError(f"resume: {config.resume} is no run folder (it holds no {folder.CONFIG})")
    if config.run is not None or config.overwrite:
        raise ValueError("resume: a run goes on in its own folder; leave out --run and --overwrite")
    stored = _parse(["--config", str(stored_path)])
    config = _parse(["--config", str(stored_path), *argv])
    wanted, own = config.as_dict(), stored.as_dict()
    for key in own.keys() - {*OF_THE_CALL, "device"}:
        more_epochs = key == "epochs" and (wanted[key] or 0) > own[key]
        if wanted[key] != own[key] and not (more_epochs and stored.lr_schedule == "constant"):
            raise ValueError(
                f"resume: --{key} {_shown(wanted[key])} contradicts the run's own {_shown(own[key])}"
                f"{', which the cosine schedule depends on' if more_epochs else ''}; leave it out, or start a new run"
            )
    return config


def _parse(argv: list[str]) -> Namespace:
    configs, options = _apart(argv)
    no_objective = not any(arg.split("=")[0] == "--objective" for arg in options)
    if no_objective and (not configs or parser().parse_args(configs).objective is None):
        options = ["--objective", DEFAULTS["objective"], *options]
    return parser().parse_args([*configs, *options])


def _apart(argv: list[str]) -> tuple[list[str], list[str]]:
    """Take the configurations out of the arguments: the parser lets them win over all options before them."""
    configs: list[str] = []
    options: list[str] = []
    for arg in (remaining := iter(argv)):
        if re.fullmatch("--conf(i|ig)?", arg):
            configs += [arg, *itertools.islice(remaining, 1)]
        else:
            (configs if re.match("--conf(i|ig)?=", arg) else options).append(arg)
    return configs, options


def prepare(config: Namespace) -> tuple[Data, VAE, Training]:
    """Load the data, build the VAE and set up its training, as the options say; nothing is written."""
    likelihood = find_class(config.likelihood.class_path, Likelihood)
    dataset = data.load(
        config.data,
        pixels=config.pixels,
        preferred=likelihood.pixels,
        validation=config.validation,
        test=config.test,
        levels=config.levels,
        missing=config.missing,
        condition=config.condition,
        data_dir=config.data_dir,
    )
    if likelihood.pixels == "levels" and dataset.pixels in ("binarized", "threshold", "grey"):
        raise ValueError(
            f"pixels: {likelihood.__name__} takes grey levels, but they are {dataset.pixels}; use --pixels levels"
        )
    known = dataset if config.num_labels is None else dataset.with_few_labels(config.num_labels)
    labels = (known.labels if known.num_classes else None) or {}
    if labels and config.label_in is None:
        config.label_in = ["prior"] if bool((labels["train"] == UNKNOWN).any()) else ["encoder", "decoder"]
    with own_seed(config.seed, device=torch.device("cpu")):
        vae = build(
            dataset.shape,
            **{name: _plain(config[name]) for name in ("prior", "encoder", "likelihood")},
            **{name: config[name] for name in BUILD_OPTIONS},
            levels=dataset.levels,
            pixels=dataset.pixels,
            missing=config.missing,
            num_classes=dataset.num_classes,
        )
        train = dataset.train if dataset.draw is None else dataset.draw(dataset.train)
        for x in (train, dataset.validation, dataset.test):
            vae.check(x)
        if isinstance(vae, ConditionalVAE):
            vae.initialize(train, labels.get("train"))
        else:
            vae.initialize(train)
    options = Options(**{field.name: config[field.name] for field in fields(Options)}).for_data(len(dataset.train))
    assert options.batch_size is not None
    config.epochs, config.batch_size = options.epochs, options.batch_size
    steps = -(-len(dataset.train) // options.batch_size)
    objective = make_part(_plain(config.objective), ELBO, {"max_plate_nesting": 1, "steps_per_epoch": steps})
    training = Training(
        vae,
        dataset.train,
        y=labels.get("train"),
        validation=dataset.validation,
        validation_y=labels.get("validation"),
        draw=dataset.draw,
        objective=objective,
        **asdict(options),
    )
    return dataset, vae, training


@command
def main(argv: list[str] | None = None) -> None:
    """Train, and leave a run folder; where ``torchrun`` has started several processes, the first of them leaves it."""
    with joined(), contextlib.ExitStack() as stack:
        with as_one():
            config = parse(argv)
            run = stack.enter_context(_run_folder(config)) if is_first() else Path(config.resume or "")
            log = _logger(config.log if is_first() else None, run)
            dataset, vae, training = prepare(config)
            if config.resume is not None and (run / folder.STATE).exists():
                folder.check_same_data(run, dataset)
                _load(training, run)
        run = from_first(run)
        replaces = config.overwrite and (run / folder.CONFIG).exists()
        checkpoints = keeping.Checkpoints(run, training, _as_yaml(config, dataset), replaces=replaces)
        if is_first():
            checkpoints.begin()
            _introduce(dataset, vae, config, training)
        try:
            _train(training, checkpoints, vae.likelihood.is_density, log)
        except ProcessLost as error:
            fail(f"{error}; {_way_on(checkpoints)}", status=1)
        if is_first():
            facts = {"data": dataset.name, "pixels": dataset.pixels} | {part: config[part].class_path for part in PARTS}
            summary = keeping.finish(run, vae, dataset, training, facts)
            if training.best_epoch:
                print(
                    f"weights     of epoch {training.best_epoch}, where the validation ELBO was highest{_why(training)}"
                )
            if training.not_compiled:
                print(f"compiled    no, since {training.not_compiled}")
            _conclude(run, vae, dataset, summary)


def _run_folder(config: Namespace) -> contextlib.AbstractContextManager[Path]:
    """Have the run folder, as the options name it, for this training alone."""
    if config.resume is not None:
        return folder.resumed(named(config.resume))
    if config.run is not None:
        return folder.created(named(config.run), config.overwrite)
    return folder.created_beside(Path(f"runs/{Path(config.data).stem}-{datetime.datetime.now():%Y%m%d-%H%M%S}"))


def _load(training: Training, run: Path) -> None:
    load_training(training, run)
    if training.finished and keeping.is_complete(run, training):
        how = "its patience has run out" if training.epoch < training.epochs else "add --epochs to train longer"
        raise ValueError(f"resume: {run} is finished, after epoch {training.epoch}; {how}")


def _train(training: Training, checkpoints: keeping.Checkpoints, is_density: bool, log: Callable[[Row], None]) -> None:
    """Train to the end; the first process shows it and keeps the checkpoint up to date."""
    try:
        with TrainingProgress(training.epochs, training.epoch, is_density, show=True) as progress:

            def on_step(step: int, steps: int, loss: float) -> None:
                progress.step(step, steps, loss)
                checkpoints.update_within(step, steps)

            for row in training.run(on_step):
                progress.row(row)
                log(row)
                if is_first():
                    checkpoints.update(now=training.finished)
    except KeyboardInterrupt:
        # What the training holds now may be half a step, which is no state to resume from.
        print(f"stopped; {_way_on(checkpoints, f'from {checkpoints.next} ')}")
        raise SystemExit(130) from None
    except ArithmeticError as error:
        if not is_first():  # all processes meet it in the same step
            raise SystemExit(1) from error
        state = checkpoints.run / folder.STATE
        kept = (
            f"the last good checkpoint is in {state}"
            if checkpoints.epoch or checkpoints.step
            else "no checkpoint was made"
        )
        raise type(error)(f"{error}; {kept}") from error


def _why(training: Training) -> str:
    """Say why the training ended, where it was not after the last epoch."""
    if training.epoch == training.epochs:
        return ""
    return f"; stopped after epoch {training.epoch}, {training.patience} epochs without a rise (see --patience)"


def _way_on(checkpoints: keeping.Checkpoints, where: str = "") -> str:
    """Say how to go on with a training that has ended early."""
    if is_first() and checkpoints.replaces:
        return f"the run in {checkpoints.run} is as it was"
    return f"go on {where}with: python -m pyro_vae.train --resume {shlex.quote(str(checkpoints.run))}"


def _introduce(dataset: Data, vae: VAE, config: Namespace, training: Training) -> None:
    shape = "x".join(str(size) for size in dataset.shape[-2:])
    what = f"{shape} {'pixels' if len(dataset.shape) == 3 else 'columns'}, {dataset.pixels}"
    print(
        f"data        {dataset.name}: {len(dataset.train):,} training, {len(dataset.validation):,} validation, "
        f"{len(dataset.test):,} test examples of {what}"
    )
    if isinstance(vae, ConditionalVAE) and training.data.y is not None:
        known = int((training.data.y != UNKNOWN).sum())
        where = " and the ".join(vae.label_in)
        print(f"labels      {vae.num_classes} classes, in the {where}; known of {known:,} training examples")
    names = {part: config[part].class_path.rpartition(".")[2] for part in PARTS}
    weights = sum(p.numel() for p in vae.parameters())
    print(
        f"model       prior {names['prior']}, encoder {names['encoder']}, likelihood {names['likelihood']}, "
        f"{config.latent_dim} latent dimensions, {weights:,} weights"
    )
    processes = f" in {training.processes.size} processes" if training.processes.size > 1 else ""
    print(f"objective   {names['objective']}, on {training.device}{processes}")


def _conclude(run: Path, vae: VAE, dataset: Data, summary: dict[str, Any]) -> None:
    elbo, se, count = summary["test_elbo"], summary["test_elbo_se"], len(dataset.test)
    examples = f"{count:,} examples" if count > 1 else "one example, so without a standard error"
    if vae.likelihood.is_density:
        what = "log P(X, Y)" if "log P(X, Y)" in summary["protocol"] else "log P(X)"
        print(f"test ELBO   {with_error(elbo, se)} nats per example (a lower bound on {what}; {examples})")
    else:
        print(
            f"test loss   {with_error(-elbo, se)} nats per example "
            f"(the article's loss on grey pixels, not a density; {examples})"
        )
    if summary.get("test_accuracy_of_encoder") is not None:
        accuracy = 100 * summary["test_accuracy_of_encoder"]
        print(f"labels      q(y|x) is right in {accuracy:.1f} % of the test examples; pyro-vae classify gives P(Y|X)")
    for warning in summary["warnings"]:
        print(f"warning     {warning}")
    print(f"run folder  {run}  (samples.png, reconstructions.png, curves.png, summary.json, …)")


def _as_yaml(config: Namespace, dataset: Data) -> str:
    """Return the whole resolved configuration, without what concerns the one call."""
    options = _plain(config) | {"pixels": dataset.pixels}
    return yaml.safe_dump({key: value for key, value in options.items() if key not in OF_THE_CALL}, sort_keys=False)


def _plain(value: Any) -> Any:
    """Return the parser's namespaces, also those within lists, as dictionaries."""
    if isinstance(value, Namespace):
        return {key: _plain(item) for key, item in value.as_dict().items()}
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value


def _shown(value: Any) -> str:
    return value["class_path"] if isinstance(value, dict) else str(value)


def _logger(kind: str | None, run: Path) -> Callable[[Row], None]:
    if kind is None:
        return lambda row: None
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise ValueError('log: tensorboard isn\'t installed; install "pyro-vae[tensorboard]"') from error
    path = subfolder(run, folder.LOG)
    writer = None

    def log(row: Row) -> None:
        nonlocal writer
        writer = writer or SummaryWriter(os.fspath(path))
        for key, value in row.items():
            if key != "epoch":
                writer.add_scalar(key, value, int(row["epoch"]))

    return log


if __name__ == "__main__":
    main()
