"""Training in one call."""

import inspect
from collections.abc import Callable
from dataclasses import fields
from typing import Any, TypeVar

from pyro.infer import ELBO

from pyro_vae.data import Data
from pyro_vae.data.arrays import Array, as_tensor
from pyro_vae.training.examples import Draw
from pyro_vae.training.loop import Row, Training
from pyro_vae.training.options import Options
from pyro_vae.training.progress import TrainingProgress
from pyro_vae.vae import VAE

F = TypeVar("F", bound=Callable[..., list[Row]])


def _with_options(function: F) -> F:
    """Show the options, which stand in :class:`Options` alone, in a function's signature as well."""
    own = inspect.signature(function)
    options = [
        inspect.Parameter(field.name, inspect.Parameter.KEYWORD_ONLY, default=field.default, annotation=field.type)
        for field in fields(Options)
    ]
    named = [parameter for parameter in own.parameters.values() if parameter.kind is not parameter.VAR_KEYWORD]
    function.__signature__ = own.replace(parameters=[*named, *options])  # type: ignore[attr-defined]
    return function


@_with_options
def fit(
    vae: VAE,
    data: Data | Array,
    *,
    y: Array | None = None,
    draw: Draw | None = None,
    validation: Array | None = None,
    validation_y: Array | None = None,
    objective: ELBO | None = None,
    progress: bool | None = None,
    **options: Any,
) -> list[Row]:
    """Train ``vae`` on data in place, and return each epoch's metrics.

    A VAE whose weights are still those that its parts were built with starts at the marginals of the data.

    Args:
        vae: The model and guide to train.
        data: What :func:`pyro_vae.data.load` returns: its training data, validation data and labels are used.
            Or the training data alone, as a tensor, an array or a data frame, (N, D) or (N, H, W).
        y: Their labels, (N,), -1 where unknown, for a :class:`pyro_vae.ConditionalVAE`. Default: all unknown.
        draw: Makes a random version of each training batch, such as ``torch.bernoulli``.
        validation: Held-out data, (M, D), to follow the training and to stop early by.
        validation_y: Their labels, (M,). Where any is unknown, all are taken to be.
        objective: One of Pyro's ELBO classes, or of ours. Default: ``Trace_ELBO``.
        progress: Show the epochs as they go. Default: on a terminal and in a notebook.
        **options: Those of :class:`pyro_vae.training.Options`, such as ``epochs``, ``batch_size`` and ``lr``.

    Returns:
        A row for each epoch, as :meth:`pyro_vae.training.Training.run` gives it.

    Raises:
        TypeError: For an option that there is not.
        ValueError: For options, data and labels that make no sense together.

    Example:
        >>> import torch
        >>> from pyro_vae import build
        >>> history = fit(build((1, 4, 4)), torch.rand(200, 16).round(), epochs=2)
        >>> len(history)
        2
    """
    if isinstance(data, Data):
        given = {"y": y, "draw": draw, "validation": validation, "validation_y": validation_y}
        twice = [name for name, value in given.items() if value is not None]
        if twice:
            raise ValueError(f"{twice[0]}: the data have their own; leave it out, or pass data.train alone")
        labels = data.labels if data.num_classes and data.labels else {}
        x, draw, validation = data.train, data.draw, data.validation
        y, validation_y = labels.get("train"), labels.get("validation")
    else:
        x = vae.rows(data, "data")
    training = Training(
        vae,
        x,
        y=None if y is None else as_tensor("y", y),
        draw=draw,
        validation=None if validation is None else vae.rows(validation, "validation"),
        validation_y=None if validation_y is None else as_tensor("validation_y", validation_y),
        objective=objective,
        **options,
    )
    with TrainingProgress(training.epochs, is_density=vae.likelihood.is_density, show=progress) as shown:
        for row in training.run(shown.step):
            shown.row(row)
    return training.history
