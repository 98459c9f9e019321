"""The three abstract parts of a VAE: a prior p(z), an encoder q(z|x) and a likelihood p(x|z).

Each is an ``nn.Module`` whose ``forward`` returns a Pyro distribution, so a part with
learned parameters and a part without any are used in the same way.

A part may also be built from the command line. It then asks for what it needs by naming
it in its constructor: ``z_dim``, ``x_dim``, ``network``, ``encoder``, ``levels`` … are
filled in by :func:`pyro_vae.build`; every other parameter is an option of the user's.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import Any

import torch
from pyro.distributions import Distribution, Independent
from torch import Tensor, nn
from torch.distributions import constraints

from pyro_vae.data.tables import Schema


class Prior(nn.Module, ABC):
    """p(z): a distribution over one latent vector."""

    @abstractmethod
    def forward(self) -> Distribution:
        """Return p(z), with batch shape () and event shape (z_dim,)."""

    def initialize(self, x: Tensor) -> None:
        """Set starting values that depend on the training data ``x``, (N, D). Default: none."""


class Encoder(nn.Module, ABC):
    """q(z|x): an approximate posterior, computed from the datum."""

    @staticmethod
    @abstractmethod
    def num_outputs(z_dim: int) -> int:
        """Return how many numbers the encoder's network has to put out for each datum."""

    @abstractmethod
    def forward(self, x: Tensor) -> Distribution:
        """Return q(z|x) for x of shape (..., D), with batch shape (...) and event shape (z_dim,)."""


class Likelihood(nn.Module, ABC):
    """p(x|z): a distribution over one datum, from the decoder's raw outputs.

    Attributes:
        params_per_element: How many raw numbers the decoder puts out for each element of x.
        pixels: The form in which it wants pixels, unless the user says otherwise:
            "binarized", "levels" (whole numbers 0 … levels - 1) or "dequantized" (in [0, 1]).
        support: The values that one element of x may take.
        accepts: The same in words, for error messages.
        is_density: False where the "likelihood" is only a loss, so that log P(X) has no meaning.
        takes_blanks: Whether ``initialize`` leaves blanks (NaN) out; else they are filled before, from their column.
    """

    params_per_element: int = 1
    pixels: str = "levels"
    support: constraints.Constraint = constraints.real
    accepts: str = "real numbers"
    is_density: bool = True
    takes_blanks: bool = False

    @abstractmethod
    def forward(self, raw: Tensor) -> Distribution:
        """Return p(x|z) for raw of shape (..., D, params_per_element), with event shape (D,)."""

    def initialize(self, x: Tensor) -> None:
        """Set starting values that depend on the training data ``x``, (N, D). Default: none."""

    def initial_raw(self, x: Tensor) -> Tensor | None:
        """Return raw outputs (D, params_per_element) that suit the training data ``x``, (N, D).

        The decoder's bias starts there, so that training starts at the marginals of the
        data rather than at an arbitrary point. ``None`` leaves the bias as it is.
        """
        return None

    def as_input(self, x: Tensor) -> Tensor:
        """Return data without blanks, (..., D), on the scale on which networks see them best. Default: as they are."""
        return x

    def at_smallest_scale(self, raw: Tensor) -> Tensor | None:
        """Return where the scale is the smallest that is allowed, (..., D), for raw as in ``forward``.

        There a density that has no other bound was kept from growing without end. ``None`` where none is.
        """
        return None

    def fill(self, x: Tensor) -> Tensor:
        """Return ``x``, (..., D), with any value of the support where it is blank (NaN). Default: 0."""
        return torch.where(x.isnan(), 0.0, x)

    def observed_part(self, p: Distribution, observed: Tensor) -> Distribution:
        r"""Return the distribution of the observed elements alone, the others summed out.

        .. math:: p(x_\mathrm{observed}|z) = \prod_{d\ \mathrm{observed}} p(x_d|z)

        A likelihood whose elements depend on each other given z has to do this in its own way.

        Args:
            p: What ``forward`` returned.
            observed: Which elements are observed, (..., D).

        Raises:
            ValueError: If the elements aren't independent given z.
        """
        if not (isinstance(p, Independent) and p.reinterpreted_batch_ndims == 1):
            raise ValueError(
                f"{type(self).__name__} returns {type(p).__name__}, whose elements may depend on each other, so that "
                "blanks can't be left out of it: give it an observed_part of its own"
            )
        return p.base_dist.mask(observed).to_event(1)

    def check(self, x: Tensor) -> None:
        """Refuse data outside the support.

        Args:
            x: Data, (N, D).

        Raises:
            ValueError: Naming the likelihood, what it accepts, what came, and what would fit.
        """
        outside = ~(self.support.check(x) & x.isfinite())
        if outside.any():
            raise ValueError(
                f"{type(self).__name__} takes {self.accepts}, but {int(outside.sum())} of {x.numel()} "
                f"values are something else, the first of them {x[outside][0].item():g}; {suitable_likelihoods(x)}"
            )


