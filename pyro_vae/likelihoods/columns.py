"""A different likelihood for each group of columns of a table."""

import math
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from pyro.distributions import Distribution, TorchDistribution
from torch import Tensor, nn
from torch.distributions import constraints

from pyro_vae.base import Likelihood, fill_from_column
from pyro_vae.distributions.location import middle


class Columns(Likelihood):
    r"""Puts a likelihood of its own on each group of neighbouring columns.

    .. math:: p(x|z) = \prod_g p_g(x_g|z)

    A group that needs fewer parameters than the widest ignores the decoder's other outputs; unless they are packed,
    where the groups take from the outputs, row by row, as many as each needs.

    Args:
        groups: Pairs of a number of columns and the likelihood of these columns, from left to right.
            On the command line: ``--likelihood.groups "[[3, Gaussian], [2, Bernoulli]]"``.
        packed: Let the decoder put out no more than the groups need.

    Example:
        >>> from pyro_vae.likelihoods import Bernoulli, Gaussian
        >>> p = Columns([(3, Gaussian(scale="predicted")), (2, Bernoulli())])(torch.zeros(7, 5, 2))
        >>> p.log_prob(torch.ones(7, 5)).shape
        torch.Size([7])
    """

    pixels = "raw"
    takes_blanks = True

    def __init__(self, groups: list[tuple[int, Likelihood]], packed: bool = False):
        super().__init__()
        if not groups or any(width < 1 for width, _ in groups):
            raise ValueError(f"groups must have one column each at least, got widths {[width for width, _ in groups]}")
        self.widths = [width for width, _ in groups]
        self.likelihoods = nn.ModuleList([likelihood for _, likelihood in groups])
        self.sizes = [width * part.params_per_element for width, part in zip(self.widths, self._parts, strict=True)]
        self.packed = packed
        widest = max(part.params_per_element for part in self._parts)
        self.params_per_element = math.ceil(sum(self.sizes) / sum(self.widths)) if packed else widest
        self.support = constraints.cat([part.support for part in self._parts], dim=-1, lengths=self.widths)
        self.accepts = "; ".join(
            f"{width} columns of {part.accepts}" for width, part in zip(self.widths, self._parts, strict=True)
        )
        self.is_density = all(part.is_density for part in self._parts)

    @property
    def _parts(self) -> list[Likelihood]:
        return list(self.likelihoods)  # type: ignore[arg-type]

    def forward(self, raw: Tensor) -> Distribution:
        """Return the joint distribution for ``raw``, (..., D, params_per_element)."""
        parts = [part(own) for part, own in zip(self._parts, self._split(raw), strict=True)]
        return _Joint(parts, self.widths, self.support)

    def _split(self, raw: Tensor) -> list[Tensor]:
        """Return each group's own outputs, (..., its columns, its params_per_element); a few may be left over."""
        if not self.packed:
            rows = zip(self._parts, raw.split(self.widths, -2), strict=True)
            return [own[..., : part.params_per_element] for part, own in rows]
        outputs = raw.flatten(-2)[..., : sum(self.sizes)].split(self.sizes, -1)
        return [own.unflatten(-1, (width, -1)) for own, width in zip(outputs, self.widths, strict=True)]

    def initialize(self, x: Tensor) -> None:
        """Let each likelihood set its starting values from its own columns of ``x``, (N, D)."""
        for part, columns in zip(self._parts, x.split(self.widths, -1), strict=True):
            part.initialize(columns if part.takes_blanks else fill_from_column(columns))

    def initial_raw(self, x: Tensor) -> Tensor:
        """Return each group's own initial outputs, and 0 for those that it lacks or that are left over."""
        raw = x.new_zeros(x.shape[1], self.params_per_element)
        for part, own, columns in zip(self._parts, self._split(raw), x.split(self.widths, -1), strict=True):
            initial = part.initial_raw(columns)
            if initial is not None:
                own.copy_(initial)
        return raw

    def as_input(self, x: Tensor) -> Tensor:
        """Let each likelihood say how a network sees its own columns of ``x``, (..., D)."""
        columns = zip(self._parts, x.split(self.widths, -1), strict=True)
        return torch.cat([part.as_input(own) for part, own in columns], -1)

    def at_smallest_scale(self, raw: Tensor) -> Tensor:
        """Let each likelihood look at the scales of its own columns, (..., D)."""
        found = [(own, part.at_smallest_scale(own)) for part, own in zip(self._parts, self._split(raw), strict=True)]
        return torch.cat([r.new_zeros(r.shape[:-1]).bool() if at is None else at for r, at in found], -1)

    def fill(self, x: Tensor) -> Tensor:
        """Let each likelihood fill the blanks (NaN) of its own columns of ``x``, (..., D)."""
        columns = zip(self._parts, x.split(self.widths, -1), strict=True)
        return torch.cat([part.fill(own) for part, own in columns], -1)

    def observed_part(self, p: Distribution, observed: Tensor) -> Distribution:
        """Return the joint distribution of the elements that are observed, (..., D)."""
        assert isinstance(p, _Joint)
        groups = zip(self._parts, p.parts, observed.split(self.widths, -1), strict=True)
        parts: list[Any] = [part.observed_part(own, seen) for part, own, seen in groups]
        return _Joint(parts, self.widths, self.support)

    def check(self, x: Tensor) -> None:
        """Refuse a table of another width, or columns that do not suit their likelihood.

        Raises:
            ValueError: Naming the columns (from 0), what their likelihood accepts, and what would fit.
        """
        if x.shape[1] != sum(self.widths):
            raise ValueError(
                f"Columns has groups of {self.widths} columns, {sum(self.widths)} in all, "
                f"but the data have {x.shape[1]}; give each column a group"
            )
        start = 0
        for part, columns in zip(self._parts, x.split(self.widths, -1), strict=True):
            stop = start + columns.shape[1]
            try:
                part.check(columns)
            except ValueError as error:
                raise ValueError(f"columns {start} to {stop - 1}: {error}") from None
            start = stop


class _Joint(TorchDistribution):
    """Independent distributions with event shapes (D_1,), (D_2,), …, as one with event shape (D_1 + D_2 + …,)."""

    arg_constraints: ClassVar = {}

    def __init__(self, parts: Sequence[TorchDistribution], widths: list[int], elements: constraints.Constraint):
        self.parts = parts
        self.widths = widths
        self.elements = elements
        super().__init__(parts[0].batch_shape, torch.Size([sum(widths)]))

    @constraints.dependent_property(event_dim=1)
    def support(self) -> constraints.Constraint:
        return constraints.independent(self.elements, 1)

    def expand(self, batch_shape: Sequence[int], _instance: None = None) -> "_Joint":
        return _Joint([part.expand(batch_shape) for part in self.parts], self.widths, self.elements)

    def log_prob(self, value: Tensor) -> Tensor:
        values = value.split(self.widths, -1)
        return torch.stack([part.log_prob(v) for part, v in zip(self.parts, values, strict=True)]).sum(0)

    def sample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        return torch.cat([part.sample(torch.Size(sample_shape)) for part in self.parts], -1)

    @property
    def mean(self) -> Tensor:
        return torch.cat([part.mean for part in self.parts], -1)

    @property
    def middle(self) -> Tensor:
        return torch.cat([middle(part) for part in self.parts], -1)
