"""Training: stochastic variational inference on data held in memory."""

import contextlib
import copy
import functools
import math
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pyro
import torch
from pyro.infer import ELBO, SVI
from torch import Tensor
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from pyro_vae.conditional import ConditionalVAE
from pyro_vae.data.source import fingerprint
from pyro_vae.machine.devices import (
    bfloat16_products,
    keep_freed_memory,
    own_seed,
    precision_on,
    resolve_device,
    set_random_states,
    set_seed,
)
from pyro_vae.machine.distributed import Processes
from pyro_vae.objectives import elbo_terms
from pyro_vae.training.epoch import Epoch
from pyro_vae.training.examples import Draw, examples
from pyro_vae.training.loss import Classifier, Loss, aims_at_elbo, compiled, objective_for
from pyro_vae.training.optim import FusedOptim
from pyro_vae.training.options import Options
from pyro_vae.training.state import restore, state_of
from pyro_vae.vae import VAE

Row = dict[str, float]
OnStep = Callable[[int, int, float], None]


class NonFiniteLoss(ArithmeticError):
    """The loss became NaN or infinite."""


class Training:
    r"""The training of a VAE, one epoch at a time.

    Maximises the objective, by default the evidence lower bound

    .. math:: E_{q(z|x)}[\log p(x|z)] - KL[q(z|x) \,\|\, p(z)]

    by Adam on its stochastic gradient. Each epoch draws its random numbers from a seed of its own, and
    the global random state is left as it was: trainings in one process don't disturb each other,
    and one that is taken up again goes on exactly as if it had never stopped. A VAE whose weights are still those that
    its parts were built with starts at the marginals of the data.

    In several processes (see :mod:`pyro_vae.machine.distributed`) each takes a share of every batch, with noise of its
    own; all end with the same weights. A training may go on in another number of processes, with other noise then.

    Args:
        vae: The model and guide to train, in place.
        x: Training data, (N, D). Moved to the device as a whole.
        y: Their labels, (N,), -1 where unknown, for a :class:`pyro_vae.ConditionalVAE`. Default: all unknown.
        draw: Makes a random version of each training batch, such as ``torch.bernoulli``.
        validation: Held-out data, (M, D), to follow the training and to stop early by.
        validation_y: Their labels. Where any is unknown, all are taken to be.
        objective: One of Pyro's ELBO classes, or of ours. Default: ``Trace_ELBO``.
        **options: Those of :class:`Options`.

    Attributes:
        options: The options, with the defaults for these data.
        loss: What SVI minimises.
        history: The metrics of each epoch until now.
        under_way: The epoch that the training is in the middle of; None between two.

    Raises:
        ValueError: For sizes and rates that make no sense, and for data that the likelihood refuses.

    Example:
        >>> from pyro_vae import build
        >>> training = Training(build((1, 4, 4)), torch.rand(200, 16).round(), epochs=2)
        >>> [row["epoch"] for row in training.run()]
        [1, 2]
    """

    def __init__(
        self,
        vae: VAE,
        x: Tensor,
        *,
        y: Tensor | None = None,
        draw: Draw | None = None,
        validation: Tensor | None = None,
        validation_y: Tensor | None = None,
        objective: ELBO | None = None,
        **options: Any,
    ):
        self.options = Options(**options).for_data(len(x))
        if self.options.patience and (validation is None or len(validation) == 0):
            raise ValueError(f"patience={self.options.patience} needs validation data to stop by, but none came")
        self.device = resolve_device(self.options.device)
        self.precision = precision_on(self.device, self.options.precision)
        self.processes = Processes(self.device)
        given = (vae, x, y, draw, validation, validation_y)
        self.data = examples(*given, seed=self.options.seed, device=self.device)
        self.vae = vae.to(self.device)
        if not vae.initialized:
            self._start()

        self.objective: Any = objective_for(vae, self.data, objective)
        self.compiled = compiled(self.objective, self.options.compile)
        weight = self.options.classifier_weight
        classifier = Classifier(vae, self.data, weight) if self.data.y is not None and weight else None  # type: ignore[arg-type]
        self.loss = Loss(self.compiled, vae, self.processes, self.options.clip_norm, classifier)
        self.optim = FusedOptim(torch.optim.Adam, {"lr": self.options.lr, "fused": True}, self._lr_at)
        self.svi = SVI(vae.model, vae.guide, self.optim, self.loss.loss, self.loss.loss_and_grads)
        decay = self.options.ema_decay
        self.average = None if decay is None else AveragedModel(vae, multi_avg_fn=get_ema_multi_avg_fn(decay))

        self.epoch = 0
        self.under_way: Epoch | None = None
        self.history: list[Row] = []
        self.best_epoch, self.best_elbo = 0, -math.inf
        self.best: dict[str, Tensor] = {}
        self._names: Any = {"params": {}, "constraints": {}}  # Pyro's, of the weights

    def _start(self) -> None:
        """Set the starting values, from a random version of the data where they have one."""
        with own_seed(self.options.seed, device=self.device):
            x = self.data.drawn(self.data.x)
        if isinstance(self.vae, ConditionalVAE):
            self.vae.initialize(x, self.data.y)
        else:
            self.vae.initialize(x)

    @property
    def patience(self) -> int:
        """For how many epochs the validation ELBO may fail to rise; 0 for ever."""
        if self.options.patience is not None:
            return self.options.patience
        # A classifier, a tighter bound or another weight of the KL may get better while the ELBO falls.
        elbo_alone = aims_at_elbo(self.objective) and self.loss.classifier is None
        return max(20, self.epochs // 5) if elbo_alone and len(self.data.validation) else 0

    @property
    def epochs(self) -> int:
        """How many epochs there will be at most."""
        assert self.options.epochs is not None
        return self.options.epochs

    @property
    def batch_size(self) -> int:
        """How many data are in each step."""
        assert self.options.batch_size is not None
        return self.options.batch_size

    @property
    def steps_per_epoch(self) -> int:
        """How many steps an epoch has."""
        return math.ceil(len(self.data) / self.batch_size)

    @functools.cached_property
    def fingerprints(self) -> dict[str, str]:
        """What tells the data that this is trained on from others, by name."""
        data = self.data
        found = {"train": data.x, "train labels": data.y, "validation": data.validation}
        found["validation labels"] = data.validation_y
        return {name: fingerprint(values) for name, values in found.items() if values is not None}

    @property
    def not_compiled(self) -> str:
        """Why the steps are not compiled, where "auto" has tried."""
        return getattr(self.compiled, "not_compiled", "")

    @property
    def finished(self) -> bool:
        """Whether the last epoch was reached, or the validation ELBO has not risen for long enough."""
        return self.epoch >= self.epochs or 0 < self.patience <= self.epoch - self.best_epoch

    @property
    def evaluated(self) -> Any:
        """The model that validation looks at: with averaged weights where they are averaged."""
        return self.average.module if self.average else self.vae

    def run(self, on_step: OnStep | None = None) -> Iterator[Row]:
        """Train to the end, giving each epoch's metrics; then put the resulting weights into the VAE.

        Args:
            on_step: Called after each step, on a GPU after each hundredth, with its number, the steps of an epoch,
                and the loss in nats per datum.

        Yields:
            ``epoch``, ``loss`` (the negative objective on the training data), ``elbo`` with its two terms
            ``reconstruction`` and ``kl`` on the validation data, all in nats per datum, ``lr``,
            ``seconds`` and ``examples_per_second``.

        Raises:
            NonFiniteLoss: Naming the epoch, the step and the likely cause.
            ProcessLost: When another of the processes ended.
        """
        try:
            self.processes.take_from_first([*self.vae.state_dict().values()])
            while not self.finished:
                yield self._run_epoch(on_step)
        finally:
            self.processes.leave()
        self.vae.load_state_dict(self.best or self.evaluated.state_dict())

    def _run_epoch(self, on_step: OnStep | None) -> Row:
        done = self._train_epoch(on_step)
        seconds = done.seconds
        self.epoch += 1
        reconstruction, kl = self._measure()
        row = {
            "epoch": self.epoch,
            "loss": done.total / len(self.data),
            "elbo": reconstruction - kl,
            "reconstruction": reconstruction,
            "kl": kl,
            "lr": self.optim.lr,
            "seconds": seconds,
            "examples_per_second": len(self.data) / seconds,
        }
        self.history.append(row)
        if self.patience and row["elbo"] > self.best_elbo:
            self.best_epoch, self.best_elbo = self.epoch, row["elbo"]
            self.best = copy.deepcopy(self.evaluated.state_dict())
        return row

    def _train_epoch(self, on_step: OnStep | None) -> Epoch:
        """Take the steps of an epoch, or what is left of them."""
        look_every = 1 if self.device.type == "cpu" else 100  # a look at the loss waits for the device
        try:
            with self.stepping(self.epoch + 1):
                self.under_way = epoch = self._begin_epoch() if self.under_way is None else self._go_on(self.under_way)
                batches = epoch.order.split(self.batch_size)
                for step, rows in enumerate(batches[epoch.step :], epoch.step + 1):
                    x = self._step(rows)
                    if step % look_every and step < len(batches):
                        continue
                    losses = self.loss.take()
                    for number, loss in enumerate(losses, step + 1 - len(losses)):
                        if not math.isfinite(loss):
                            raise NonFiniteLoss(self._diagnosis(number, loss, epoch.total, x))
                        epoch.total += loss
                    epoch.step = step
                    if on_step:
                        on_step(step, len(batches), losses[-1] / len(rows))
        finally:
            self.under_way = None
        if not self.is_finite:
            raise NonFiniteLoss(self._diagnosis(len(batches), math.nan, epoch.total, x))
        self._check_agreement()
        return epoch

    def _begin_epoch(self) -> Epoch:
        order = torch.randperm(len(self.data), device=self.device)
        if self.processes.size > 1:
            self.processes.take_from_first([order])
            set_seed(self.options.seed, self.epoch + 1, 1 + self.processes.rank)
        return Epoch(order)

    def _go_on(self, epoch: Epoch) -> Epoch:
        """Take up an epoch; in another number of processes or on another kind of device with other noise."""
        if self.device.type in epoch.random and len(epoch.random["cpu"]) == self.processes.size:
            set_random_states(epoch.random, self.device)
        else:
            set_seed(self.options.seed, self.epoch + 1, 1 + self.processes.rank, epoch.step)
        return replace(epoch, random={}, start=time.perf_counter())

    @property
    def is_finite(self) -> bool:
        """Whether all weights are finite."""
        return all(bool(param.isfinite().all()) for param in self.vae.parameters())

    def _step(self, rows: Tensor) -> Tensor:
        """Take a step on the data of some rows, and return this process's share of them."""
        share, weight = self.processes.share(rows)
        batch = self.data.batch(share)
        self.svi.step(*batch, size=len(rows), weight=weight)
        if self.average:
            self.average.update_parameters(self.vae)
        return batch[0]

    def _measure(self) -> tuple[float, float]:
        """Return the two terms of the ELBO on the validation data, in nats per datum."""
        probe = self.data.probe(self.options.seed)
        self.evaluated.eval()
        with pyro.get_param_store().scope():
            terms = elbo_terms(self.evaluated.model, self.evaluated.guide, probe, seed=self.options.seed)
        means = torch.stack([term.mean() for term in terms])
        self.processes.take_from_first([means])  # since it decides when to stop
        reconstruction, kl = means.tolist()
        return reconstruction, kl

    @contextlib.contextmanager
    def stepping(self, seed: int = 0) -> Iterator[None]:
        """Be ready for single steps, ``svi.step(*batch, size=len(batch[0]))``, with random numbers of their own."""
        self.vae.train()
        self.loss.take()
        keep_freed_memory()
        # The data were checked once; checking each batch again would only cost time.
        with (
            own_seed(self.options.seed, seed, device=self.device),
            pyro.get_param_store().scope(self._names),  # the parameters are the VAE's own; Pyro's store is global
            pyro.validation_enabled(False),
            warnings.catch_warnings(),
            bfloat16_products() if self.precision == "bfloat16" else contextlib.nullcontext(),
        ):
            warnings.filterwarnings("ignore", "Encountered NaN")  # it ends the training, with the reason
            yield

    def _lr_at(self, step: int) -> float:
        """Return the learning rate of a step, counted from the start of the training."""
        if self.options.lr_schedule == "constant":
            return self.options.lr
        epoch = step // self.steps_per_epoch + step % self.steps_per_epoch / self.steps_per_epoch
        return self.options.lr * 0.5 * (1 + math.cos(math.pi * epoch / self.epochs))

    def _check_agreement(self) -> None:
        if self.processes.size == 1:
            return
        weights = torch.cat([p.detach().flatten() for p in self.vae.parameters()])
        if not self.processes.agree(int(fingerprint(weights), 16) >> 1):  # 63 bits, which an integer tensor can hold
            raise ArithmeticError(
                f"the weights of the {self.processes.size} processes differ after epoch {self.epoch + 1}: "
                "run them on processors of one kind, and leave it to the training to change the weights"
            )

    def _diagnosis(self, step: int, loss: float, total: float, x: Tensor) -> str:
        if self.processes.any(bool((x.isinf() if self.vae.missing else ~x.isfinite()).any())):
            cause = "the batch holds values that are not finite"
        elif self.processes.any(bool(self.data.x.square().isinf().any())):
            largest = self.data.x.nan_to_num().abs().max().item()
            cause = f"the data hold values whose squares are too large to compute with, such as {largest:g}"
        else:
            mean = total / (step - 1) / self.batch_size if step > 1 else math.nan
            cause = (
                f"the gradients grew too large (mean loss of this epoch until then: {mean:.4g} nats); "
                f"use a smaller lr than {self.options.lr:g}, or a clip_norm"
            )
        return f"the loss became {loss} at epoch {self.epoch + 1}, step {step}: {cause}"

    def state_dict(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Return all that resuming needs: tensors by name, and facts that JSON can hold.

        Within an epoch, from ``on_step``, each of several processes has to call this.
        """
        return state_of(self)

    def load_state_dict(self, tensors: dict[str, Tensor], facts: dict[str, Any]) -> None:
        """Go on from what ``state_dict`` returned.

        Raises:
            ValueError: When it belongs to other data, to other options or to another model.
        """
        restore(self, tensors, facts)
