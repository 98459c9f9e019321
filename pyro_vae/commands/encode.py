"""Encode data, and see what each latent dimension is used for: ``pyro-vae encode RUN --data FILE``."""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pyro_vae import plotting
from pyro_vae.commands.arguments import Opened, on_run, options_of, run_parser
from pyro_vae.commands.cli import Parser
from pyro_vae.commands.outputs import Results, check_fits, to_csv, to_npz, with_error
from pyro_vae.evidence.result import standard_error
from pyro_vae.inference import Latents, encode
from pyro_vae.inference.latent import plane
from pyro_vae.runs.opening import Examples

NAME = "encode"


def parser() -> Parser:
    """Return the parser."""
    description = "Encode data: location, scale and KL of each q(z|x), a map, and what the dimensions are used for."
    parser = run_parser(NAME, description)
    parser.add_options(encode, "num_samples")
    return parser


@on_run(NAME, parser)
def main(opened: Opened) -> None:
    """Encode data, and leave the files in a folder."""
    args, vae, examples = opened.args, opened.vae, opened.examples
    check_fits("num_samples", args.num_samples, 8 * vae.config.latent_dim)
    latents = encode(vae, opened.x(), **options_of(encode, args))

    results = Results(opened.folder, "latents").write(
        {
            "latents.npz": to_npz(vae, data={}, other=arrays(latents) | {"y": examples.label_names}),
            "latents.csv": by_example(latents, examples),
            "dimensions.csv": by_dimension(latents),
        }
    )
    print(*_words(latents, examples, args.num_samples), sep="\n")
    results.conclude(lambda path: draw(path, latents, examples))


def arrays(latents: Latents) -> dict[str, Tensor | np.ndarray | None]:
    """Return the arrays of latents.npz."""
    names = ("loc", "scale", "kl", "kl_per_dimension", "variance", "active")
    return {name: getattr(latents, name) for name in names}


def by_example(latents: Latents, examples: Examples) -> str:
    """Return a row for each example, in their order, as CSV."""
    columns: dict[str, Tensor | np.ndarray] = {"index": torch.arange(len(latents.loc))}
    if examples.label_names is not None:
        columns["label"] = examples.label_names
    columns["kl"] = latents.kl
    for name, values in (("loc", latents.loc), ("scale", latents.scale)):
        columns |= {f"{name}_z{j + 1}": column for j, column in enumerate(values.T)}
    return to_csv(columns)


def by_dimension(latents: Latents) -> str:
    """Return a row for each latent dimension, from the most used on, as CSV."""
    order = latents.order
    columns: dict[str, Any] = {"dimension": [f"z{j + 1}" for j in order]}
    if latents.kl_per_dimension is not None:
        kl = latents.kl_per_dimension.double()[:, order]
        se = kl.std(0) / math.sqrt(len(kl)) if len(kl) > 1 else torch.full_like(kl[0], math.nan)
        columns |= {"kl": kl.mean(0), "kl_se": se}
    columns |= {"variance": latents.variance[order], "active": latents.active[order].long()}
    return to_csv(columns)


def draw(path: Path, latents: Latents, examples: Examples) -> None:
    """Draw the map, and the use of the dimensions."""
    points, parts = plane(latents.loc.cpu())
    names = ["z1", "z2" if latents.loc.shape[1] == 2 else ""]
    if parts is not None:
        names = [f"principal component {i + 1} of E[z|x] ({100 * part:.0f} %)" for i, part in enumerate(parts)]
    use, use_name = latents.variance, "variance of E[z|x] over the examples"
    if latents.kl_per_dimension is not None:
        use, use_name = latents.kl_per_dimension.mean(0), "KL[q(z|x) ‖ p(z)] of one dimension, nats per example"
    plotting.latent_map(
        points.numpy(),
        path,
        axes_names=(names[0], names[1]),
        labels=examples.label_names,
        use=use.cpu().numpy(),
        use_name=use_name,
        active=latents.active.cpu().numpy(),
        title=f"{Path(examples.name).name} in the latent space",
    )


def _words(latents: Latents, examples: Examples, num_samples: int) -> Iterator[str]:
    """Yield what was found, line by line."""
    count = len(latents.kl)
    yield f"data        {examples.name}: {count:,} examples ({examples.split})"
    kl = latents.kl.double()
    figure = with_error(kl.mean().item(), standard_error(kl))
    yield f"KL          {figure} nats per example, {_how('kl', latents, num_samples)}"
    size = len(latents.variance)
    if latents.kl_per_dimension is None:
        yield "            of one dimension by itself unknown: the prior or the encoder gives no density of it"
    else:
        mean = latents.kl_per_dimension.double().mean(0)
        shown = ", ".join(f"z{j + 1} {mean[j].item():.2f}" for j in latents.order[:8])
        more = ", …" if size > 8 else ""
        yield f"            by dimension: {shown}{more} ({_how('kl_per_dimension', latents, num_samples)})"
    if "loc" in latents.estimated:
        yield f"            location and scale are the mean and the deviation of {num_samples} draws of z each"
    yield f"active      {int(latents.active.sum())} of {size} dimensions: the variance of E[z|x] over x exceeds 0.01"


def _how(name: str, latents: Latents, num_samples: int) -> str:
    return f"estimated from {num_samples} draws each" if name in latents.estimated else "exact"
