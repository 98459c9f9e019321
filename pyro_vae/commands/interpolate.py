"""Walk from one example to another: ``pyro-vae interpolate RUN --between 3 17``."""

from pathlib import Path

import torch
from torch import Tensor

from pyro_vae import plotting
from pyro_vae.commands.arguments import Opened, on_run, options_of, run_parser
from pyro_vae.commands.cli import Parser
from pyro_vae.commands.outputs import (
    bytes_of_datum,
    check_fits,
    check_row,
    in_units,
    mean_name,
    to_images,
    write_decoded,
)
from pyro_vae.inference import interpolate
from pyro_vae.vae import VAE

NAME = "interpolate"


def parser() -> Parser:
    """Return the parser."""
    description = "Decode the path between the posterior means of two examples, or of several pairs of them."
    parser = run_parser(NAME, description)
    parser.add_argument(
        "--between",
        type=int,
        nargs="+",
        required=True,
        metavar="ROW",
        help="Rows of the examples, from 0: A B, or several pairs A B C D …",
    )
    parser.add_options(interpolate, "num", "path")
    return parser


@on_run(NAME, parser)
def main(opened: Opened) -> None:
    """Interpolate, and leave the files in a folder."""
    args, vae, examples, names = opened.args, opened.vae, opened.examples, opened.names
    if len(args.between) % 2:
        raise ValueError(f"--between: expected pairs of rows, got {len(args.between)} of them")
    if args.num < 2:
        raise ValueError(f"--num must be at least 2, the two ends, got {args.num}")
    between = torch.tensor([check_row("between", row, len(examples.x)) for row in args.between]).reshape(-1, 2)
    check_fits("num", args.num, len(between) * bytes_of_datum(vae))
    ends = examples.x[between]  # (P, 2, D)
    start, end = ends.to(opened.device).unbind(1)
    made = interpolate(vae, start, end, **options_of(interpolate, args))
    x, z = (values.cpu().transpose(0, 1) for values in (made.x, made.z))  # (P, T, …)
    t = torch.linspace(0, 1, args.num)

    start_row, end_row = between.repeat_interleave(args.num, 0).T
    first = {"from": start_row, "to": end_row, "t": t.repeat(len(between))}
    data, other = {"x": x, "ends": ends}, {"z": z, "t": t, "between": between}
    results = write_decoded(opened.folder, "interpolation", vae, names, data, first=first, **other)
    pairs = ", ".join(f"{a} and {b}" for a, b in between.tolist()[:4]) + (", …" if len(between) > 4 else "")
    print(f"paths       {len(between)}, {args.path}, {args.num} steps each")
    print(f"between     rows {pairs} of {examples.name} ({examples.split})")
    title = f"{Path(examples.name).name}: {mean_name(vae)} along the {args.path} path between the posterior means"
    results.conclude(lambda path: draw(path, vae, x, ends, t, between, names, title))


def draw(
    path: Path, vae: VAE, x: Tensor, ends: Tensor, t: Tensor, between: Tensor, names: list[str] | None, title: str
) -> None:
    """Draw the paths: images in rows between the two examples, or the columns of a table."""
    pairs = [f"{a} – {b}" for a, b in between.tolist()]
    if names is not None:
        plotting.columns_along(
            in_units(vae, x).numpy(),
            t.numpy(),
            path,
            names=names,
            line_names=pairs,
            t_name="t",
            title=title,
            ends=in_units(vae, ends).numpy(),
        )
        return
    rows = torch.cat([ends[:, :1], x, ends[:, 1:]], 1)
    steps = [f"{value:.2g}" for value in t.tolist()]
    plotting.image_rows(
        to_images(vae, rows),
        path,
        row_names=pairs,
        column_names=["from", *steps, "to"],
        title=title,
        apart=(0, len(t)),
    )
