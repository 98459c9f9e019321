"""See what the latent space decodes to: ``pyro-vae manifold RUN``."""

from pathlib import Path

import torch
from torch import Tensor

from pyro_vae import plotting
from pyro_vae.commands.arguments import Opened, on_run, options_of, run_parser
from pyro_vae.commands.cli import Parser
from pyro_vae.commands.outputs import (
    bytes_of_datum,
    check_fits,
    in_units,
    mean_name,
    read_near,
    to_images,
    write_decoded,
)
from pyro_vae.evidence.checks import check_count
from pyro_vae.inference import encode, manifold, traverse
from pyro_vae.runs.opening import read_examples, some_data

NAME = "manifold"
MAX_EXAMPLES = 2000  # test data that tell how much the dimensions are used
DEFAULT_NUM = {"grid": 20, "walks": 11}
DEFAULT_DIMS = 10


def parser() -> Parser:
    """Return the parser."""
    parser = run_parser(
        NAME,
        "Decode a grid over a two-dimensional latent space; with --dims, or where it has another number of "
        "dimensions, walks along the most used ones.",
        examples=False,
    )
    add = parser.add_argument
    add("--num", type=int | None, help="Points along each dimension. Default: 20 of a grid, 11 of a walk.")
    add("--dims", type=int | None, help="Walk along so many dimensions, the most used ones. Default: 10, if so many.")
    add("--span", type=float | None, help="How far a walk goes to both sides, in standard deviations. Default: 3.")
    add(
        "--near",
        type=str | None,
        metavar="FILE[:ROW]",
        help="Walk through an example rather than the middle of the prior: the number of a row of the test data, from "
        "0, or a file of your own with one (default: the first).",
    )
    parser.add_options(read_examples, "levels")
    return parser


@on_run(NAME, parser)
def main(opened: Opened) -> None:
    """Decode the latent space, and leave the files in a folder."""
    args, size = opened.args, opened.vae.config.latent_dim
    walks = size != 2 or any(args[name] is not None for name in ("dims", "span", "near"))
    num = args.num if args.num is not None else DEFAULT_NUM["walks" if walks else "grid"]
    check_count(num=num)
    if args.levels is not None and args.near is None:
        raise ValueError("--levels says how to read the file of --near; leave it out, or name one")
    (_walk if walks else _grid)(opened, num)


def _grid(opened: Opened, num: int) -> None:
    """Decode a grid, and write it."""
    vae, names = opened.vae, opened.names
    check_fits("num", num, bytes_of_datum(vae), squared=True)
    made = manifold(vae, num, seed=opened.args.seed)
    x, z = made.x.cpu(), made.z.cpu()
    across, up = z[0, :, 0].numpy(), z[:, 0, 1].numpy()
    results = write_decoded(opened.folder, "manifold", vae, names, {"x": x}, first=_columns(z), z=z)
    ranges = f"z1 from {across[0]:.2f} to {across[-1]:.2f}, z2 from {up[-1]:.2f} to {up[0]:.2f}"
    print(f"manifold    {num} x {num} points at equal steps of the prior's distribution function: {ranges}")

    def draw(path: Path) -> None:
        title = f"{mean_name(vae)} at equal steps of the prior's distribution function in z1 and in z2"
        if names is None:
            plotting.image_plane(to_images(vae, x), path, across=across, up=up, title=title)
        else:
            plotting.columns_plane(in_units(vae, x).numpy(), path, across=across, up=up, names=names, title=title)

    results.conclude(draw)


def _walk(opened: Opened, num: int) -> None:
    """Decode walks along the most used dimensions, and write them."""
    args, run, vae, names, device = opened.args, opened.run, opened.vae, opened.names, opened.device
    size = vae.config.latent_dim
    count = min(DEFAULT_DIMS, size) if args.dims is None else args.dims
    if not 1 <= count <= size:
        raise ValueError(f"--dims: expected from 1 to {size}, the number of latent dimensions, got {count}")
    check_fits("num", num, count * bytes_of_datum(vae))
    span = 3.0 if args.span is None else args.span
    near, middle = None, "the middle of the prior"
    if args.near is not None:
        near, which = read_near(run, vae, args.near, **options_of(read_near, args))
        near, middle = near.to(device), f"the posterior mean of {which}"
    test = some_data(run, vae, MAX_EXAMPLES).test[:MAX_EXAMPLES]
    latents = encode(vae, test.to(device), seed=args.seed)
    dims = latents.order[:count]
    made = traverse(vae, dims, num=num, span=span, near=near, seed=args.seed)
    x, z = made.x.cpu(), made.z.cpu()

    use = latents.variance if latents.kl_per_dimension is None else latents.kl_per_dimension.mean(0)
    unit = "variance of E[z|x]" if latents.kl_per_dimension is None else "nats of KL"
    s = torch.linspace(-span, span, num, dtype=torch.float64)
    first = {"dimension": [f"z{j + 1}" for j in dims for _ in range(num)], "s": s.repeat(len(dims))}
    other = {"z": z, "dims": torch.tensor(dims), "s": s}
    results = write_decoded(opened.folder, "traversals", vae, names, {"x": x}, first=first | _columns(z), **other)
    order = ", ".join(f"z{j + 1} {use[j].item():.2f}" for j in dims[:8]) + (", …" if len(dims) > 8 else "")
    print(f"dimensions  {order} ({unit}, of {len(test):,} test examples)")
    print(f"walks       {len(dims)}, from {-span:g} to {span:g} standard deviations of the prior, through {middle}")

    def draw(path: Path) -> None:
        title = f"{mean_name(vae)} along one dimension at a time, through {middle}"
        walks = [f"z{j + 1}: {use[j].item():.2f} {unit}" for j in dims]
        if names is None:
            steps = [f"{value:+.2g}" if abs(value) > 1e-9 else "0" for value in s.tolist()]
            plotting.image_rows(to_images(vae, x), path, row_names=walks, column_names=steps, title=title)
        else:
            steps_name = "standard deviations"
            plotting.columns_along(
                in_units(vae, x).numpy(), s.numpy(), path, names=names, line_names=walks, t_name=steps_name, title=title
            )

    results.conclude(draw)


def _columns(z: Tensor) -> dict[str, Tensor]:
    """Return latents, (..., Z), as columns of a table."""
    return {f"z{j + 1}": values for j, values in enumerate(z.flatten(0, -2).T)}
