"""The state of a training: all that resuming needs, as tensors and as facts that JSON can hold."""

import math
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from torch import Tensor

if TYPE_CHECKING:
    from pyro_vae.training.loop import Training

Tensors = dict[str, Tensor]


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
    _check_shapes({name: tensor.shape for name, tensor in training.vae.state_dict().items()}, moments, groups["best"])
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


def _check_shapes(shapes: dict[str, Any], moments: dict[str, Tensors], best: Tensors) -> None:
    """Refuse tensors of another shape than the weights that they belong to."""
    wrong = [name for name, tensor in best.items() if tensor.shape != shapes.get(name)]
    for name, state in moments.items():
        wrong += [name for moment, t in state.items() if t.shape != (() if moment == "step" else shapes.get(name))]
    if wrong:
        raise ValueError(f"the checkpoint belongs to another model: {wrong[0]} has another shape")
