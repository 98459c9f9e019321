"""Keeping a training in its run folder: its state while it goes on, and in the end its model, figures and pictures."""

import contextlib
import csv
import io
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pyro_vae import plotting
from pyro_vae.conditional import ConditionalVAE
from pyro_vae.data import SPLITS, Data
from pyro_vae.data.labels import UNKNOWN, with_labels
from pyro_vae.inference import diagnose
from pyro_vae.machine.devices import own_seed
from pyro_vae.machine.distributed import from_first, is_first
from pyro_vae.machine.files import as_json, remove_leftovers, write_file, write_files
from pyro_vae.machine.progress import Progress
from pyro_vae.machine.reading import read_json
from pyro_vae.machine.versions import versions
from pyro_vae.objectives import elbo_terms
from pyro_vae.program import Data as ProgramData
from pyro_vae.runs import kept
from pyro_vae.runs.checkpoint import checkpoint_folder, save, state_as_bytes
from pyro_vae.runs.files import beside_the_figures
from pyro_vae.runs.folder import CONFIG, KEPT, LOG, METRICS, PICTURES, RESULTS, STATE, SUMMARY, made_of_model
from pyro_vae.training.loop import Training
from pyro_vae.vae import VAE


def is_complete(run: Path, training: Training) -> bool:
    """Whether the run's results were all written, and are those of this training."""
    if not all((run / name).exists() for name in (SUMMARY, *PICTURES)):
        return False
    return read_json(run / SUMMARY).get("epochs") == training.epoch


class Checkpoints:
    """Keeps a training's checkpoint and metrics up to date: after an epoch, and in a long one within it.

    What is in the run folder stays until the first checkpoint takes its place: the results of a shorter training, or
    the whole of the run that this one replaces. What is not the program's own stays in any case.

    Args:
        run: The run folder.
        training: The training.
        config: The run's configuration.
        replaces: The folder holds another run.
        seconds: The least time between two.
        within: The least time until one within an epoch.

    Attributes:
        epoch: The last one that is safe on disk.
        step: The last one that is, of the epoch after it.
        replaces: Whether the folder still holds another run.
    """

    def __init__(
        self,
        run: Path,
        training: Training,
        config: str,
        *,
        replaces: bool = False,
        seconds: float = 1.0,
        within: float = 300.0,
    ):
        self.run, self.training, self.config, self.replaces = run, training, config, replaces
        self.seconds, self.within = seconds, within
        self.last = time.monotonic()
        self.epoch, self.step = _place(training)
        self._is_first = True
        log = run / LOG  # what is beyond a link is not the run's
        self._log = [*log.glob("events.out.tfevents.*")] if replaces and not log.is_symlink() else []
        self._calls, self._looked, self._wait = 0, self.last, 1

    def begin(self) -> None:
        """Make the run folder, with the configuration in it, and the metrics until now."""
        self.run.mkdir(parents=True, exist_ok=True)
        for folder in (self.run, checkpoint_folder(self.run)):
            remove_leftovers(folder)
        if not self.replaces:
            write_files({self.run / CONFIG: self.config} | self._metrics())

    @property
    def next(self) -> str:
        """Where a training goes on that is taken up again."""
        return f"epoch {self.epoch + 1}" + (f", step {self.step + 1}" if self.step else "")

    def update(self, *, now: bool = False) -> None:
        """Write both after an epoch, if it is time or ``now`` is set."""
        if now or time.monotonic() - self.last >= self.seconds:
            self._write()

    def update_within(self, step: int, steps: int) -> None:
        """Write both after a step, if it is time. Several processes have to call this alike, and agree on when."""
        self._calls += 1
        if self._calls < self._wait or step == steps:
            return
        # A look asks the first process: after so many steps as take it a small part of the time.
        now = time.monotonic()
        pace = self._calls / max(now - self._looked, 1e-3)
        due, self._wait = from_first((now - self.last >= self.within, max(1, int(pace * self.within / 30))))
        self._calls, self._looked = 0, now
        if due and self.training.is_finite:
            self._write()

    def _write(self) -> None:
        content = self.training.state_dict()  # for which, within an epoch, all processes are needed
        if not is_first():
            return
        checkpoint_folder(self.run).mkdir(exist_ok=True)
        state: dict[Path, bytes | str] = {self.run / STATE: state_as_bytes(content)}
        # A configuration may be without a checkpoint, or with one of fewer epochs, but with no other run's.
        config = {self.run / CONFIG: self.config} if self.replaces else {}
        outdated = made_of_model(self.run) if self._is_first else []
        outdated += [*self._log, self.run / METRICS, self.run / STATE] if self.replaces else []
        write_files(config | state | self._metrics(), outdated)
        for name in RESULTS if self._is_first else ():
            with contextlib.suppress(OSError):  # it holds files of the user's, or there is none
                (self.run / name).rmdir()
        self._is_first = self.replaces = False
        self.last = time.monotonic()
        self.epoch, self.step = _place(self.training)

    def _metrics(self) -> dict[Path, bytes | str]:
        return {self.run / METRICS: _as_csv(self.training.history)} if self.training.history else {}


def _place(training: Training) -> tuple[int, int]:
    """Return the last epoch that was finished, and the last step of the one after it."""
    return training.epoch, training.under_way.step if training.under_way else 0