def fill_from_column(x: Tensor) -> Tensor:
    """Fill the blanks of each column with values that it has in other rows: its moments stay about the same."""
    empty = x.isnan().all(0).nonzero()
    if len(empty):
        raise ValueError(f"the training data have no value at all in column {int(empty[0])}, from 0; leave it out")
    x = x.clone()
    for column in x.unbind(1):
        blank = column.isnan()
        values = column[~blank]
        column[blank] = values[torch.arange(int(blank.sum()), device=x.device) % len(values)]
    return x


@dataclass(frozen=True)
class Config:
    """How :func:`pyro_vae.build` made a VAE, with its own arguments; of one put together by hand nothing is known.

    Attributes:
        parts: For "prior", "encoder" and "likelihood" the class path and the options; empty if nothing is known.
        table: What the columns of the data are, where they are a table of more than numbers.
    """

    x_shape: tuple[int, ...] = ()
    parts: dict[str, dict[str, Any]] = field(default_factory=dict)
    latent_dim: int = 0
    network: str = ""
    hidden_dims: tuple[int, ...] = ()
    activation: str = ""
    levels: int | None = None
    pixels: str = ""
    missing: bool = False
    num_classes: int | None = None
    classes: tuple[str, ...] | None = None
    label_in: tuple[str, ...] | None = None
    table: Schema | None = None

    @property
    def names(self) -> dict[str, str]:
        """The class of each part, by its bare name."""
        return {kind: part["class_path"].rpartition(".")[2] for kind, part in self.parts.items()}

    @property
    def class_names(self) -> tuple[str, ...]:
        """The names of the classes 0, 1, 2, …: where none were given, these numbers."""
        return self.classes or tuple(str(c) for c in range(self.num_classes or 0))

    def as_arguments(self) -> dict[str, Any]:
        """Return the arguments of ``build``, as JSON can hold them."""
        arguments: dict[str, Any] = {
            "x_shape": list(self.x_shape),
            **self.parts,
            "latent_dim": self.latent_dim,
            "network": self.network,
            "hidden_dims": list(self.hidden_dims),
            "activation": self.activation,
            "levels": self.levels,
            "pixels": self.pixels,
            "missing": self.missing,
        }
        if self.label_in is not None:
            arguments |= {"num_classes": self.num_classes, "label_in": list(self.label_in)}
        if self.classes is not None:
            arguments["classes"] = list(self.classes)
        if self.table is not None:
            arguments["table"] = self.table.as_dict()
        return arguments


def suitable_likelihoods(x: Tensor) -> str:
    """Return a sentence that names the likelihoods, or the transformations, that fit the values of ``x``."""
    if not torch.isfinite(x).all():
        return "fill or remove the values that are not finite"
    low, high = x.min().item(), x.max().item()
    if (x == x.round()).all() and low >= 0:
        if high <= 1:
            return "the data are zeros and ones: Bernoulli fits"
        if high <= 255:
            return (
                f"the data are whole numbers from {low:g} to {high:g}: Categorical, Binomial or "
                "DiscretizedLogistic fit grey levels, Poisson or NegativeBinomial fit counts"
            )
        return "the data are counts: Poisson or NegativeBinomial fit"
    if low >= 0 and high <= 1:
        return "the data lie in [0, 1]: binarize them for Bernoulli, or use ContinuousBernoulli, Gaussian or Laplace"
    return f"the data are real numbers from {low:g} to {high:g}: Gaussian or Laplace fit, best after standardizing"
