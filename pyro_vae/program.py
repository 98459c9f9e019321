"""Running a Pyro model and guide on (sample, datum) pairs: the joint log-densities behind the weights.

A *program* is any Pyro function of the data. It is run inside a plate over samples, so that every
site in its data plate has batch shape (K, B); sites are then scored one by one, without their
scale, so that subsampling and KL weights never enter.
"""

from collections.abc import Callable, Container, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import pyro
import torch
from pyro import poutine
from pyro.distributions.util import scale_and_mask
from pyro.poutine.util import prune_subsample_sites
from torch import Tensor, nn

Program = Callable[..., Any]
Data = Tensor | tuple[Tensor, ...]
Values = Mapping[str, Tensor]

SAMPLES = "pyro_vae_samples"  # the plate over samples


def arguments(x: Data) -> tuple[Tensor, ...]:
    """Return the data as the program's positional arguments, each with one row per datum."""
    return x if isinstance(x, tuple) else (x,)


def num_data(x: Data) -> int:
    """Return the number of data, N."""
    return len(arguments(x)[0])


def take(x: Data, rows: slice | Tensor) -> Data:
    """Return some rows of the data."""
    return tuple(a[rows] for a in x) if isinstance(x, tuple) else x[rows]


def as_program(model: Any, guide: Any, x: Data | None) -> tuple[Program, Program, Data]:
    """Read both (model, guide, x) and (vae, x), where ``vae`` has a model and a guide."""
    if x is not None:
        return model, guide, x
    if not hasattr(model, "model") or not hasattr(model, "guide"):
        raise ValueError(f"expected (model, guide, x) or (vae, x), but {type(model).__name__} has no model and guide")
    return model.model, model.guide, guide


def as_model(model: Any) -> Program:
    """Return the model of a VAE, or the model itself."""
    return getattr(model, "model", model)


def trace(program: Program, x: Data, num_samples: int, values: Values | None = None) -> poutine.Trace:
    """Run a program with ``num_samples`` samples of each datum; sites in ``values`` are held at them."""
    if values is not None:
        program = poutine.condition(program, data=dict(values))
    with poutine.trace() as tracer, pyro.plate(SAMPLES, num_samples, dim=-2):
        program(*arguments(x))
    return prune_subsample_sites(tracer.trace)


def sample_sites(trace: poutine.Trace) -> Iterator[tuple[str, Any]]:
    """Yield (name, site) of the sites that carry a density."""
    for name, site in trace.nodes.items():
        if site["type"] == "sample" and not (site["infer"] or {}).get("_deterministic"):
            yield name, site


def log_prob(trace: poutine.Trace, names: Container[str] | None = None) -> Tensor:
    """Return the joint log-density of a trace's sites, or of some, (K, B): masked, but never scaled."""
    return sum(
        scale_and_mask(site["fn"].log_prob(site["value"]), 1.0, site["mask"])
        for name, site in sample_sites(trace)
        if names is None or name in names
    )


def draw(guide: Program, x: Data, num_samples: int) -> tuple[dict[str, Tensor], Tensor]:
    """Draw z from the guide; return its sites, (K, B, ...), and log q(z|x), (K, B)."""
    drawn = trace(guide, x, num_samples)
    values = {name: site["value"] for name, site in sample_sites(drawn) if not site["is_observed"]}
    return values, log_prob(drawn)


def log_density(program: Program, x: Data, values: Values) -> Tensor:
    """Return the program's joint log-density with its latents at ``values``, (K, B)."""
    shape = _pairs(values)
    return log_prob(trace(program, x, shape[0], values)).expand(shape)


def log_density_in_chunks(program: Program, x: Data, values: Values, chunk_size: int) -> Tensor:
    """Return :func:`log_density`, computed on at most ``chunk_size`` (datum, sample) pairs at once."""
    num_samples, size = _pairs(values)
    rows = min(size, chunk_size)
    samples = max(1, chunk_size // rows)
    if rows >= size and samples >= num_samples:
        return log_density(program, x, values)
    columns = []
    for i in range(0, size, rows):
        at, x_rows = slice(i, i + rows), take(x, slice(i, i + rows))
        parts = [
            log_density(program, x_rows, {name: v[k : k + samples, at] for name, v in values.items()})
            for k in range(0, num_samples, samples)
        ]
        columns.append(torch.cat(parts))
    return torch.cat(columns, dim=1)


def _pairs(values: Values) -> tuple[int, int]:
    first = next(iter(values.values()))
    return first.shape[0], first.shape[1]


@contextmanager
def quiet(model: Program, x: Data, seed: int | None, *programs: Program) -> Iterator[torch.Generator]:
    """Evaluate without gradients, validation, dropout, or a trace on the caller's random state.

    Yields:
        A generator of seeds for the blocks of noise, itself seeded by ``seed``, or where
        that is None by torch's global generator.
    """
    if seed is None:
        seed = int(torch.randint(2**62, ()))
    device = arguments(x)[0].device
    owners = [getattr(p, "__self__", p) for p in (model, *programs)]
    modules = [m for owner in owners if isinstance(owner, nn.Module) for m in owner.modules()]
    training = [m for m in modules if m.training]
    with (
        torch.no_grad(),
        pyro.validation_enabled(False),
        torch.random.fork_rng(devices=[device] if device.type == "cuda" else []),
    ):
        for m in training:
            m.training = False
        try:
            yield torch.Generator().manual_seed(seed)
        finally:
            for m in training:
                m.training = True


def reseed(seeds: torch.Generator) -> None:
    """Start the next block of noise."""
    torch.manual_seed(int(torch.randint(2**62, (), generator=seeds)))