def finish(
    run: Path,
    vae: VAE,
    dataset: Data,
    training: Training,
    facts: dict[str, Any],
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Write the trained model, its figures on the test data and its pictures; return the summary."""
    vae.eval()
    save(vae, run)
    write_file(run / KEPT, kept.as_bytes(dataset))
    with own_seed(training.options.seed, device=training.device):
        summary = facts | summarize(vae, dataset, training, progress)
        write_file(run / SUMMARY, as_json(summary))
        with beside_the_figures(*(run / name for name in PICTURES)):
            pictures(run, vae, dataset, training)
    return summary


def summarize(vae: VAE, dataset: Data, training: Training, progress: Progress | None = None) -> dict[str, Any]:
    """Return the figures on training and test data, and what tells them from others."""
    train, test = training.data.drawn(training.data.x), dataset.test.to(training.device)
    labels = dataset.labels["test"].to(training.device) if training.data.y is not None and dataset.labels else None
    train_data, test_data = with_labels(train, training.data.y), with_labels(test, labels)
    train_elbo = torch.sub(*elbo_terms(vae.model, vae.guide, train_data, progress=progress)).mean().item()
    reconstruction, kl = elbo_terms(vae.model, vae.guide, test_data)
    accuracy = _accuracy(vae, test, labels)
    elbo = (reconstruction - kl).double()
    seconds = sum(row["seconds"] for row in training.history)
    found = diagnose(vae, train_data, test_data, columns=dataset.columns, seed=training.options.seed)
    summary = {
        "epochs": training.epoch,
        "seed": training.options.seed,
        "num_examples": {split: len(getattr(dataset, split)) for split in SPLITS},
        "best_epoch": training.best_epoch or None,
        "train_elbo": train_elbo,
        "test_elbo": elbo.mean().item(),
        "test_elbo_se": elbo.std().item() / len(elbo) ** 0.5 if len(elbo) > 1 else None,
        "test_reconstruction": reconstruction.mean().item(),
        "test_kl": kl.mean().item(),
        "units": "nats per example",
        "protocol": _protocol(vae, test_data),
        "is_density": vae.likelihood.is_density,
        "data_fingerprint": dataset.fingerprints(),
        "seconds": seconds,
        "examples_per_second": len(training.data.x) * training.epoch / seconds,
        "device": str(training.device),
        "precision": training.precision,
        "processes": training.processes.size,
        "versions": versions(),
        "warnings": found,
    }
    if isinstance(vae, ConditionalVAE):
        known = 0 if training.data.y is None else int((training.data.y != UNKNOWN).sum())
        summary |= {"num_classes": vae.num_classes, "classes": list(vae.config.class_names)}
        summary |= {"num_labels": known, "test_accuracy_of_encoder": accuracy}
    return summary


def _accuracy(vae: VAE, x: Tensor, y: Tensor | None) -> float | None:
    """Return how often the likeliest class of q(y|x) is right, where labels are known."""
    if not isinstance(vae, ConditionalVAE) or y is None or not (y != UNKNOWN).any():
        return None
    with torch.no_grad():
        right = torch.cat([vae.class_logits(part).argmax(-1) for part in x.split(1000)]) == y
    return right[y != UNKNOWN].double().mean().item()


def pictures(run: Path, vae: VAE, dataset: Data, training: Training) -> None:
    """Draw what the model makes up, what it makes of test data, and how the training went."""
    columns, classes = 8, vae.config.class_names[:20] if isinstance(vae, ConditionalVAE) else ()
    if isinstance(vae, ConditionalVAE):
        y = torch.arange(len(classes), device=training.device).repeat_interleave(columns)
        samples = vae.sample(len(y), y=y, mean=True)
    else:
        samples = vae.sample(64, mean=True)
    if len(dataset.shape) == 3:
        title = "Samples: E[x|z], z from the prior" + ("; a row for each class" if classes else "")
        plotting.image_grid(
            samples, dataset.shape, run / "samples.png", columns=columns, title=title, row_names=classes
        )
        columns = min(8, len(dataset.test))
        originals = dataset.test[: min(32, len(dataset.test) // columns * columns)].to(training.device)
        pairs = torch.stack([x.reshape(-1, columns, x.shape[1]) for x in (originals, vae.reconstruct(originals))], 1)
        plotting.image_grid(
            pairs.flatten(0, 2),
            dataset.shape,
            run / "reconstructions.png",
            columns=columns,
            title="Test data, and below each its reconstruction: E[x|z] at z = E[z|x]",
        )
    else:
        names = dataset.columns or [f"column {d + 1}" for d in range(dataset.shape[0])]
        some = dataset.test[:2000].to(training.device)
        tables = {"samples": vae.sample(2000), "reconstructions": vae.reconstruct(some)}
        shown = dataset.table.in_units if dataset.table is not None else lambda x: x
        words = {} if dataset.table is None else dataset.table.words
        for what, table in tables.items():
            plotting.columns_compared(
                shown(dataset.test),
                shown(table),
                run / f"{what}.png",
                names=names,
                title=f"Test data and {what}",
                label=what,
                words=words,
            )
    held_out = "validation" if len(dataset.validation) else "training data"
    plotting.curves(training.history, run / "curves.png", title=f"Training on {dataset.name}", held_out=held_out)


def _protocol(vae: VAE, test: ProgramData) -> str:
    bound = "one posterior sample for each example; standard error over examples"
    if isinstance(test, tuple):
        bound = f"of log P(X, Y); {bound}"
    if vae.likelihood.is_density:
        return f"evidence lower bound; {bound}"
    return f"negative of the article's loss on grey pixels, which bounds no density; {bound}"


def _as_csv(rows: list[dict[str, float]]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows({key: f"{value:.10g}" for key, value in row.items()} for row in rows)
    return text.getvalue()
