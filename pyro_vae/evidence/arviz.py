"""Posterior draws, weights and diagnostics as ArviZ data, for its 0.x and its 1.x line."""

import errno
import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import pyro.distributions as dist
import torch
from pyro import poutine
from torch import Tensor

from pyro_vae.data.tables import Schema
from pyro_vae.evidence.checks import check_count, check_data
from pyro_vae.evidence.importance import Sampler
from pyro_vae.evidence.result import from_log_weights
from pyro_vae.program import Data, Program, arguments, as_program, quiet, sample_sites, take, trace
from pyro_vae.vae import VAE

Groups = dict[str, dict[str, Tensor]]

OF_DATA = ("observed_data", "posterior_predictive", "prior_predictive")  # groups of values as the data are
MAX_NAMES = 2**15  # characters of the names of categories: HDF5 takes 64 KiB with all that is said of a variable

# What is in a group, for whom its name alone would mislead.
MEANING = {
    "log_likelihood": (
        "log p(x|z) of each datum at each draw of its own z, nats; 0 where nothing of it is observed. az.loo and "
        "az.compare make of it the harmonic mean of p(x|z), an estimate of log P(x) without a bound on its error: "
        "compare models by log_evidence in sample_stats."
    ),
    "observed_data": "NaN where a value is blank or masked",
    "sample_stats": (
        "log_evidence: log P(x) of each datum by importance sampling, nats, with its standard error se, effective "
        "sample size ess and Pareto khat; log_weight: log p(x, z) - log q(z|x) of each draw; proposal_log_weight: of "
        "all samples that the draws were taken from"
    ),
}


def to_arviz(
    model: Any,
    guide: Any,
    x: Data | None = None,
    *,
    num_samples: int = 1000,
    num_draws: int = 200,
    chunk_size: int | None = None,
    seed: int | None = None,
) -> Any:
    r"""Return an amortised posterior as ArviZ data, importance-resampled to the exact posterior.

    .. math:: z^{(s)} = z_{k_s}, \quad k_s \sim \mathrm{Categorical}(w_1, \dots, w_K)

    Groups, with dimensions chain (1), draw, data, and those of each site:
    ``posterior`` (latent sites), ``sample_stats`` (log-weight of each draw; log-evidence, its standard
    error, ESS and k-hat of each datum; the log-weights of all proposals, along ``proposal``),
    ``log_likelihood``, ``posterior_predictive``, ``prior``, ``prior_predictive``, ``observed_data``.

    The draws are only as good as k-hat is low. The predictive groups hold ``num_draws`` copies of the data. What is
    blank or masked is NaN in ``observed_data``; where nothing of a datum is observed, ``log_likelihood`` is 0. That
    is log p(x|z), given each datum's own z: compare models by ``log_evidence``, not by ArviZ's ``loo``. Each group says
    so itself, as its attribute ``about``.

    Of a table's columns, values are in their own units, and the last dimension is called by their names. Categories and
    yes/no are numbers from 0; what they stand for is in the variable's attribute ``categories``, a JSON object, as the
    units of dates are in ``dates``.

    Args:
        model: A Pyro model of ``x``, or a :class:`pyro_vae.VAE` followed by ``x`` alone.
        guide: Its guide, or any proposal over the same sites.
        x: Data, (N, ...).
        num_samples: K, proposals for each datum.
        num_draws: Draws that are kept of them, with replacement.
        chunk_size: The most (datum, sample) pairs decoded at once.
        seed: Of the noise; by default it follows torch's global generator.

    Returns:
        ``arviz.InferenceData`` in the 0.x line, ``xarray.DataTree`` in the 1.x line.

    Raises:
        ValueError: As :func:`pyro_vae.evidence.log_weights`.

    Reference:
        Rubin (1987), sampling importance resampling, in a comment on Tanner & Wong.

    Example:
        >>> from pyro_vae.evidence.exact import LinearGaussian
        >>> exact = LinearGaussian(torch.ones(3, 1), scale=torch.ones(3))
        >>> to_arviz(exact.model, exact.guide, torch.zeros(2, 3), num_draws=5)["posterior"]["z"].sizes
        Frozen({'chain': 1, 'draw': 5, 'data': 2, 'z_dim_0': 1})
    """
    model, guide, x = as_program(model, guide, x)
    vae = getattr(model, "__self__", None)
    table = vae.config.table if isinstance(vae, VAE) else None
    check_count(num_samples=num_samples, num_draws=num_draws)
    check_data(model, x)
    parts: list[Groups] = []
    log_weights = []
    with quiet(model, x, seed, guide) as seeds:
        sampler = Sampler(model, guide, x, num_samples, chunk_size, seeds)
        for rows in sampler.blocks():
            drawn = list(sampler.draws(rows, num_samples))
            weights = torch.cat([w for _, w in drawn]).double()  # (K, B)
            # Where all are impossible, any will do.
            likely = torch.where(weights.logsumexp(0).isfinite(), weights, 0.0).T.softmax(1)
            chosen = torch.multinomial(likely, num_draws, replacement=True).T  # (S, B)
            at = (chosen, torch.arange(len(rows), device=rows.device))
            z = {name: torch.cat([values[name] for values, _ in drawn])[at] for name in sampler.latents}
            groups = _groups(model, take(x, rows), z, num_draws)
            if table is not None:
                groups |= {group: {**groups[group], "x": table.in_units(groups[group]["x"])} for group in OF_DATA}
            parts.append({"sample_stats": {"log_weight": weights[at]}} | groups)
            log_weights.append(weights)
    datasets = {
        group: _dataset({name: [part[group][name] for part in parts] for name in arrays}, group)
        for group, arrays in parts[0].items()
    }
    if table is not None:
        datasets |= {group: _with_columns(datasets[group], table) for group in OF_DATA}
    all_weights = torch.cat(log_weights, dim=1)
    result = from_log_weights(all_weights)
    stats = datasets["sample_stats"]
    for name in ("log_evidence", "se", "ess", "khat"):
        stats[name] = ("data", getattr(result, name).cpu().numpy())
    stats["proposal_log_weight"] = (("proposal", "data"), all_weights.cpu().numpy())
    return _container(datasets)


