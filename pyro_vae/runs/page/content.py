"""The sections of the page, as plain values for its template."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pyro_vae.data import SPLITS, Data
from pyro_vae.data.labels import Names, named
from pyro_vae.equations import Row
from pyro_vae.evidence.result import standard_error
from pyro_vae.inference.latent import Latents, plane
from pyro_vae.machine.reading import read_columns, read_json
from pyro_vae.plotting import SMALL
from pyro_vae.runs.folder import METRICS
from pyro_vae.runs.opening import size
from pyro_vae.runs.page import figures
from pyro_vae.runs.page.columns import in_explorer
from pyro_vae.runs.page.explorer import Network, Plane, explore
from pyro_vae.runs.page.facts import EVALUATION, figure, general, number, short
from pyro_vae.vae import VAE

EXAMPLES = 2000  # of the test data, whose codes are computed
SHOWN = 1000  # points in a map
STARTS, AXES = 8, 10  # examples to start from, and dimensions to choose from, in the explorer
BARS = 40  # latent dimensions that are drawn

Limits = tuple[float, float]


def counts(summary: dict[str, Any], dataset: Data) -> dict[str, str]:
    """Return how many examples of each split the run was trained and tested on."""
    # Earlier versions did not say so, nor keep a part of the data alone.
    known = _object(summary.get("num_examples", {split: len(getattr(dataset, split)) for split in SPLITS}))
    return {split: number(known.get(split), 0) for split in SPLITS}


def introduction(vae: VAE, summary: dict[str, Any], dataset: Data, counts: dict[str, str]) -> dict[str, Any]:
    """Return what the model is, part by part."""
    config = vae.config
    weights = sum(p.numel() for p in vae.parameters())
    return {
        "data": dataset.name,
        "size": size(dataset.shape),
        "pixels": dataset.pixels,
        "counts": counts,
        "parts": config.names,
        "objective": short(summary.get("objective")),
        "epochs": number(summary.get("epochs"), 0),
        "latent_dim": config.latent_dim,
        "network": config.network,
        "hidden_dims": list(config.hidden_dims),
        "weights": f"{weights:,}",
        "is_density": vae.likelihood.is_density,
        "elbo": figure(summary.get("test_elbo"), summary.get("test_elbo_se")),
        "reconstruction": number(summary.get("test_reconstruction")),
        "kl": number(summary.get("test_kl")),
        "train_elbo": number(summary.get("train_elbo")),
        "protocol": str(summary.get("protocol"))[:300],
        "warnings": [str(line)[:500] for line in _list(summary.get("warnings"))[:10]],
        "seconds": number(summary.get("seconds"), 0),
        "device": str(summary.get("device"))[:50],
    }


def limits(vae: VAE, dataset: Data) -> Limits:
    """Return the values of an image that are drawn black and white."""
    if dataset.pixels in ("binarized", "threshold", "grey", "dequantized"):
        return 0.0, 1.0
    if dataset.pixels == "levels" and dataset.levels:
        return 0.0, dataset.levels - 1.0
    values = dataset.train[:SHOWN]
    values = values[values.isfinite()]
    return values.min().item(), values.max().item()


def training_curves(run: Path, held_out: str) -> dict[str, Any]:
    """Return the pictures of how the training went."""
    rows = read_columns(run / METRICS, "epoch", "loss", "elbo", "reconstruction", "kl")
    epoch = rows["epoch"]
    bound = {"other": (epoch, -rows["loss"]), "main": (epoch, rows["elbo"])}
    terms = {"main": (epoch, -rows["reconstruction"]), "second": (epoch, rows["kl"])}
    return {
        "held_out": held_out,
        "bound": figures.curves(bound, "The ELBO over the epochs", "nats per example"),
        "terms": figures.curves(terms, "The two terms of the ELBO over the epochs", "nats per example", from_zero=True),
    }


def images(vae: VAE, dataset: Data, seed: int, across: int = 8) -> dict[str, Any]:
    """Return samples and reconstructions of images."""
    black_white = limits(vae, dataset)
    originals = dataset.test[: 4 * across]
    originals = originals[: max(1, len(originals) // across) * across]
    with torch.random.fork_rng([]):
        torch.manual_seed(seed)
        samples, again = vae.sample(6 * across, mean=True), vae.reconstruct(originals)
    across = min(across, len(originals))
    pairs = torch.stack([x.reshape(-1, across, x.shape[1]) for x in (originals, again)], 1).flatten(0, 2)
    return {
        "samples": figures.sheet(samples, dataset.shape, black_white, columns=8),
        "reconstructions": figures.sheet(pairs, dataset.shape, black_white, columns=across),
        "smooth": max(dataset.shape[1:]) <= SMALL,
    }


def latent_space(latents: Latents, labels: Tensor | None) -> dict[str, Any]:
    """Return the map of the codes, and what each dimension is used for."""
    points, parts = plane(latents.loc[:SHOWN])
    names = ("z₁", "z₂") if parts is None else ("1st principal component", "2nd principal component")
    groups = None if labels is None else labels[: len(points)].numpy()
    shown = latents.order[:BARS]
    each = latents.kl_per_dimension
    use = latents.variance if each is None else each.mean(0)
    picture = figures.bars(
        [use[j].item() for j in shown],
        [f"z{subscript(j + 1)}" for j in shown],
        [not bool(latents.active[j]) for j in shown],
        "What each latent dimension is used for",
        "variance of E[z|x] over the data" if each is None else "KL[q(z|x) ‖ p(z)], nats per example",
    )
    return {
        "map": figures.scatter(points.numpy(), "Codes of test data", names, groups=groups, equal=True),
        "kept": None if parts is None else f"{100 * sum(parts):.0f} %",
        "num_points": f"{len(points):,}",
        "num_examples": f"{len(latents.loc):,}",
        "has_labels": labels is not None,
        "bars": picture,
        "left_out": len(latents.variance) - len(shown),
        "num_active": int(latents.active.sum()),
        "num_dims": len(latents.variance),
        "has_kl": each is not None,
        "estimated": "kl_per_dimension" in latents.estimated,
        "kl_estimated": "kl" in latents.estimated,
        "kl": figure(latents.kl.mean().item(), standard_error(latents.kl)),
    }


def evaluation(run: Path) -> dict[str, Any] | None:
    """Return what ``pyro-vae evaluate`` found, None where it hasn't run."""
    if not (run / EVALUATION).exists():
        return None
    found = read_json(run / EVALUATION)
    khat, ess, bits = (_object(found.get(name)) for name in ("khat", "ess", "bits_per_dimension"))
    threshold, above = khat.get("threshold"), khat.get("fraction_above_threshold")
    facts: dict[str, Any] = {
        "histogram": None,
        "quality": None,
        "log_evidence": figure(found.get("log_evidence"), found.get("log_evidence_se")),
        "mc_se": number(found.get("log_evidence_mc_se"), 3),
        "elbo": figure(found.get("elbo"), found.get("elbo_se")),
        "gap": number(found.get("gap")),
        "num_samples": number(found.get("num_samples"), 0),
        "num_examples": number(found.get("num_examples"), 0),
        "bits": figure(bits.get("mean"), bits.get("se"), 3) if bits else None,
        "ess": f"{number(ess.get('median'), 1)} (median), {number(ess.get('min'), 1)} (least)",
        "khat": f"{number(khat.get('median'))} (median), {number(khat.get('max'))} (largest)",
        "threshold": number(threshold),
        "above": number(100 * above, 1) if isinstance(above, int | float) else "unknown",
        "trusted": above == 0,
    }
    facts |= {name: str(found.get(name))[:300] for name in ("estimator", "proposal", "split", "protocol", "data")}
    path = run / EVALUATION.replace(".json", ".csv")
    if path.exists():
        rows = read_columns(path, "log_evidence", "khat", "elbo")
        values, quality = rows["log_evidence"], rows["khat"]
        parts = {"other": rows["elbo"], "main": values}
        name = "nats, of each example"
        facts["histogram"] = figures.histograms(parts, "log P(X) and ELBO of the examples", name)
        kept = (np.isfinite(values) & np.isfinite(quality)).nonzero()[0][:SHOWN]
        if len(kept) and isinstance(threshold, int | float):
            facts["quality"] = figures.scatter(
                np.stack([values[kept], quality[kept]], -1),
                "k-hat of each example",
                ("log P(X), nats", "k-hat"),
                groups=(quality[kept] >= threshold).astype(int),
                classes=lambda doubtful: "doubtful" if doubtful else "",
            )
    return facts


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _object(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def check_rows(rows: Sequence[Row]) -> tuple[list[dict[str, str]], list[str]]:
    """Return the rows of the check as text, and the notes that they refer to."""
    notes = list(dict.fromkeys(row.note for row in rows if row.note))
    texts = []
    for row in rows:
        error = "" if row.left is None else (general(row.standard_error, 2) if row.standard_error else "exact")
        texts.append(
            {
                "equation": row.equation,
                "note": str(notes.index(row.note) + 1) if row.note else "",
                "left": general(row.left),
                "right": general(row.right),
                "difference": general(row.difference, 2),
                "error": error,
                "verdict": row.verdict,
            }
        )
    return texts, notes


def explorer(vae: VAE, dataset: Data, latents: Latents, labels: Tensor | None, seed: int) -> dict[str, Any] | None:
    """Return what the explorer needs, and what its surroundings say; None where no picture can be computed."""
    is_image = len(dataset.shape) == 3
    plane = first_plane(vae, latents, seed)
    low, high = _display(vae, dataset, is_image)
    decoder, errors = explore(vae, plane, latents.loc[:256], (high - low).clamp(min=1e-12))
    if decoder is None:
        return None
    is_network = isinstance(decoder, Network)
    order = latents.order[:AXES] if is_network else list(plane.axes)
    data: dict[str, Any] = decoder.facts() | {
        "shape": list(dataset.shape),
        "low": low.reshape(-1).tolist(),
        "high": high.reshape(-1).tolist(),
        "base": _rounded(plane.base),
        "axes": order,
        "chosen": list(plane.axes),
        "from": _rounded(plane.low),
        "to": _rounded(plane.high),
        "points": [_rounded(z) for z in latents.loc[:500, order]],
        "labels": None if labels is None else [int(label) % figures.COLOURS for label in labels[:500]],
        "starts": [_rounded(z) for z in latents.loc[:STARTS]] if is_network else [],
    }
    if not is_image:
        data["columns"] = in_explorer(vae, dataset)
    black_white = (low.min().item(), high.max().item())
    starts = dataset.test[: len(data["starts"])]
    return {
        "data": data,
        "is_network": is_network,
        "is_image": is_image,
        "has_categories": not isinstance(decoder, Network) and bool(decoder.nearest.any()),
        "bits": max(layer["bits"] for layer in data["layers"]) if is_network else None,
        "grid": data["grid"]["size"] if not is_network else None,
        "median": _percent(errors["median"]),
        "largest": _percent(errors["largest"]),
        "num_points": errors["points"],
        "names": [f"z{subscript(j + 1)}" for j in order],
        "chosen": [f"z{subscript(j + 1)}" for j in plane.axes],
        "num_dims": len(plane.base),
        "smooth": is_image and max(dataset.shape[1:]) <= SMALL,
        "starts": [figures.sheet(x.unsqueeze(0), dataset.shape, black_white) for x in starts] if is_image else [],
        "num_starts": len(data["starts"]),
    }


def first_plane(vae: VAE, latents: Latents, seed: int) -> Plane:
    """Return the plane of the two most active dimensions, through the mean of the codes."""
    with torch.no_grad(), torch.random.fork_rng([]):
        torch.manual_seed(seed)
        z = torch.cat([latents.loc, vae.prior().expand((EXAMPLES,)).sample()])
    quantiles = torch.tensor([0.002, 0.998], dtype=z.dtype)
    low, high = z.quantile(quantiles, dim=0)
    # One scale for all dimensions, so that distances can be compared.
    radius = (1.05 * (high - low).max() / 2).clamp(min=1e-3)
    axes = sorted(latents.order[:2]) if len(latents.order) > 1 else [0, 0]
    middle = (low + high) / 2
    return Plane(latents.loc.mean(0), (axes[0], axes[1]), middle - radius, middle + radius)


def _display(vae: VAE, dataset: Data, is_image: bool) -> tuple[Tensor, Tensor]:
    """Return the values at the ends of what is shown: of all pixels, (), or of each column, (D,)."""
    if is_image:
        low, high = limits(vae, dataset)
        return torch.tensor(low), torch.tensor(high)
    values = dataset.train[:EXAMPLES]
    lowest, highest = values.nan_to_num(math.inf).amin(0), values.nan_to_num(-math.inf).amax(0)
    return lowest, torch.where(highest > lowest, highest, lowest + 1)


def _percent(part: float) -> str:
    return "less than 0.001" if part < 1e-5 else f"{100 * part:.2g}"


def _rounded(z: Tensor) -> list[float]:
    return [round(value, 4) for value in z.tolist()]


def subscript(number: int) -> str:
    """Return a whole number written below the line."""
    return str(number).translate(str.maketrans("0123456789", "₀₁₂₃₄₅₆₇₈₉"))


def versions(summary: dict[str, Any]) -> list[tuple[str, str]]:
    """Return the programs that trained the model, with their versions."""
    return [(str(name)[:50], str(version)[:50]) for name, version in _object(summary.get("versions")).items()]


def legend(labels: Tensor | None, names: Names) -> list[tuple[str, str]]:
    """Return (class in style.css, name) of the labels, where they are few."""
    classes = torch.zeros(0, dtype=torch.long) if labels is None else labels.unique()
    if len(classes) > figures.COLOURS:
        return []
    return [(figures.colour(c), str(name)) for c, name in zip(classes.tolist(), named(classes, names), strict=True)]
