"""The state of a training: all that resuming needs, as tensors and as facts that JSON can hold."""

import math
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from pyro_vae.machine.facts import check_facts

if TYPE_CHECKING:
    from pyro_vae.training.loop import Training

Tensors = dict[str, Tensor]
MOMENTS = {"step", "exp_avg", "exp_avg_sq"}  # what Adam keeps of each parameter
FACTS: dict[str, Any] = {
    "data": (str,),
    "options": (dict,),
    "epoch": (int,),
    "history": ([dict],),
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
    return tensors, {
        "data": training.fingerprint,
        "options": asdict(training.options),
        "epoch": training.epoch,
        "history": training.history,
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
    if facts["data"] != training.fingerprint:
        raise ValueError("the training data are not those that the checkpoint was made with")
    training.options.check_goes_on(facts.get("options", {}))
    groups: dict[str, Tensors] = {"weights": {}, "adam": {}, "average": {}, "best": {}}
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
    training.epoch, training.history = facts["epoch"], facts["history"]
    training.best_epoch, training.best = facts["best_epoch"], groups["best"]
    training.best_elbo = -math.inf if facts["best_elbo"] is None else facts["best_elbo"]
    by_name = sorted(training.vae.named_parameters())  # the optimiser's own order
    training.optim.restore(
        {param: moments[name] for name, param in by_name if name in moments},
        steps=training.epoch * training.steps_per_epoch,
    )
    if facts["objective_steps"] is not None:
        training.objective.steps = facts["objective_steps"]


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
