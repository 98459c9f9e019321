"""What log P(X) cannot be estimated for, refused before any work is done."""

from collections.abc import Sequence
from typing import Any

import pyro.distributions as dist
import torch
from pyro import poutine
from torch import Tensor
from torch.distributions import constraints

from pyro_vae.base import Likelihood, suitable_likelihoods
from pyro_vae.evidence.latents import without_dimensions
from pyro_vae.program import (
    SAMPLES,
    Data,
    Program,
    Values,
    arguments,
    as_data,
    num_data,
    quiet,
    sample_sites,
    take,
    trace,
)


def check_program(model: Program, guide: Program, x: Data) -> list[str]:
    """Refuse programs whose weights would not be one number for each datum and sample.

    Returns:
        The names of the latent sites.

    Raises:
        ValueError: Naming the site that is outside the data plate, or that only one of the two programs draws.
    """
    few = take(x, slice(0, 2))
    sites = dict(sample_sites(_trace_few(model, few)))
    latents = {name for name, site in sites.items() if not site["is_observed"]}
    drawn = dict(sample_sites(_trace_few(guide, few)))
    points = {name: _base(drawn[name]["fn"]) for name in sorted(latents & set(drawn))}
    points = {name: fn for name, fn in points.items() if isinstance(fn, dist.Delta)}
    points = {name: fn for name, fn in points.items() if not isinstance(_base(sites[name]["fn"]), dist.Delta)}
    if points and not any(fn.log_density.any() for fn in points.values()):  # one that carries a density is none
        raise ValueError(
            f"the guide puts site '{next(iter(points))}' at a point (Delta), which has no density to weigh by: take a "
            "guide that spreads, such as AutoNormal, or laplace(model, guide, x) around the point"
        )
    auxiliary = {name for name, site in drawn.items() if site["infer"].get("is_auxiliary")}
    for name in sorted(latents - set(drawn)):
        raise ValueError(
            f"the model draws site '{name}', but the guide does not: sample it in the guide, "
            "or sum it out inside the likelihood (MixtureSameFamily)"
        )
    for name in sorted(set(drawn) - latents - auxiliary):
        what = "observes" if name in sites else "does not have"
        raise ValueError(f"the guide draws site '{name}', which the model {what}: each latent needs one site in both")
    if not latents:
        raise ValueError("the model has no latent site: its log-density is the evidence already")
    return [name for name in sites if name in latents]


def _trace_few(program: Program, x: Data) -> poutine.Trace:
    """Trace a program with three samples of a few data, and check where each of its sites stands."""
    size = num_data(x)
    result = trace(program, x, 3)
    for name, site in sample_sites(result):
        plates = {f.name: f for f in site["cond_indep_stack"] if f.name != SAMPLES}
        if not plates:
            raise ValueError(
                f"sample site '{name}' is outside the data plate, which would make the weights joint over all data: "
                f"move it into the plate, or make it a parameter"
            )
        for frame in plates.values():
            if frame.dim != -1 or frame.size != size:
                raise ValueError(
                    f"sample site '{name}' is in plate '{frame.name}' of size {frame.size} at dim {frame.dim}, where "
                    f"one plate over the {size} rows of x at dim -1 was expected: use .to_event for other dimensions, "
                    "and a plate that is not subsampled"
                )
        shape = torch.Size(site["fn"].batch_shape)
        if len(shape) > 2:
            raise ValueError(
                f"sample site '{name}' has batch shape {tuple(shape)}, expected (samples, data) = (3, {size}): "
                "declare the other dimensions with .to_event"
            )
    return result


def takes_blanks(program: Program) -> bool:
    """Whether a program says that it takes data with blanks (NaN), by an attribute ``missing`` of its own or its VAE's.

    A model that does observes the other elements alone, with any value of the support in place of the blanks.
    """
    return bool(getattr(getattr(program, "__self__", program), "missing", False))


