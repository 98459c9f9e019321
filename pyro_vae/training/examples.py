"""The data of a training: on its device, with their labels, and what its progress is measured on."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from pyro_vae.conditional import ConditionalVAE
from pyro_vae.data.arrays import ShowsShapes
from pyro_vae.data.labels import UNKNOWN, with_labels
from pyro_vae.machine.devices import own_seed
from pyro_vae.vae import VAE

Draw = Callable[[Tensor], Tensor]


@dataclass(frozen=True, eq=False, repr=False)
class Examples(ShowsShapes):
    """What a VAE is trained on.

    Attributes:
        x: Training data, (N, D).
        y: Their labels, (N,), -1 where unknown; None for a VAE that takes none.
        draw: Makes a random version of each batch; None where nothing is random.
        validation: Held-out data, (M, D); M may be 0.
        validation_y: Their labels, (M,).
    """

    x: Tensor
    y: Tensor | None
    draw: Draw | None
    validation: Tensor
    validation_y: Tensor | None

    def __len__(self) -> int:
        return len(self.x)

    def batch(self, rows: Tensor) -> tuple[Tensor, ...]:
        """Return what a step takes: the data of some rows, in a random version, and their labels."""
        x = self.drawn(self.x.index_select(0, rows))
        return (x,) if self.y is None else (x, self.y[rows])

    def drawn(self, x: Tensor) -> Tensor:
        """Return a random version of data."""
        return x if self.draw is None else self.draw(x)

    def probe(self, seed: int) -> Tensor | tuple[Tensor, Tensor]:
        """Return what an epoch is measured on: the validation data, or without any some of the training data."""
        if len(self.validation):
            return with_labels(self.validation, self.validation_y)
        with own_seed(seed, device=self.x.device):
            return with_labels(self.drawn(self.x[:1000]), None if self.y is None else self.y[:1000])

    @property
    def some_labels_unknown(self) -> bool:
        """Whether there are labels, and not all are known."""
        return self.y is not None and bool((self.y == UNKNOWN).any())


def examples(
    vae: VAE,
    x: Tensor,
    y: Tensor | None,
    draw: Draw | None,
    validation: Tensor | None,
    validation_y: Tensor | None,
    *,
    seed: int,
    device: torch.device,
) -> Examples:
    """Check data, and move them to the device as a whole.

    Raises:
        ValueError: For data that the likelihood refuses, and labels that don't fit.
    """
    x = vae.rows(x)
    with own_seed(seed, device=device):
        vae.check(x if draw is None else draw(x[:1000]))
    if validation is None:
        validation = x[:0]
    else:
        validation = vae.rows(validation, "validation")
        vae.check(validation)
    return Examples(
        x.to(device),
        _labels(vae, x, y, device),
        draw,
        validation.to(device),
        _labels(vae, validation, validation_y if isinstance(vae, ConditionalVAE) else None, device),
    )


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
