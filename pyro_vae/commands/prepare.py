"""What a configuration stands for: the data, the VAE, and its training."""

import contextlib
import math
from collections.abc import Iterator
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import torch
from jsonargparse import Namespace
from pyro.infer import ELBO

from pyro_vae import data
from pyro_vae.base import Likelihood
from pyro_vae.build import build, defaults, find_class, make_part
from pyro_vae.commands.configuration import PARTS, plain
from pyro_vae.commands.progress import SOON, progress_bar
from pyro_vae.conditional import ConditionalVAE
from pyro_vae.data import Data
from pyro_vae.data.labels import UNKNOWN
from pyro_vae.data.tables import wanted_kinds
from pyro_vae.likelihoods import Bernoulli
from pyro_vae.machine.devices import own_seed
from pyro_vae.machine.distributed import is_first
from pyro_vae.machine.facts import check_facts
from pyro_vae.machine.memory import at_most, check_memory, largest
from pyro_vae.machine.progress import Progress
from pyro_vae.runs import folder
from pyro_vae.runs.checkpoint import no_larger_than
from pyro_vae.training.loop import Training
from pyro_vae.training.options import Options
from pyro_vae.vae import VAE

# Options of Pyro's objectives, which don't say of what type they are.
OF_PYRO: dict[str, Any] = {
    **dict.fromkeys(("num_particles", "max_plate_nesting"), (int,)),
    **dict.fromkeys(("vectorize_particles", "strict_enumeration_warning", "ignore_jit_warnings"), (bool,)),
    **dict.fromkeys(("alpha", "tail_adaptive_beta"), (int, float)),
    "max_iarange_nesting": (int, None),
    "retain_graph": (bool, None),
    "jit_options": (dict, None),
}
BUILD_OPTIONS = ("latent_dim", "network", "hidden_dims", "activation", "label_in")


def prepare(config: Namespace) -> tuple[Data, VAE, Training]:
    """Load the data, build the VAE and set up its training, as the options say; nothing is written."""
    with progress_bar("reading", after=SOON) as progress:
        dataset = load_data(config, progress if is_first() else None)
    return dataset, *set_up(config, with_known_labels(config, dataset))


def with_known_labels(config: Namespace, dataset: Data) -> Data:
    """Return the data as if no more labels were known than the options say."""
    return dataset if config.num_labels is None else dataset.with_few_labels(config.num_labels)


def load_data(config: Namespace, progress: Progress | None = None) -> Data:
    """Load the data that the options name, in the form that the likelihood wants."""
    # The run's own configuration says what the columns are, without the file that said so.
    config.schema = wanted_kinds(config.schema, config.columns, config.drop) or None
    config.columns = config.drop = None
    likelihood = Bernoulli if config.likelihood is None else find_class(config.likelihood.class_path, Likelihood)
    dataset = data.load(
        config.data,
        as_numbers=config.likelihood is not None,
        schema=config.schema,
        rows=config.rows,
        pixels=config.pixels,
        preferred=likelihood.pixels,
        validation=config.validation,
        test=config.test,
        levels=config.levels,
        missing=config.missing,
        condition=config.condition,
        data_dir=config.data_dir,
        progress=progress,
    )
    if likelihood.pixels == "levels" and dataset.pixels in ("binarized", "threshold", "grey"):
        raise ValueError(
            f"pixels: {likelihood.__name__} takes grey levels, but they are {dataset.pixels}; use --pixels levels"
        )
    if dataset.table is not None:
        config.missing = any(bool(x.isnan().any()) for x in (dataset.train, dataset.validation, dataset.test))
    for name, value in defaults(dataset.table).items():
        of_columns = name == "likelihood" and dataset.table is not None  # which say it themselves
        if config[name] is None and not of_columns:
            config[name] = _as_option(name, value) if name in PARTS else value
    return dataset


def _as_option(kind: str, part: str | dict[str, Any]) -> Namespace:
    """Return a part as the parser would, had its name been given, and its options."""
    if isinstance(part, str):
        return Namespace(class_path=f"pyro_vae.{kind}s.{part}")
    return Namespace(class_path=part["class_path"], init_args=Namespace(**part["init_args"]))


def set_up(config: Namespace, dataset: Data) -> tuple[VAE, Training]:
    """Build the VAE and set up its training on some data, as the options say."""
    labels = (dataset.labels if dataset.num_classes else None) or {}
    if labels and config.label_in is None:
        config.label_in = ["prior"] if bool((labels["train"] == UNKNOWN).any()) else ["encoder", "decoder"]
    with own_seed(config.seed, device=torch.device("cpu")):
        with _no_larger_model_than_fits(config):
            vae = build(
                dataset.shape,
                **{name: plain(config[name]) for name in ("prior", "encoder", "likelihood")},
                **{name: config[name] for name in BUILD_OPTIONS},
                levels=dataset.levels,
                pixels=dataset.pixels,
                table=dataset.table,
                missing=config.missing,
                num_classes=dataset.num_classes,
                classes=dataset.classes if dataset.num_classes else None,
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
    chosen = plain(config.objective)
    if chosen["class_path"].startswith("pyro.infer."):
        check_facts("objective", chosen.get("init_args", {}), **OF_PYRO)
    objective = make_part(chosen, ELBO, {"max_plate_nesting": 1, "steps_per_epoch": steps})
    particles = options.batch_size * getattr(objective, "num_particles", 1)
    decoded = math.prod(dataset.shape) * vae.likelihood.params_per_element + config.latent_dim
    check_memory("objective.num_particles, batch_size", 4 * particles * decoded, "choose smaller ones")
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
    return vae, training


@contextlib.contextmanager
def _no_larger_model_than_fits(config: Namespace) -> Iterator[None]:
    """Refuse, inside, to build a model that fits neither in memory nor to the checkpoint of a resumed run."""
    if config.resume is not None and (state := Path(config.resume) / folder.STATE).exists():
        with no_larger_than(state):
            yield
        return
    try:
        with at_most(largest()):
            yield
    except MemoryError:
        raise ValueError(
            "hidden_dims, latent_dim or an option of a part: expected a model of at most "
            f"{largest() / 2**30:.3g} GiB, a quarter of this machine's memory, got a larger one; make it smaller"
        ) from None
