"""Examples that a run was trained on: which they are, and models that did not see them."""

from pathlib import Path

import torch
from jsonargparse import Namespace
from torch import Tensor

from pyro_vae.commands.arguments import Opened, options_of
from pyro_vae.commands.configuration import parse
from pyro_vae.commands.prepare import load_data, set_up, with_known_labels
from pyro_vae.commands.progress import progress_bar
from pyro_vae.data.arrays import find_rows
from pyro_vae.runs.folder import CONFIG, check_same_data
from pyro_vae.runs.opening import DataGoneError, Examples, of_label, read_examples, run_data
from pyro_vae.training import cross_fit
from pyro_vae.vae import VAE


def trained_on(run: Path, vae: VAE, examples: Examples, args: Namespace) -> Tensor | None:
    """Return which row of the run's training data each example is equal to, (N,), or -1; None where they are gone."""
    try:
        dataset = run_data(run)
    except DataGoneError:
        return None
    if dataset.draw is not None:  # what a random form was drawn from is compared
        examples = read_examples(run, vae, **options_of(read_examples, args), drawn=False)
    return find_rows(examples.x, dataset.train)


def say_trained_on(run: Path, vae: VAE, examples: Examples, args: Namespace) -> None:
    """Say of the user's examples how many the run was trained on, where there are any."""
    if args.data is None:  # which split they are is said anyway
        return
    try:
        seen = trained_on(run, vae, examples, args)
    except (OSError, ValueError) as error:
        print(f"trained on  perhaps some of these examples: {error}")
        return
    if seen is None:
        print("trained on  perhaps some of these examples: the run's own data are gone")
    elif count := int((seen >= 0).sum()):
        print(f"trained on  {count:,} of these {len(examples.x):,} examples: the model knows them better than new ones")


def models_for(opened: Opened, seen: Tensor, num_folds: int) -> list[tuple[VAE, Tensor]]:
    """Return models and the indices of the examples to score by each, none of which it was trained on.

    Args:
        opened: The run, whose own model is one of them, and whose options the others are trained with.
        seen: Which row of the run's training data each example is equal to, (N,), or -1.
        num_folds: How many other models there are, each trained without a part of the run's training data.
    """
    run, args = opened.run, opened.args
    config = parse(["--config", str(run / CONFIG), "--device", args.device])
    dataset = load_data(config)
    check_same_data(run, dataset)
    dataset = with_known_labels(config, dataset)
    if num_folds > len(dataset.train):
        raise ValueError(f"--cross_fit: expected at most {len(dataset.train):,}, the training data, got {num_folds:,}")

    def train(rows: Tensor) -> VAE:
        own = config.clone()
        own.batch_size = min(config.batch_size, len(rows))
        vae, training = set_up(own, dataset.where({"train": rows}))
        for _ in training.run():
            pass
        return of_label(run, vae.eval(), args.label).to(opened.device)

    parts = [(opened.vae, (seen < 0).nonzero()[:, 0])]
    with progress_bar("cross-fit") as progress:
        for vae, rows in cross_fit(train, dataset.train, num_folds=num_folds, seed=args.seed):
            parts.append((vae, torch.isin(seen, rows).nonzero()[:, 0]))
            progress(len(parts) - 1, num_folds)
    return [(vae, rows) for vae, rows in parts if len(rows)]
