"""The state of a training: all that resuming needs, as tensors and as facts that JSON can hold."""

import math
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from pyro_vae.data.source import difference
from pyro_vae.machine.devices import random_states
from pyro_vae.machine.facts import check_facts
from pyro_vae.training.epoch import Epoch

if TYPE_CHECKING:
    from pyro_vae.training.loop import Training

Tensors = dict[str, Tensor]
MOMENTS = {"step", "exp_avg", "exp_avg_sq"}  # what Adam keeps of each parameter
FACTS: dict[str, Any] = {
    "data": (str, dict),
    "options": (dict,),
    "epoch": (int,),
    "history": ([dict],),
    "within": (dict, None),
    "objective_steps": (int, None),
    "best_epoch": (int,),
    "best_elbo": (int, float, None),
}


def state_of(training: "Training") -> tuple[Tensors, dict[str, Any]]:
    """Return a training's state: tensors by name, and facts."""
    vae = training.vae
    tensors = {f"weights/{name}": tensor for name, tensor in vae.state_dict().items()}
    for name, param in vae.named_parameters():
        tensors |= {f"adam/{key}/{name}": tensor for key, tensor in training.optim.state_of(param).items()}
    if training.average:
        tensors |= {f"average/{name}": tensor for name, tensor in training.average.state_dict().items()}
    tensors |= {f"best/{name}": tensor for name, tensor in training.best.items()}
    under_way, within = training.under_way, None
    if under_way is not None:
        random = under_way.random or random_states(training.device)
        tensors |= {"epoch/order": under_way.order} | {f"random/{kind}": state for kind, state in random.items()}
        within = {"step": under_way.step, "total": under_way.total, "seconds": under_way.seconds}
    return tensors, {
        "data": training.fingerprints,
        "options": asdict(training.options),
        "epoch": training.epoch,
        "within": within,
        "history": list(training.history),
        "objective_steps": getattr(training.objective, "steps", None),
        "best_epoch": training.best_epoch,
        "best_elbo": training.best_elbo if math.isfinite(training.best_elbo) else None,
    }


def restore(training: "Training", tensors: Tensors, facts: dict[str, Any]) -> None:
    """Put a state into a training, which goes on from it.

    Raises:
        ValueError: When it belongs to other data, to other options or to another model.
    """
    check_facts("the checkpoint", facts, **FACTS)
    history = facts["history"]
    if len(history) != facts["epoch"] or any(type(v) not in (int, float) for row in history for v in row.values()):
        raise ValueError(f"the checkpoint: history: expected numbers of each of {facts['epoch']} epochs, got others")
    if part := difference(facts["data"], training.fingerprints):
        raise ValueError(f"the training data are not those that the checkpoint was made with: other data in {part}")
    training.options.check_goes_on(facts.get("options", {}))
    groups: dict[str, Tensors] = {"weights": {}, "adam": {}, "average": {}, "best": {}, "epoch": {}, "random": {}}
    for key, tensor in tensors.items():
        group, _, name = key.partition("/")
        groups[group][name] = tensor.to(training.device)
    try:
        training.vae.load_state_dict(groups["weights"])
        if training.average:
            training.average.load_state_dict(groups["average"])
    except RuntimeError as error:
        raise ValueError(f"the checkpoint belongs to another model: {error}") from error
    moments: dict[str, Tensors] = {}
    for key, tensor in groups["adam"].items():
        moment, _, name = key.partition("/")
        moments.setdefault(name, {})[moment] = tensor
    _check_tensors(training.vae.state_dict(), moments, groups["best"])
    training.under_way = _under_way(training, groups, facts.get("within"))
    training.epoch, training.history = facts["epoch"], facts["history"]
    training.best_epoch, training.best = facts["best_epoch"], groups["best"]
    training.best_elbo = -math.inf if facts["best_elbo"] is None else facts["best_elbo"]
    by_name = sorted(training.vae.named_parameters())  # the optimiser's own order
    training.optim.restore(
        {param: moments[name] for name, param in by_name if name in moments},
        steps=training.epoch * training.steps_per_epoch + (training.under_way.step if training.under_way else 0),
    )
    if facts["objective_steps"] is not None:
        training.objective.steps = facts["objective_steps"]


def _under_way(training: "Training", groups: dict[str, Tensors], within: dict[str, Any] | None) -> Epoch | None:
    """Return the epoch that the state was in the middle of.

    Raises:
        ValueError: When it is none of this training.
    """
    if within is None:
        return None
    check_facts("the checkpoint: within", within, step=(int,), total=(int, float), seconds=(int, float))
    order, step, size = groups["epoch"]["order"], within["step"], len(training.data)
    random = {kind: state.cpu() for kind, state in groups["random"].items()}
    if not (
        order.dtype == torch.int64
        and torch.equal(order.sort().values, torch.arange(size, device=order.device))
        and 0 < step < training.steps_per_epoch
        and all(state.dtype == torch.uint8 and state.dim() == 2 for state in random.values())
        and random["cpu"].shape[1:] == torch.get_rng_state().shape
    ):
        raise ValueError(f"the checkpoint is in no epoch of {size} data in {training.steps_per_epoch} steps")
    return Epoch(order, step, within["total"], within["seconds"], random)


def _check_tensors(weights: Tensors, moments: dict[str, Tensors], best: Tensors) -> None:
    """Refuse tensors that are missing, or of another shape or type than the weights that they belong to."""

    def fits(name: str, tensor: Tensor) -> bool:
        own = weights.get(name)
        return own is not None and (tensor.shape, tensor.dtype) == (own.shape, own.dtype)

    wrong = [name for name, tensor in best.items() if not fits(name, tensor)]
    missing = sorted(weights.keys() - best.keys() if best else ())
    missing += [name for name, state in moments.items() if state.keys() != MOMENTS]
    if missing:
        raise ValueError(f"the checkpoint is incomplete: what belongs to {missing[0]} is missing")
    for name, state in moments.items():
        wrong += [name for moment, tensor in state.items() if moment != "step" and not fits(name, tensor)]
        wrong += [name] * (state["step"].shape != () or state["step"].dtype != torch.float32)
    if wrong:
        raise ValueError(f"the checkpoint belongs to another model: {wrong[0]} has another shape or type")
