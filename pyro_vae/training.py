"""Training: stochastic variational inference on data held in memory."""

import contextlib
import copy
import functools
import hashlib
import math
import time
import warnings
from collections.abc import Callable, Iterator
from typing import Any, Literal

import pyro
import torch
from pyro.infer import ELBO, SVI, Trace_ELBO
from torch import Tensor
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from pyro_vae.compiled import CompiledELBO
from pyro_vae.conditional import ConditionalVAE
from pyro_vae.data.labels import UNKNOWN
from pyro_vae.devices import (
    bfloat16_products,
    check_bfloat16,
    keep_freed_memory,
    own_seed,
    resolve_device,
    set_seed,
)
from pyro_vae.distributed import Processes
from pyro_vae.objectives import check_objective, elbo_terms
from pyro_vae.optim import FusedOptim
from pyro_vae.program import Data
from pyro_vae.semi_supervised import SummedOutELBO
from pyro_vae.vae import VAE

Row = dict[str, float]


class NonFiniteLoss(ArithmeticError):
    """The loss became NaN or infinite."""


class Training:
    r"""The training of a VAE, one epoch at a time.

    Maximises the objective, by default the evidence lower bound

    .. math:: E_{q(z|x)}[\log p(x|z)] - KL[q(z|x) \,\|\, p(z)]

    by Adam on its stochastic gradient. Each epoch draws its random numbers from a seed of its own, and
    the global random state is left as it was: trainings in one process don't disturb each other,
    and one that is taken up again goes on exactly as if it had never stopped.

    In several processes (see :mod:`pyro_vae.distributed`) each takes a share of every batch, with noise of its own; all
    end with the same weights. A training may go on in another number of processes, with other noise then.

    Args:
        vae: The model and guide to train, in place.
        x: Training data, (N, D). Moved to the device as a whole.
        y: Their labels, (N,), -1 where unknown, for a :class:`pyro_vae.ConditionalVAE`. Default: all unknown.
        validation: Held-out data, (M, D), to follow the training and to stop early by.
        validation_y: Their labels. Where any is unknown, all are taken to be.
        draw: Makes a random version of each training batch, such as ``torch.bernoulli``.
        objective: One of Pyro's ELBO classes, or of ours. Default: ``Trace_ELBO``.
        epochs: How many times to go through the data. Default: 20, or as many more as make 5,000 steps.
        batch_size: How many data in each step. The last batch of an epoch may be smaller. Default: 128, or all the
            data where they are fewer.
        lr: Adam's learning rate, at the start.
        lr_schedule: "constant", or "cosine": down to zero over all epochs along half a cosine.
        clip_norm: Bound on the norm of the gradient for one datum (nats). Default: none.
        ema_decay: Average the weights over the steps, each step's share decaying at this rate
            (such as 0.999). The trained model then has the averaged weights. Default: no average.
        patience: Stop when the validation ELBO has not risen for so many epochs, and keep the
            weights of the best epoch. Default: train to the end and keep the last weights.
        seed: Of the order of the data and of all noise.
        device: "cpu", "cuda", …; "auto" takes a GPU where there is one, in several processes one for each.
        precision: Of the factors of matrix products in training: "float32", or "bfloat16", which is faster where the
            processor has it. Sums, results and all else are in the precision of the weights.
        compile: Record what the objective computes in the first step, and run that in the steps after it (see
            :class:`pyro_vae.compiled.CompiledELBO`): "on", "off", or "auto", where that can be done and the objective
            is one of Pyro's or ours.
        classifier_weight: Of the mean of log q(y|x) over the known labels, for each datum, of a ``ConditionalVAE``: its
            classifier learns from known labels by this alone. Kingma et al.'s alpha.

    Attributes:
        loss: What trains: the objective, or the compiled one.

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
        validation: Tensor | None = None,
        validation_y: Tensor | None = None,
        draw: Callable[[Tensor], Tensor] | None = None,
        objective: ELBO | None = None,
        epochs: int | None = None,
        batch_size: int | None = None,
        lr: float = 1e-3,
        lr_schedule: Literal["constant", "cosine"] = "constant",
        clip_norm: float | None = None,
        ema_decay: float | None = None,
        patience: int | None = None,
        seed: int = 0,
        device: str = "auto",
        precision: Literal["float32", "bfloat16"] = "float32",
        compile: Literal["auto", "on", "off"] = "auto",
        classifier_weight: float = 1.0,
    ):
        batch_size = default_batch_size(x) if batch_size is None else batch_size
        _require(batch_size >= 1, "batch_size", "at least 1", batch_size)
        _require(batch_size <= len(x), "batch_size", f"at most the number of training data, {len(x)}", batch_size)
        epochs = max(20, math.ceil(5000 / math.ceil(len(x) / batch_size))) if epochs is None else epochs
        _require(epochs >= 1, "epochs", "at least 1", epochs)
        _require(0 < lr < math.inf, "lr", "a positive number", lr)
        _require(lr_schedule in ("constant", "cosine"), "lr_schedule", '"constant" or "cosine"', lr_schedule)
        _require(clip_norm is None or clip_norm > 0, "clip_norm", "a positive number", clip_norm)
        _require(ema_decay is None or 0 < ema_decay < 1, "ema_decay", "a number between 0 and 1", ema_decay)
        _require(patience is None or patience >= 1, "patience", "at least 1", patience)
        _require(precision in ("float32", "bfloat16"), "precision", '"float32" or "bfloat16"', precision)
        _require(compile in ("auto", "on", "off"), "compile", '"auto", "on" or "off"', compile)
        _require(0 <= classifier_weight < math.inf, "classifier_weight", "a number of at least 0", classifier_weight)
        held_out = validation is not None and len(validation) > 0
        if patience is not None and not held_out:
            raise ValueError(f"patience={patience} needs validation data to stop by, but none came")

        self.device = resolve_device(device)
        self.look_every = 1 if self.device.type == "cpu" else 100  # steps between looks at the loss
        self.processes = Processes(self.device)
        if precision == "bfloat16":
            check_bfloat16(self.device)
        with own_seed(seed, device=self.device):
            vae.check(x if draw is None else draw(x[:1000]))
        if validation is not None:
            vae.check(validation)
        self.vae = vae.to(self.device)
        self.x = x.to(self.device)
        self.y = _labels(vae, x, y, self.device)
        self.draw = draw or _as_it_is
        # What the metrics of an epoch are measured on: without validation data, some of the training data.
        self.probe = validation.to(self.device) if validation is not None and held_out else self.x[:1000]
        self.probe_draw = _as_it_is if held_out else self.draw
        self.probe_y = self.y[:1000] if self.y is not None else None
        if self.y is not None and held_out:
            self.probe_y = _labels(vae, self.probe, validation_y, self.device)

        self.epochs, self.batch_size, self.seed, self.patience = epochs, batch_size, seed, patience
        self.lr, self.lr_schedule, self.clip_norm = lr, lr_schedule, clip_norm
        self.precision = precision
        self.optim = FusedOptim(torch.optim.Adam, {"lr": lr, "fused": True})
        objective = Trace_ELBO(max_plate_nesting=1) if objective is None else objective
        _require(objective.num_particles >= 1, "num_particles", "at least 1", objective.num_particles)
        if self.y is not None and (self.y == UNKNOWN).any():
            objective = _summed_out(objective, vae)
        check_objective(objective, vae.model, vae.guide, self.x if self.y is None else (self.x, self.y))
        self.objective: Any = objective
        known = type(objective).__module__.partition(".")[0] in ("pyro", "pyro_vae")
        compiled = compile == "on" or (compile == "auto" and known)
        self.loss: Any = CompiledELBO(objective, fallback=compile == "auto") if compiled else objective
        self.classifier_weight = classifier_weight
        self.labelled = torch.empty(0) if self.y is None else (self.y != UNKNOWN).nonzero()[:, 0]
        self._weight = 1.0  # what this process's share of the batch counts
        self._losses: list[Tensor] = []  # that were not looked at yet
        self._names: Any = {"params": {}, "constraints": {}}  # Pyro's, of the weights
        self.svi = SVI(vae.model, vae.guide, self.optim, loss=objective)
        self.svi.loss_and_grads = self._loss_and_grads
        average = get_ema_multi_avg_fn(ema_decay) if ema_decay is not None else None
        self.average = AveragedModel(self.vae, multi_avg_fn=average) if average else None

        self.epoch = 0
        self.history: list[Row] = []
        self.best_epoch, self.best_elbo = 0, -math.inf
        self.best: dict[str, Tensor] = {}

    def run(self, on_step: Callable[[int, int, float], None] | None = None) -> Iterator[Row]:
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

    @functools.cached_property
    def fingerprint(self) -> str:
        """What tells these training data from others."""
        return fingerprint(self.x)

    @property
    def finished(self) -> bool:
        """Whether the last epoch was reached, or the validation ELBO has not risen for long enough."""
        out_of_patience = self.patience is not None and self.epoch - self.best_epoch >= self.patience
        return self.epoch >= self.epochs or out_of_patience

    @property
    def not_compiled(self) -> str:
        """Why the steps are not compiled, where "auto" has tried."""
        return getattr(self.loss, "not_compiled", "")

    @property
    def evaluated(self) -> Any:
        """The model that validation looks at: with averaged weights where they are averaged."""
        return self.average.module if self.average else self.vae

    def _run_epoch(self, on_step: Callable[[int, int, float], None] | None) -> Row:
        start, total = time.perf_counter(), 0.0
        with self.stepping(self.epoch + 1):
            order = torch.randperm(len(self.x), device=self.device)
            if self.processes.size > 1:
                self.processes.take_from_first([order])
                set_seed(self.seed, self.epoch + 1, 1 + self.processes.rank)
            batches = order.split(self.batch_size)
            for step, rows in enumerate(batches):
                share, self._weight = self.processes.share(rows)
                batch = self._batch(share)
                self.optim.lr = self._lr_at(self.epoch + step / len(batches))
                # Pyro's losses are sums over the batch, so the bound on one datum's gradient scales with it.
                self.optim.clip_norm = None if self.clip_norm is None else self.clip_norm * len(rows)
                self.svi.step(*batch)
                if self.average:
                    self.average.update_parameters(self.vae)
                if (step + 1) % self.look_every and step + 1 < len(batches):
                    continue
                losses = self._take_losses()
                for number, loss in enumerate(losses, step + 2 - len(losses)):
                    if not math.isfinite(loss):
                        raise NonFiniteLoss(self._diagnosis(number, loss, total, batch[0]))
                    total += loss
                if on_step:
                    on_step(step + 1, len(batches), loss / len(rows))
        if not all(p.isfinite().all() for p in self.vae.parameters()):
            raise NonFiniteLoss(self._diagnosis(len(batches), math.nan, total, batch[0]))
        self._check_agreement()
        seconds = time.perf_counter() - start

        self.epoch += 1
        with own_seed(self.seed, device=self.device):
            probe = with_labels(self.probe_draw(self.probe), self.probe_y)
        self.evaluated.eval()
        with pyro.get_param_store().scope():
            terms = elbo_terms(self.evaluated.model, self.evaluated.guide, probe, seed=self.seed)
        means = torch.stack([term.mean() for term in terms])
        self.processes.take_from_first([means])  # since it decides when to stop
        reconstruction, kl = means.tolist()
        row = {
            "epoch": self.epoch,
            "loss": total / len(self.x),
            "elbo": reconstruction - kl,
            "reconstruction": reconstruction,
            "kl": kl,
            "lr": self.optim.lr,
            "seconds": seconds,
            "examples_per_second": len(self.x) / seconds,
        }
        self.history.append(row)
        if self.patience is not None and row["elbo"] > self.best_elbo:
            self.best_epoch, self.best_elbo = self.epoch, row["elbo"]
            self.best = copy.deepcopy(self.evaluated.state_dict())
        return row

    @contextlib.contextmanager
    def stepping(self, seed: int = 0) -> Iterator[None]:
        """Be ready for single steps, ``svi.step(*batch)``, with random numbers of their own."""
        self.vae.train()
        self._losses = []
        keep_freed_memory()
        # The data were checked once; checking each batch again would only cost time.
        with (
            own_seed(self.seed, seed, device=self.device),
            pyro.get_param_store().scope(self._names),  # the parameters are the VAE's own; Pyro's store is global
            pyro.validation_enabled(False),
            warnings.catch_warnings(),
            bfloat16_products() if self.precision == "bfloat16" else contextlib.nullcontext(),
        ):
            warnings.filterwarnings("ignore", "Encountered NaN")  # it ends the training, with the reason
            yield

    def _loss_and_grads(self, model: Callable, guide: Callable, *batch: Tensor) -> float | Tensor:
        loss = self.loss.loss_and_grads(model, guide, *batch)
        if len(batch) > 1 and self.classifier_weight:
            self._classifier_grads(*batch)
        self._losses.append(torch.as_tensor(loss, dtype=batch[0].dtype, device=self.device))
        if self.processes.size > 1:  # the losses are summed over the processes along with the gradients
            self._losses[-1] = total = self._losses[-1].clone()
            self.optim.reduce = lambda gradients: self.processes.sum([total, *gradients], self._weight)
        return self._losses[-1] if self.look_every == 1 else math.nan  # a number that SVI need not wait for

    def _take_losses(self) -> list[float]:
        """Return the losses of the steps since the last call, which waits for the device."""
        losses, self._losses = torch.stack(self._losses).tolist(), []
        return losses

    def _batch(self, rows: Tensor) -> tuple[Tensor, ...]:
        x = self.draw(self.x.index_select(0, rows))
        return (x,) if self.y is None else (x, self.y[rows])

    def _classifier_grads(self, x: Tensor, y: Tensor) -> None:
        """Add the gradient of the classifier's own loss: few labels are seen in each step, not when their data are."""
        size = len(x)
        if len(self.labelled) < len(self.x):
            if len(self.labelled) == 0:
                return
            rows = self.labelled[torch.randperm(len(self.labelled), device=self.device)[:size]]
            x, y = self._batch(rows)
        vae: Any = self.vae
        loss = torch.nn.functional.cross_entropy(vae.class_logits(x), y)
        (self.classifier_weight * size * loss).backward()

    def _check_agreement(self) -> None:
        if self.processes.size == 1:
            return
        weights = torch.cat([p.detach().flatten() for p in self.vae.parameters()])
        if not self.processes.agree(int(fingerprint(weights), 16) >> 1):  # 63 bits, which an integer tensor can hold
            raise ArithmeticError(
                f"the weights of the {self.processes.size} processes differ after epoch {self.epoch + 1}: "
                "run them on processors of one kind, and leave it to the training to change the weights"
            )

    def _lr_at(self, epoch: float) -> float:
        if self.lr_schedule == "constant":
            return self.lr
        return self.lr * 0.5 * (1 + math.cos(math.pi * epoch / self.epochs))

    def _diagnosis(self, step: int, loss: float, total: float, x: Tensor) -> str:
        if self.processes.any(bool((x.isinf() if self.vae.missing else ~x.isfinite()).any())):
            cause = "the batch holds values that are not finite"
        else:
            mean = total / (step - 1) / self.batch_size if step > 1 else math.nan
            cause = (
                f"the gradients grew too large (mean loss of this epoch until then: {mean:.4g} nats); "
                f"use a smaller lr than {self.lr:g}, or a clip_norm"
            )
        return f"the loss became {loss} at epoch {self.epoch + 1}, step {step}: {cause}"

    def state_dict(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Return all that resuming needs: tensors by name, and facts that JSON can hold."""
        tensors = {f"weights/{name}": tensor for name, tensor in self.vae.state_dict().items()}
        for name, param in self.vae.named_parameters():
            tensors |= {f"adam/{key}/{name}": tensor for key, tensor in self.optim.state_of(param).items()}
        if self.average:
            tensors |= {f"average/{name}": tensor for name, tensor in self.average.state_dict().items()}
        tensors |= {f"best/{name}": tensor for name, tensor in self.best.items()}
        facts = {
            "data": self.fingerprint,
            "epoch": self.epoch,
            "history": self.history,
            "objective_steps": getattr(self.objective, "steps", None),
            "best_epoch": self.best_epoch,
            "best_elbo": self.best_elbo if math.isfinite(self.best_elbo) else None,
        }
        return tensors, facts

    def load_state_dict(self, tensors: dict[str, Tensor], facts: dict[str, Any]) -> None:
        """Go on from what ``state_dict`` returned.

        Raises:
            ValueError: When it belongs to another model.
        """
        if facts["data"] != self.fingerprint:
            raise ValueError("the training data are not those that the checkpoint was made with")
        groups: dict[str, dict[str, Tensor]] = {"weights": {}, "adam": {}, "average": {}, "best": {}}
        for key, tensor in tensors.items():
            group, _, name = key.partition("/")
            groups[group][name] = tensor.to(self.device)
        try:
            self.vae.load_state_dict(groups["weights"])
            if self.average:
                self.average.load_state_dict(groups["average"])
        except RuntimeError as error:
            raise ValueError(f"the checkpoint belongs to another model: {error}") from error
        moments: dict[str, dict[str, Tensor]] = {}
        for key, tensor in groups["adam"].items():
            moment, _, name = key.partition("/")
            moments.setdefault(name, {})[moment] = tensor
        shapes = {name: tensor.shape for name, tensor in self.vae.state_dict().items()}
        wrong = [name for name, tensor in groups["best"].items() if tensor.shape != shapes.get(name)]
        for name, state in moments.items():
            wrong += [name for moment, t in state.items() if t.shape != (() if moment == "step" else shapes.get(name))]
        if wrong:
            raise ValueError(f"the checkpoint belongs to another model: {wrong[0]} has another shape")
        by_name = sorted(self.vae.named_parameters())  # the optimiser's own order
        self.optim.restore({param: moments[name] for name, param in by_name if name in moments})
        self.best = groups["best"]
        self.epoch, self.history, self.best_epoch = facts["epoch"], facts["history"], facts["best_epoch"]
        if facts["objective_steps"] is not None:
            self.objective.steps = facts["objective_steps"]
        self.best_elbo = -math.inf if facts["best_elbo"] is None else facts["best_elbo"]


def fit(vae: VAE, x: Tensor, **options: Any) -> list[Row]:
    """Train ``vae`` on ``x`` in place, and return each epoch's metrics.

    Args:
        vae: The model and guide to train.
        x: Training data, (N, D).
        **options: As for :class:`Training`.

    Example:
        >>> from pyro_vae import build
        >>> history = fit(build((1, 4, 4)), torch.rand(200, 16).round(), epochs=2)
        >>> len(history)
        2
    """
    return list(Training(vae, x, **options).run())


def default_batch_size(x: Tensor) -> int:
    """Return how many data are in a step, where the user doesn't say."""
    return min(128, len(x))


def fingerprint(x: Tensor) -> str:
    """Return a hash of data, which differs where any of them, or their order, differs."""
    return hashlib.sha256(x.cpu().contiguous().numpy().tobytes()).hexdigest()[:16]


def with_labels(x: Tensor, y: Tensor | None) -> Data:
    """Return the data as a program takes them: with their labels, (N,), if all are known, and else without."""
    return x if y is None or bool((y == UNKNOWN).any()) else (x, y)


def _labels(vae: VAE, x: Tensor, y: Tensor | None, device: torch.device) -> Tensor | None:
    """Return the labels of some data, (N,); None for a VAE that takes none."""
    if not isinstance(vae, ConditionalVAE):
        if y is not None:
            raise ValueError("y: labels are for a ConditionalVAE, as build(..., num_classes=...) makes; leave them out")
        return None
    if y is None:
        return torch.full((len(x),), UNKNOWN, device=device)
    if y.shape != (len(x),):
        raise ValueError(f"y: expected one label for each of the {len(x)} data, got shape {tuple(y.shape)}")
    vae.check_labels(y)
    return y.to(device)


def _summed_out(objective: ELBO, vae: Any) -> ELBO:
    """Return the objective for data of which some labels are unknown; a prior alone sums them out by itself."""
    if vae.classifier is None:
        return objective
    if type(objective) is not Trace_ELBO:
        raise ValueError(
            f"objective: {type(objective).__name__} needs all labels; where some are unknown, Trace_ELBO sums them out"
        )
    return SummedOutELBO(vae.class_logits, num_particles=objective.num_particles)


def _as_it_is(x: Tensor) -> Tensor:
    return x


def _require(holds: bool, name: str, expected: str, got: Any) -> None:
    if not holds:
        raise ValueError(f"{name}: expected {expected}, got {got}")
