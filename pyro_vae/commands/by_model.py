"""Work on examples of several models, such as those of their classes."""

from collections.abc import Callable, Sequence
from dataclasses import fields
from typing import Any, TypeVar

import torch
from torch import Tensor

from pyro_vae.commands.progress import progress_bar
from pyro_vae.conditional import ConditionalVAE
from pyro_vae.data.labels import UNKNOWN
from pyro_vae.evidence.result import Evidence, concatenate, rows_of
from pyro_vae.vae import VAE

Progress = Callable[[int, int], None]
Result = TypeVar("Result")


def by_class(vae: VAE, labels: Tensor | None, count: int, what: str, work: Callable[..., Result]) -> Result:
    """Work on all examples; with a conditional model on those of each class by the model of that class.

    Args:
        vae: The model.
        labels: The examples' classes, (N,), -1 where unknown, which takes a model that can sum them out; None of a
            model that is none of labels.
        count: N.
        what: As for :func:`by_model`.
        work: As for :func:`by_model`.

    Returns:
        What ``work`` returned for all examples, in their order.
    """
    parts: list[tuple[VAE, Tensor]] = [(vae, torch.arange(count))]
    if isinstance(vae, ConditionalVAE):
        assert labels is not None
        parts = [(_model(vae, label), (labels == label).nonzero()[:, 0]) for label in labels.unique().tolist()]
    return by_model(parts, what, work)


def by_model(parts: Sequence[tuple[VAE, Tensor]], what: str, work: Callable[..., Result]) -> Result:
    """Work on examples that belong to several models.

    Args:
        parts: Each model, and the indices of its examples, from 0 to N - 1 in all.
        what: To show beside the progress.
        work: Takes an ordinary VAE, the indices of its examples, and what to call with how much is done, and of how
            much; returns a dataclass of tensors.

    Returns:
        What ``work`` returned for all examples, in their order.
    """
    found, done, count = [], 0, sum(len(rows) for _, rows in parts)
    with progress_bar(what) as progress:
        for part, rows in parts:

            def report(now: int, whole: int, before: int = done, own: int = len(rows)) -> None:
                progress(before * whole + now * own, count * whole)

            found.append(work(part, rows, report))
            done += len(rows)
    return found[0] if len(found) == 1 else _in_order(found, torch.cat([rows for _, rows in parts]).argsort())


def _model(vae: ConditionalVAE, label: int) -> VAE:
    model = vae.given(label) if label != UNKNOWN else vae.summed_out()
    assert model is not None
    return model


def _in_order(parts: Sequence[Result], order: Tensor) -> Result:
    """Join dataclasses along their examples, and bring these into an order."""
    joined: dict[str, Any] = {}
    for field in fields(parts[0]):  # type: ignore[arg-type]
        values = [getattr(part, field.name) for part in parts]
        joined[field.name] = None if values[0] is None else _join(values, order)
    return type(parts[0])(**joined)


def _join(values: Sequence[Any], order: Tensor) -> Tensor | Evidence:
    if not isinstance(values[0], Tensor):
        return rows_of(concatenate(values), order)
    dim = max(values[0].dim() - 2, 0)  # of (N,), (N, D) or (M, N, D)
    return torch.cat([*values], dim).index_select(dim, order.to(values[0].device))
