"""Data with blanks (NaN): the model of what is observed, completions of the rest, and proposals fitted to them."""

import copy
import math
from collections.abc import Sequence
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from pyro import poutine
from pyro.poutine.indep_messenger import IndepMessenger
from pyro.poutine.messenger import block_messengers
from pyro.poutine.util import prune_subsample_sites
from torch import Tensor

from pyro_vae.data.source import far_out
from pyro_vae.evidence import GaussianProposal, laplace, prior, refined
from pyro_vae.evidence.checks import takes_blanks
from pyro_vae.evidence.latents import Latents
from pyro_vae.program import Program, Values, as_program, draw, log_prob, own_random_state, sample_sites, trace
from pyro_vae.vae import VAE

ROUNDS = 20  # of pseudo-Gibbs until a start is near where the observed elements want it

Range = tuple[Tensor, Tensor]  # the lowest and the highest value of each element, (D,) each


def as_tensor_program(model: Any, guide: Any, x: Tensor | None) -> tuple[Program, Program, Tensor]:
    """Read both (model, guide, x) and (vae, x), with x one tensor.

    Raises:
        ValueError: If it is something else.
    """
    model, guide, data = as_program(model, guide, x)
    if not isinstance(data, Tensor) or data.dim() != 2:
        raise ValueError("x must be one tensor of data with blanks, (N, D)")
    return model, guide, data


def with_blanks(model: Program) -> Program:
    """Return the model of the observed elements, of which the blanks are summed out.

    Args:
        model: A VAE's, trained with blanks or without; or any that has an attribute ``missing = True``, and then
            observes the elements of x that aren't NaN.

    Raises:
        ValueError: If it is neither.
    """
    if takes_blanks(model):
        return model
    vae = getattr(model, "__self__", None)
    if not isinstance(vae, VAE):
        raise ValueError(
            "the model doesn't say that it takes blanks (NaN): let it observe the other elements of x only, such as by "
            "fn.mask(~x.isnan()).to_event(1), and give it an attribute missing = True"
        )
    twin = copy.copy(vae)  # with the same parts
    twin.missing = True
    return twin.model


def decode(model: Program, x: Tensor, values: Values) -> tuple[Tensor, Tensor]:
    """Draw the blanks of ``x``, (B, D), given latents; return the completed data, and their means, (K, B, D) each.

    The elements have to be independent given the latents. Categories have no mean: there it is NaN.

    Raises:
        ValueError: If the model does not observe x at one site.
    """
    num_samples = len(next(iter(values.values())))
    ran = trace(poutine.uncondition(model), x, num_samples, values)
    observed = [site for _, site in sample_sites(ran) if site["infer"].get("was_observed")]
    if len(observed) != 1 or observed[0]["value"].shape[2:] != x.shape[1:]:
        raise ValueError(f"the model must observe x at one site, but it observes {[s['name'] for s in observed]}")
    drawn = observed[0]["value"]
    try:
        mean = observed[0]["fn"].mean
    except NotImplementedError:
        mean = drawn
    blank = x.isnan()
    return torch.where(blank, drawn, x), torch.where(blank, mean, x)


def or_most_frequent(mean: Tensor, drawn: Tensor) -> Tensor:
    """Return the mean, (N, D), but where there is none (NaN) what was drawn most often, of (K, N, D)."""
    if (without := mean.isnan().any(0)).any():
        mean = mean.clone()
        mean[:, without] = torch.where(mean[:, without].isnan(), drawn[..., without].mode(0).values, mean[:, without])
    return mean


@torch.no_grad()
def plausible(model: Program, x: Tensor) -> Range:
    """Return the lowest and the highest value of each element that a completion may have without a remark.

    They go from the smallest to the largest of 1000 draws from the model and of what is observed, and as far again to
    both sides; where all of these are equal, by 1. What is far out of its column doesn't count.

    Args:
        model: A model that takes blanks; see :func:`with_blanks`.
        x: Data with blanks, (N, D).
    """
    nothing = torch.full_like(x[:1], torch.nan)
    with own_random_state(x):
        torch.manual_seed(0)
        drawn = decode(model, nothing, draw(prior(model), nothing, 1000)[0])[0][:, 0]
    seen = torch.cat([drawn, x.masked_fill(far_out(x), torch.nan)])
    low, high = seen.nan_to_num(torch.inf).amin(0), seen.nan_to_num(-torch.inf).amax(0)
    width = torch.where(high > low, high - low, 1.0)
    return low - width, high + width


def kept_within(guide: Program, within: Range) -> Program:
    """Return the guide, run on data that are put back into a range: elsewhere it may put out anything, or nothing."""

    def proposal(x: Tensor) -> Any:
        return guide(x.clamp(*within))

    proposal.missing = takes_blanks(guide)  # type: ignore[attr-defined]
    return proposal


