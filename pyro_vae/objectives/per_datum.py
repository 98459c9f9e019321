"""What the bounds of this package share: one for each datum, of a program whose sites are all in one data plate."""

from abc import abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar

import torch
from pyro import poutine
from pyro.infer import ELBO
from pyro.infer.enum import get_importance_trace
from torch import Tensor

from pyro_vae.program import Data, sample_sites, trace


class PerDatumELBO(ELBO):
    r"""A bound on each datum's log-evidence, as a loss: minus its sum over the batch.

    .. math:: \mathrm{loss} = -\sum_i L_i, \quad L_i \le \log p(x_i) \text{ in expectation}

    An objective of your own is a subclass with one method, :meth:`bounds`. It is then used like any of Pyro's: in
    ``SVI``, in :func:`pyro_vae.fit` and, by its dotted name, on the command line, where its constructor's parameters
    are its options; ``steps_per_epoch``, if it asks for that, is filled in.

    What changes from step to step is the business of :meth:`advance`, which is called before each gradient, but not
    where a loss is only evaluated. If it counts in an attribute ``steps``, a training that is resumed goes on there.

    Args:
        num_particles: Samples of z for each datum, K.
        max_plate_nesting: Plates of the program: 1, that of the data.
        vectorize_particles: Draw them all at once, as :func:`pyro_vae.program.draw` does.

    Attributes:
        scheduled: Names of the methods, without arguments, that return the numbers which change from step to step. A
            compiled objective asks them in each step; for another number that changes it is recorded again, each time.

    Example:
        >>> from pyro_vae import build
        >>> from pyro_vae.program import draw, log_density
        >>> from pyro_vae.testing import check_objective
        >>> class OwnELBO(PerDatumELBO):
        ...     def bounds(self, model, guide, x):
        ...         z, log_q = draw(guide, x, self.num_particles)
        ...         return (log_density(model, x, z) - log_q).mean(0)
        >>> check_objective(OwnELBO, num_particles=2)
        >>> vae = build((1, 4, 4))
        >>> OwnELBO(num_particles=2).bounds(vae.model, vae.guide, torch.ones(3, 16)).shape
        torch.Size([3])
    """

    scheduled: ClassVar[tuple[str, ...]] = ()

    def advance(self) -> None:
        """Go on to the next step: called before each gradient. Does nothing by default."""

    @abstractmethod
    def bounds(self, model: Callable, guide: Callable, x: Data) -> Tensor:
        """Return the bound on log P(x) of each datum, with the gradient that training follows.

        Args:
            model: A Pyro model of x with one data plate, and all of its sites in there.
            guide: Its guide, called with the same arguments.
            x: Data, (B, D), or a tuple of tensors with a row for each datum, passed as ``model(*x)``.
                :func:`pyro_vae.program.draw` and :func:`pyro_vae.program.log_density` take both.

        Returns:
            A bound for each datum, (B,), in nats, which depends on no other datum.
        """

    def _get_trace(self, model: Callable, guide: Callable, args: tuple, kwargs: dict) -> tuple:
        """Return the traces of model and guide, as Pyro asks of an ELBO."""
        return get_importance_trace("flat", self.max_plate_nesting, model, guide, args, kwargs)

    def differentiable_loss(self, model: Callable, guide: Callable, *x: Tensor) -> Tensor:
        """Return minus the sum of the bounds, in nats."""
        return -self.bounds(model, guide, x if len(x) > 1 else x[0]).sum()

    @torch.no_grad()
    def loss(self, model: Callable, guide: Callable, *x: Tensor) -> float:
        """Return minus the sum of the bounds, in nats, as a number."""
        return self.differentiable_loss(model, guide, *x).item()

    def loss_and_grads(self, model: Callable, guide: Callable, *x: Tensor) -> float:
        """Compute the loss and add its gradient to that of each parameter."""
        self.advance()
        loss = self.differentiable_loss(model, guide, *x)
        if loss.requires_grad:
            loss.backward()
        return loss.item()


def latents_of(drawn: poutine.Trace) -> dict[str, Tensor]:
    """Return the guide's draws, all of them reparameterised."""
    for name, site in sample_sites(each_counts_once(drawn)):
        if not site["fn"].has_rsample:
            raise ValueError(
                f"latent site {name!r}, {family(site['fn'])}, can't be reparameterised; "
                "use Trace_ELBO or TraceEnum_ELBO"
            )
    return {name: site["value"] for name, site in sample_sites(drawn)}


def joint_at(model: Callable, x: Data, num_samples: int, z: dict[str, Tensor]) -> poutine.Trace:
    """Run the model at the guide's draws, which have to be all of its latent sites."""
    joint = each_counts_once(trace(model, x, num_samples, z))
    latent = {name for name, site in sample_sites(joint) if name in z or not site["is_observed"]}
    if latent != z.keys():
        raise ValueError(f"the model has the latent sites {sorted(latent)}, but the guide has {sorted(z)}")
    return joint


def each_counts_once(ran: poutine.Trace) -> poutine.Trace:
    """Return the trace, all of whose sites are in the data plate and count once."""
    for name, site in sample_sites(ran):
        if site["scale"] != 1.0:
            raise ValueError(f"site {name!r} has the scale {site['scale']}; this objective takes none")
        if len(site["cond_indep_stack"]) < 2:
            raise ValueError(f"site {name!r} is outside of the data plate, where bounds can't be per datum")
    return ran


def family(distribution: Any) -> str:
    """Return the name of a distribution, without what is put around it."""
    while hasattr(distribution, "base_dist") and type(distribution).__name__ in ("Independent", "ExpandedDistribution"):
        distribution = distribution.base_dist
    return type(distribution).__name__
