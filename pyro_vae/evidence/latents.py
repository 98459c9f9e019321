"""The latent sites of a program as one unconstrained vector for each datum."""

from typing import Any

import torch
from pyro import poutine
from pyro.poutine.util import prune_subsample_sites
from torch import Tensor
from torch.distributions import biject_to, constraints
from torch.distributions.transforms import ReshapeTransform

from pyro_vae.program import Data, Program, Values, arguments, sample_sites, take


class _LastLatentDrawn(Exception):
    """Leaves a model once all its latents are known."""


class _UntilDrawn(poutine.messenger.Messenger):
    """Stops a model after the last of the named sites, before it decodes them."""

    def __init__(self, names: set[str]):
        super().__init__()
        self.missing = set(names)

    def _pyro_post_sample(self, msg: Any) -> None:
        self.missing.discard(msg["name"])
        if not self.missing:
            raise _LastLatentDrawn


def latent_sites(model: Program, x: Data) -> dict[str, Any]:
    """Return the sites that the model draws, in its order, as seen on the first datum."""
    with poutine.block():
        found = poutine.trace(model).get_trace(*arguments(take(x, slice(0, 1))))
    return {name: site for name, site in sample_sites(prune_subsample_sites(found)) if not site["is_observed"]}


def prior(model: Program) -> Program:
    """Return the model's prior as a guide: the model, run only until its last latent is drawn.

    Example:
        >>> from pyro_vae.evidence.exact import LinearGaussian
        >>> exact = LinearGaussian(torch.ones(3, 1), scale=torch.ones(3))
        >>> poutine.trace(prior(exact.model)).get_trace(torch.zeros(5, 3)).nodes["z"]["value"].shape
        torch.Size([5, 1])
    """

    def guide(*x: Tensor) -> None:
        names = set(latent_sites(model, x))
        try:
            with (
                poutine.block(hide_fn=lambda msg: msg["type"] == "sample" and msg["name"] not in names),
                _UntilDrawn(names),
            ):
                model(*x)
        except _LastLatentDrawn:
            pass

    return guide


class Latents:
    """The continuous latents of a model, flattened to one unconstrained vector u for each datum.

    A constrained site (a rate, a probability vector) goes through torch's bijection from real
    vectors to its support, which must not depend on the datum or on other latents.

    Args:
        model: A Pyro model.
        x: Data, (B, ...), of which it looks at the first.

    Attributes:
        slices: Where each latent site stands in u.
        size: Length n of u.

    Raises:
        ValueError: If a latent is discrete, by name.
    """

    def __init__(self, model: Program, x: Data):
        self.slices: dict[str, slice] = {}
        self.size = 0
        self._shapes: dict[str, torch.Size] = {}
        self._bijections: dict[str, Any] = {}
        for name, site in latent_sites(model, x).items():
            support = site["fn"].support
            if isinstance(support, constraints.MixtureSameFamilyConstraint):
                support = support.base_constraint
            if support.is_discrete:
                raise ValueError(
                    f"latent site '{name}' is discrete, and only continuous latents can be moved by gradients: "
                    "use log_evidence with the guide or a defensive proposal"
                )
            self._bijections[name] = biject_to(support)
            self._shapes[name] = self._bijections[name].inv(site["value"]).shape[1:]
            start, self.size = self.size, self.size + self._shapes[name].numel()
            self.slices[name] = slice(start, self.size)

    def transforms(self, name: str) -> list[Any]:
        """Return what takes a site's part of u to its value."""
        shape, bijection = self._shapes[name], self._bijections[name]
        if len(shape) == 1 and is_real(bijection.codomain):
            return []
        return [ReshapeTransform(torch.Size([shape.numel()]), shape), bijection]

    def flatten(self, values: Values) -> Tensor:
        """Return the sites' values, each (K, B, ...), as u, (K, B, n)."""
        parts = [bijection.inv(values[name]) for name, bijection in self._bijections.items()]
        return torch.cat([part.reshape(*part.shape[:2], -1) for part in parts], dim=-1)

    def unflatten(self, u: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        """Return the values of the sites at u, (K, B, n), and log |dz / du|, (K, B)."""
        values, log_jacobian = {}, u.new_zeros(u.shape[:-1])
        for name, at in self.slices.items():
            value = u[..., at]
            for transform in self.transforms(name):
                before, value = value, transform(value)
                log_det = transform.log_abs_det_jacobian(before, value)
                log_jacobian = log_jacobian + log_det.reshape(*log_jacobian.shape, -1).sum(-1)
            values[name] = value
        return values, log_jacobian


def is_real(support: Any) -> bool:
    """Whether a support is all real numbers, or all real vectors."""
    return without_dimensions(support) is constraints.real


def without_dimensions(support: Any) -> Any:
    """Return the support of each number by itself."""
    while isinstance(support, constraints.independent | constraints.MixtureSameFamilyConstraint):
        support = support.base_constraint
    return support