def check_data(model: Program, x: Any, name: str = "x") -> Data:
    """Return data as a program takes them, and refuse those on which log P(X) has no meaning.

    That is where they are not finite or of another width, or where the likelihood is a loss and no density.

    Raises:
        ValueError: Naming the argument, what was expected, what came, and the way out.
    """
    x = as_data(model, x, name)
    for a in arguments(x):
        if a.dim() == 0 or len(a) == 0:
            raise ValueError(f"{name} must have a row for each datum, (N, ...), and at least one; got {tuple(a.shape)}")
        if len(a) != num_data(x):
            raise ValueError(
                f"the tensors of {name} must have equally many rows, but have {[len(a) for a in arguments(x)]}"
            )
        wrong = a.isinf() if takes_blanks(model) else ~a.isfinite()
        if wrong.any():
            row = int(wrong.reshape(len(a), -1).any(1).nonzero()[0])
            raise ValueError(
                f"{name} has values that are not finite, the first in row {row}: log P(X) needs complete data; "
                "fill missing values in first, by imputation (pyro-vae impute, or pyro_vae.inference.impute)"
            )
    vae = getattr(model, "__self__", None)
    likelihood = getattr(vae, "likelihood", None)
    if vae is None or not isinstance(likelihood, Likelihood):
        return x
    if not likelihood.is_density:
        raise ValueError(
            f"{type(likelihood).__name__} on grey pixels is a loss and not a density, so log P(X) has no meaning: "
            "train on binarized pixels, or with ContinuousBernoulli, Binomial or DiscretizedLogistic"
        )
    first = arguments(x)[0]
    with quiet(model, first, seed=0):
        width = model(size=1).shape[1:]
    if first.shape[1:] != width:
        raise ValueError(f"{name} has rows of shape {tuple(first.shape[1:])}, but the model's data have {tuple(width)}")
    likelihood.check(likelihood.fill(first) if takes_blanks(model) else first)
    return x


def check_support(model: Program, x: Data, values: Values) -> None:
    """Refuse observations outside the support of their distribution, seen with one sample of each datum."""
    one = {name: v[:1] for name, v in values.items()}
    for name, site in sample_sites(trace(model, x, 1, one)):
        fn, value = site["fn"], site["value"]
        if name in values or isinstance(fn, dist.Unit) or site["mask"] is not None:
            continue
        width = value.shape[value.dim() - len(fn.event_shape) :]
        if any(event not in (1, size) for event, size in zip(fn.event_shape, width, strict=True)):
            raise ValueError(
                f"x gives site '{name}' data of shape {tuple(width)}, but the model's have shape "
                f"{tuple(fn.event_shape)}"
            )
        inside = fn.support.check(value)
        if not inside.all():
            raise ValueError(
                f"x has values outside the support of site '{name}', {_family(fn)} ({fn.support}): "
                f"{suitable_likelihoods(value)}"
            )


def may_leave_support(model: Program, guide: Program, x: Data) -> list[str]:
    """Return the latents that the guide may draw outside of the support that the model gives them."""
    few = take(x, slice(0, 2))
    sites = dict(sample_sites(trace(model, few, 3)))
    drawn = dict(sample_sites(trace(guide, few, 3)))
    return [name for name in sites if name in drawn and not _within(drawn[name]["fn"], sites[name]["fn"])]


def _within(guide: Any, model: Any) -> bool:
    """Whether a support is known to lie within the model's: in all reals, or in one of the same kind and bounds."""
    try:
        outer = without_dimensions(model.support)
    except NotImplementedError:  # a distribution that does not know its support, so nothing can be asked of it
        return True
    try:
        inner = without_dimensions(guide.support)
    except NotImplementedError:
        return outer is constraints.real
    same = type(inner) is type(outer) and all(
        torch.as_tensor(getattr(inner, name)).equal(torch.as_tensor(bound))
        for name, bound in vars(outer).items()
        if name.endswith("bound")
    )
    return outer is constraints.real or same


def inside_support(model: Program, x: Data, values: Values, names: Sequence[str]) -> Tensor:
    """Whether latents lie within the support that the model gives them, (K, B)."""
    sites: dict[str, Any] = trace(model, x, len(next(iter(values.values()))), values).nodes
    inside = [sites[name]["fn"].support.check(values[name]) for name in names]
    return torch.stack(torch.broadcast_tensors(*inside)).all(0)


def _family(fn: Any) -> str:
    return type(_base(fn)).__name__


def _base(fn: Any) -> Any:
    """Return a distribution without what is put around it."""
    while hasattr(fn, "base_dist"):
        fn = fn.base_dist
    return fn


def check_count(**counts: int) -> None:
    """Refuse counts below one, by the name of the argument."""
    for name, count in counts.items():
        if not isinstance(count, int) or count < 1:
            raise ValueError(f"{name} must be a whole number of at least 1, got {count!r}")