def pseudo_gibbs(model: Program, guide: Program, x: Tensor, rounds: int = ROUNDS) -> Tensor:
    r"""Fill the blanks of ``x``, (B, D), by drawing in turn from the guide and from the likelihood.

    .. math:: z \sim q(z | x_\mathrm{observed}, x_\mathrm{missing}), \quad
        x_\mathrm{missing} \sim p(x_\mathrm{missing} | z)

    Where the guide isn't the exact posterior this does not draw from the right distribution: it is a start.

    Args:
        model: A model that takes blanks; see :func:`with_blanks`.
        guide: Its guide, run on the completed data.
        x: Data with blanks.
        rounds: How often both are drawn. The first z come from the guide if it takes blanks, else from the prior.

    Returns:
        One completion of each datum, (B, D).

    Reference:
        Rezende, Mohamed & Wierstra (2014), Stochastic Backpropagation and Approximate Inference in Deep Generative
        Models, appendix F.
    """
    return walk(model, guide, x, plausible(model, x), rounds)[0]


def walk(model: Program, guide: Program, x: Tensor, within: Range, rounds: int = ROUNDS) -> tuple[Tensor, Tensor]:
    """Fill blanks by :func:`pseudo_gibbs`, and return them with which data left the range on the way, (B,).

    A guide that isn't exact may lead from any value to a larger one: such values are put back to the edge.
    """
    low, high = within
    blank, strayed = x.isnan(), torch.zeros(len(x), dtype=torch.bool, device=x.device)
    filled, program = x, guide if takes_blanks(guide) else prior(model)
    for _ in range(rounds + 1):
        drawn = decode(model, x, draw(program, filled, 1)[0])[0][0]
        inside = torch.where(drawn.isnan(), (low + high) / 2, drawn).clamp(low, high)
        strayed |= ((inside != drawn) & blank).any(1)
        filled, program = torch.where(blank, inside, x), guide
    return filled, strayed


def fitted(
    model: Program,
    guide: Program,
    x: Tensor,
    *,
    num_starts: int = 4,
    steps: int = 100,
    seed: int | None = None,
    within: Range | None = None,
) -> Program:
    """Fit a proposal to the posterior of each datum given its observed elements: a mixture of Gaussians.

    Each component has a full covariance and starts from a completion of its own, by pseudo-Gibbs draws: where the
    blanks leave the posterior with several modes, a single one would find one of them.

    Args:
        model: A model that takes blanks; see :func:`with_blanks`.
        guide: Its guide, run on completed data.
        x: Data with blanks, (B, D). Memory is in proportion to B.
        num_starts: Components for each datum.
        steps: Gradient steps of each, to its mode and again from there.
        seed: Of the noise.
        within: Where the completions may be; by default what is :func:`plausible` for these data.

    Returns:
        A guide for these data.
    """
    latents = Latents(model, x)
    within = plausible(model, x) if within is None else within
    components = []
    for i in range(num_starts):
        u = latents.flatten(draw(guide, walk(model, guide, x, within)[0], 100)[0])  # (100, B, n)
        start = GaussianProposal(latents, x, u.mean(0), u.std(0).diag_embed())
        own_seed = None if seed is None else seed + i
        # At the mode's own scale, which may be many times that of the guide, far fewer steps are left to make.
        mode = laplace(model, start, x, steps=steps, seed=own_seed)
        components.append(refined(model, mode, x, steps=steps, full_rank=True, seed=own_seed))
    return components[0] if num_starts == 1 else mixture(components)


def mixture(guides: Sequence[Program]) -> Program:
    r"""Mix guides over the same sites in equal parts.

    .. math:: q(z|x) = \frac1M \sum_m q_m(z|x)

    Args:
        guides: Guides that can be scored at any z.

    Reference:
        Veach & Guibas (1995), Optimally Combining Sampling Techniques for Monte Carlo Rendering, section 3.2.
    """

    def proposal(*x: Tensor) -> None:
        # The guides see the plates around them, but are not seen by who runs the mixture.
        with block_messengers(lambda m: not isinstance(m, IndepMessenger)):
            drawn = [dict(sample_sites(_trace(guide, x))) for guide in guides]
            event_dims = {name: len(site["fn"].event_shape) for name, site in drawn[0].items()}
            some = next(iter(drawn[0].values()))
            batch_shape = some["value"].shape[: some["value"].dim() - len(some["fn"].event_shape)]
            which = torch.randint(len(guides), batch_shape, device=some["value"].device)
            values: dict[str, Tensor] = {}
            for name, event_dim in event_dims.items():
                stacked = torch.stack([sites[name]["value"] for sites in drawn])
                index = which.reshape(1, *batch_shape, *[1] * event_dim).expand(1, *stacked.shape[1:])
                values[name] = stacked.gather(0, index)[0]
            scores = [log_prob(_trace(poutine.condition(guide, data=values), x)) for guide in guides]
            log_density: Any = torch.stack(scores).logsumexp(0) - math.log(len(guides))
        with pyro.plate("data", len(x[0]), dim=-1):
            for name, value in values.items():
                pyro.sample(name, dist.Delta(value, log_density, event_dim=event_dims[name]))
                log_density = torch.zeros_like(log_density)  # the first site carries all of it

    return proposal


def _trace(guide: Program, x: tuple[Tensor, ...]) -> poutine.Trace:
    return prune_subsample_sites(poutine.trace(guide).get_trace(*x))
