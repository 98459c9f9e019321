"""Train a VAE from the command line: ``python -m pyro_vae.train``."""

import contextlib
import datetime
import os
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

from jsonargparse import Namespace

from pyro_vae.commands.cli import command, fail
from pyro_vae.commands.configuration import as_yaml, parse
from pyro_vae.commands.outputs import with_error
from pyro_vae.commands.prepare import prepare
from pyro_vae.commands.progress import SOON, progress_bar
from pyro_vae.conditional import ConditionalVAE
from pyro_vae.data import Data
from pyro_vae.data.labels import UNKNOWN, in_words
from pyro_vae.machine.distributed import ProcessLost, as_one, from_first, is_first, joined
from pyro_vae.machine.files import named, subfolder
from pyro_vae.runs import folder, keeping
from pyro_vae.runs.checkpoint import load_training
from pyro_vae.training.loop import Row, Training
from pyro_vae.training.progress import TrainingProgress
from pyro_vae.vae import VAE


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
        checkpoints = keeping.Checkpoints(run, training, as_yaml(config, dataset), replaces=replaces)
        if is_first():
            checkpoints.begin()
            _introduce(dataset, vae, config, training)
        try:
            _train(training, checkpoints, vae.likelihood.is_density, log)
        except ProcessLost as error:
            fail(f"{error}; {_way_on(checkpoints)}", status=1)
        if is_first():
            classes = {kind: part["class_path"] for kind, part in vae.config.parts.items()}
            classes["objective"] = config.objective.class_path
            facts = {"data": dataset.name, "pixels": dataset.pixels} | classes
            with progress_bar("measuring", after=SOON) as progress:
                summary = keeping.finish(run, vae, dataset, training, facts, progress)
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
        classes = f"{vae.num_classes} classes{'' if dataset.label_column is None else f' of {dataset.label_column}'}"
        words = in_words(vae.config.class_names)
        print(f"labels      {classes} ({words}), in the {where}; known of {known:,} training examples")
    if dataset.table is not None:
        print("columns     " + "\n            ".join(dataset.table.describe()))
    names = vae.config.names
    weights = sum(p.numel() for p in vae.parameters())
    print(
        f"model       prior {names['prior']}, encoder {names['encoder']}, likelihood {names['likelihood']}, "
        f"{config.latent_dim} latent dimensions, {weights:,} weights"
    )
    processes = f" in {training.processes.size} processes" if training.processes.size > 1 else ""
    objective = config.objective.class_path.rpartition(".")[2]
    print(f"objective   {objective}, on {training.device}{processes}")


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
