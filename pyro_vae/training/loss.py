"""What SVI minimises: the objective, and a classifier's loss beside it, over the shares of all processes."""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from pyro.infer import ELBO, Trace_ELBO
from torch import Tensor, nn

from pyro_vae.compiled import CompiledELBO
from pyro_vae.conditional import ConditionalVAE
from pyro_vae.data.labels import UNKNOWN
from pyro_vae.machine.distributed import Processes
from pyro_vae.objectives import KLWeightedELBO, check_closed_forms
from pyro_vae.objectives.summed_out import SummedOutELBO
from pyro_vae.training.examples import Examples
from pyro_vae.vae import VAE

# Of Pyro's objectives, those that can't train a VAE, and why.
_UNSUITABLE = {
    **dict.fromkeys(
        ("JitTrace_ELBO", "JitTraceGraph_ELBO", "JitTraceEnum_ELBO"),
        "is traced by torch, which fails here; take the one without Jit, which compile=... compiles",
    ),
    "ReweightedWakeSleep": "returns two losses, with gradients of their own; take ImportanceWeightedELBO",
    "TraceTailAdaptive_ELBO": "has no finite loss, and no gradient of the model; take Trace_ELBO",
    "Trace_MMD": "compares whole samples of data rather than each datum; take Trace_ELBO",
}


class Loss:
    r"""The loss of a batch, a sum over its data, with its gradient clipped.

    .. math:: \nabla \sum_{i \in B} \ell_i, \quad \text{scaled down where its norm exceeds } |B|\,c

    The objectives of Pyro are sums over the batch, so that the bound c on the gradient for one datum scales with it.
    The values of the loss stay on the device until :meth:`take`, so that no step waits for a GPU.

    Args:
        objective: What to minimise, (nats).
        vae: The one that is trained.
        processes: That share each batch.
        clip_norm: c; None for no bound.
        classifier: Adds the gradient of a loss of its own.
    """

    def __init__(
        self, objective: Any, vae: VAE, processes: Processes, clip_norm: float | None, classifier: "Classifier | None"
    ):
        self.objective, self.processes, self.clip_norm, self.classifier = objective, processes, clip_norm, classifier
        self.vae = vae
        self._values: list[Tensor] = []

    def loss(self, model: Callable, guide: Callable, *batch: Tensor, **_: Any) -> float:
        """Return the objective's loss, without a gradient."""
        return self.objective.loss(model, guide, *batch)

    def loss_and_grads(
        self, model: Callable, guide: Callable, *batch: Tensor, size: int, weight: float = 1.0
    ) -> tuple[()]:
        """Add the gradient of the loss to that of each parameter, and keep the loss for :meth:`take`.

        Args:
            model: The model.
            guide: The guide.
            *batch: This process's share of the batch.
            size: How many data the whole batch has.
            weight: What this share counts in the sum over the processes.

        Returns:
            No numbers, for which SVI would wait.
        """
        loss = self.objective.loss_and_grads(model, guide, *batch)
        if self.classifier is not None:
            self.classifier.add_gradient(*batch)
        total = torch.as_tensor(loss, dtype=batch[0].dtype, device=batch[0].device)
        if self.processes.size > 1:
            total = total.clone()
            self.processes.sum([total, *(gradient for _, gradient in self._gradients())], weight)
        if self.clip_norm is not None:
            nn.utils.clip_grad_norm_([param for param, _ in self._gradients()], self.clip_norm * size)
        self._values.append(total)
        return ()

    def _gradients(self) -> Iterator[tuple[nn.Parameter, Tensor]]:
        """Yield the trained parameters, by name: the order of all processes, and that which the norm is rounded in."""
        for _, param in sorted(self.vae.named_parameters()):
            if param.grad is not None:
                yield param, param.grad

    def take(self) -> list[float]:
        """Return the losses of the steps since the last call, in nats, which waits for the device."""
        values, self._values = torch.stack(self._values).tolist() if self._values else [], []
        return values


class Classifier:
    r"""The loss of q(y|x) on the known labels, for a batch of B data.

    .. math:: \alpha B \, \mathrm{E}_{\text{known } (x, y)}[-\log q(y|x)]

    Where all labels are known, the mean is that of the batch. A few known ones are drawn in each step, rather than
    when their data are: they would be too few in a batch.

    Args:
        vae: Whose classifier it is.
        data: The training data.
        weight: :math:`\alpha`.

    Reference:
        Kingma, Rezende, Mohamed & Welling (2014), Semi-supervised Learning with Deep Generative Models, equation 9.
    """

    def __init__(self, vae: ConditionalVAE, data: Examples, weight: float):
        assert data.y is not None
        self.vae, self.data, self.weight = vae, data, weight
        self.known = (data.y != UNKNOWN).nonzero()[:, 0]

    def add_gradient(self, x: Tensor, y: Tensor) -> None:
        """Add the gradient for a batch to that of each parameter."""
        size = len(x)
        if len(self.known) < len(self.data):
            if len(self.known) == 0:
                return
            x, y = self.data.batch(self.known[torch.randperm(len(self.known), device=x.device)[:size]])
        loss = nn.functional.cross_entropy(self.vae.class_logits(x), y)
        (self.weight * size * loss).backward()


def objective_for(vae: VAE, data: Examples, objective: ELBO | None) -> ELBO:
    """Return the objective, ``Trace_ELBO`` by default; where only some labels are known one that sums out the others.

    Raises:
        ValueError: For one that can't do what it is asked for with this VAE.
    """
    objective = Trace_ELBO(max_plate_nesting=1) if objective is None else objective
    _check_trainable(objective)
    if objective.num_particles < 1:
        raise ValueError(f"num_particles: expected at least 1, got {objective.num_particles}")
    # What the prior alone looks at, it sums out by itself.
    if data.some_labels_unknown and isinstance(vae, ConditionalVAE) and vae.classifier is not None:
        if type(objective) is not Trace_ELBO:
            name = type(objective).__name__
            raise ValueError(f"objective: {name} needs all labels; where some are unknown, Trace_ELBO sums them out")
        objective = SummedOutELBO(vae.class_logits, num_particles=objective.num_particles)
    check_closed_forms(objective, vae.model, vae.guide, data.x if data.y is None else (data.x, data.y))
    return objective


def _check_trainable(objective: Any) -> None:
    """Refuse what is no objective, and those of Pyro that can't train a VAE by steps on batches.

    Raises:
        ValueError: Naming it, and what to take.
    """
    name = type(objective).__name__
    if not isinstance(objective, ELBO):
        came = f"the class {objective.__name__}; call it" if isinstance(objective, type) else name
        raise ValueError(f"objective: expected one of Pyro's ELBO objects, or of ours, got {came}")
    if reason := _UNSUITABLE.get(name):
        raise ValueError(f"objective: {name} {reason}")


def aims_at_elbo(objective: ELBO) -> bool:
    """Whether the ELBO is maximised in the end, rather than a tighter bound or one of other weights."""
    if isinstance(objective, KLWeightedELBO):
        return objective.kl_weight == 1 and not objective.free_bits
    return isinstance(objective, Trace_ELBO)


def compiled(objective: ELBO, how: str) -> Any:
    """Return the objective compiled: "on", "off", or "auto", where it is one of Pyro's or ours and can be compiled."""
    known = type(objective).__module__.partition(".")[0] in ("pyro", "pyro_vae")
    if how == "on" or (how == "auto" and known):
        return CompiledELBO(objective, fallback=how == "auto")
    return objective
