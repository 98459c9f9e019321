"""Several trainings, so that each datum has a model that did not see it."""

from collections.abc import Callable, Iterator
from typing import TypeVar

import torch
from torch import Tensor

from pyro_vae.data.arrays import find_rows

Model = TypeVar("Model")


def cross_fit(
    train: Callable[[Tensor], Model], x: Tensor, *, num_folds: int = 5, seed: int = 0
) -> Iterator[tuple[Model, Tensor]]:
    r"""Train a model without each fold of the data in turn.

    With folds :math:`I_1, \dots, I_K`, the model :math:`p_{-k}` that is trained on all data but those of fold k has not
    seen any datum of it, nor one equal to it: rows that occur several times are in one fold. A datum i of fold k gets
    by :math:`\log p_{-k}(x_i)` what a new one would, where the model of all data knows its own too well.

    Args:
        train: Takes the indices of the data to train on, and returns the trained model.
        x: The data, (N, D).
        num_folds: K, at least 2.
        seed: Of the random folds.

    Yields:
        A model, and the indices of the data that it did not see, fold after fold.

    Raises:
        ValueError: If there are not as many different rows as folds.

    Reference:
        Stone (1974), Cross-Validatory Choice and Assessment of Statistical Predictions, section 1.

    Example:
        >>> from pyro_vae import build, fit
        >>> x = torch.rand(40, 16).round()
        >>> def train(rows):
        ...     vae = build((1, 4, 4), latent_dim=2, hidden_dims=[8])
        ...     fit(vae, x[rows], epochs=1)
        ...     return vae
        >>> sum(len(rows) for vae, rows in cross_fit(train, x, num_folds=4))
        40
    """
    first = find_rows(x, x)
    different = first.unique()
    if not 2 <= num_folds <= len(different):
        raise ValueError(
            f"num_folds: expected from 2 to {len(different)}, the number of different rows, got {num_folds}"
        )
    fold_of = torch.empty(len(x), dtype=torch.long)
    shuffled = different[torch.randperm(len(different), generator=torch.Generator().manual_seed(seed))]
    fold_of[shuffled] = torch.arange(len(different)) % num_folds
    fold_of = fold_of[first]
    for k in range(num_folds):
        yield train((fold_of != k).nonzero()[:, 0]), (fold_of == k).nonzero()[:, 0]