def to_netcdf(draws: Any) -> bytes:
    """Return what :func:`to_arviz` made as the content of a compressed .nc file, for ``arviz.from_netcdf``."""
    options: dict[str, Any] = {"engine": "h5netcdf"}
    if _is_datatree(draws):  # which does not compress by itself
        options["encoding"] = {
            node.path: {name: {"zlib": True} for name in node.data_vars} for node in draws.subtree if node.data_vars
        }
    size = sum(array.nbytes for group in _groups_of(draws) for array in group.data_vars.values())
    with tempfile.TemporaryDirectory() as folder:
        if shutil.disk_usage(folder).free < size:  # HDF5 would not end well
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), folder)
        path = Path(folder) / "draws.nc"
        draws.to_netcdf(str(path), **options)
        return path.read_bytes()


def _groups_of(draws: Any) -> list[Any]:
    return [*draws.subtree] if _is_datatree(draws) else [draws[group] for group in draws.groups()]


def _is_datatree(draws: Any) -> bool:
    import xarray

    return isinstance(draws, getattr(xarray, "DataTree", ()))


def _groups(model: Program, x: Data, z: dict[str, Tensor], num_draws: int) -> Groups:
    """Return the values of each group, (S, B, ...), and the observed data, (B, ...)."""
    given_z = dict(sample_sites(trace(model, x, num_draws, z)))
    observed = {n: site for n, site in given_z.items() if n not in z and not isinstance(site["fn"], dist.Unit)}
    generative = poutine.uncondition(model)
    after: Any = trace(generative, x, num_draws, z).nodes
    before: Any = trace(generative, x, num_draws).nodes
    seen = {n: _seen(site, x) for n, site in observed.items()}
    return {
        "posterior": z,
        "log_likelihood": {n: _log_likelihood(site, seen[n]) for n, site in observed.items()},
        "posterior_predictive": {n: after[n]["value"] for n in observed},
        "prior": {n: before[n]["value"] for n in z},
        "prior_predictive": {n: before[n]["value"] for n in observed},
        "observed_data": {n: site["value"].where(seen[n], torch.nan) for n, site in observed.items()},
    }


def _seen(site: Any, x: Data) -> Tensor:
    """Return which elements of a site's value, (B, ...), are observed: neither masked, nor blanks of the data."""
    fn, value = site["fn"], site["value"]
    masks = [(site["mask"], len(fn.event_shape))]
    while isinstance(fn, torch.distributions.Independent | dist.MaskedDistribution):
        masks.append((getattr(fn, "_mask", None), len(fn.event_shape)))
        fn = fn.base_dist
    seen = torch.ones_like(value, dtype=torch.bool)
    for mask, event_dim in masks:
        if mask is not None:
            mask = torch.as_tensor(mask, device=value.device)[(..., *[None] * event_dim)]
            mask = mask.expand(torch.broadcast_shapes(mask.shape, value.shape))
            seen &= mask.reshape(-1, *value.shape).any(0)  # the same for all z
    for a in arguments(x):
        if a.shape == value.shape:  # where it is blank, the program observed something in its place
            seen &= ~a.isnan()
    return seen


def _log_likelihood(site: Any, seen: Tensor) -> Tensor:
    """Return the log-density of a site, (S, B); 0 for those data of which it observes nothing."""
    return torch.where(seen.reshape(len(seen), -1).any(1), site["fn"].log_prob(site["value"]), 0.0)


def _dataset(variables: dict[str, list[Tensor]], group: str) -> Any:
    """Join the parts of each variable along the data, and name its dimensions."""
    import xarray

    is_observed = group == "observed_data"
    named = {}
    for name, parts in variables.items():
        array = torch.cat(parts, dim=0 if is_observed else 1).cpu().numpy()
        dims = ["data"]
        if not is_observed:
            array, dims = array[None], ["chain", "draw", "data"]
        dims += [f"{name}_dim_{i}" for i in range(array.ndim - len(dims))]
        named[name] = (dims, array)
    dataset = xarray.Dataset(named, attrs={"about": MEANING[group]} if group in MEANING else None)
    return dataset.assign_coords({dim: range(size) for dim, size in dataset.sizes.items()})


def _with_columns(dataset: Any, table: Schema) -> Any:
    """Return a group of which x is a table, with the names of its columns and of their categories."""
    dataset = dataset.assign_coords({dataset["x"].dims[-1]: [column.name for column in table.modelled]})
    categories: dict[str, Any] = {}
    for column in sorted(table.modelled, key=lambda column: sum(map(len, column.categories))):
        more = categories | ({column.name: column.categories} if column.categories else {})
        categories = more if len(json.dumps(more)) <= MAX_NAMES else categories
    dates = {c.name: f"{c.unit_name.strip()} since 1970" for c in table.modelled if c.kind == "date"}
    dataset["x"].attrs |= {"categories": json.dumps(categories), "dates": json.dumps(dates)}
    return dataset


def _container(datasets: dict[str, Any]) -> Any:
    """Put the groups into what this line of ArviZ works on."""
    import arviz
    import xarray

    if arviz.__version__.startswith("0."):
        return arviz.InferenceData(**datasets)
    return xarray.DataTree.from_dict(datasets)  # arviz.InferenceData is another name for it now
