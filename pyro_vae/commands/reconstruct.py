"""Encode data and decode them again: ``pyro-vae reconstruct RUN``."""

from pathlib import Path

import torch
from torch import Tensor

from pyro_vae import plotting
from pyro_vae.commands.arguments import Opened, on_run, run_parser
from pyro_vae.commands.cli import Parser
from pyro_vae.commands.column_errors import column_errors
from pyro_vae.commands.outputs import (
    Results,
    bytes_of_datum,
    check_fits,
    in_units,
    mean_name,
    table_file,
    to_csv,
    to_images,
    to_npz,
    unordered,
)
from pyro_vae.inference import reconstruct
from pyro_vae.vae import VAE

NAME = "reconstruct"
ACROSS, DOWN = 16, 4  # pairs of images in the picture


def parser() -> Parser:
    """Return the parser."""
    parser = run_parser(NAME, "Encode data, and decode them again.")
    parser.add_argument("--draw", action="store_true", help="Draw z and x rather than take their means.")
    return parser


@on_run(NAME, parser)
def main(opened: Opened) -> None:
    """Reconstruct data, and leave the files in a folder."""
    args, vae, examples = opened.args, opened.vae, opened.examples
    x, names = examples.x, opened.names
    check_fits("max_examples", len(x), 2 * bytes_of_datum(vae))
    made = reconstruct(vae, opened.x(), mean=not args.draw, seed=args.seed)
    again = made.x.cpu()

    results = Results(opened.folder, "reconstructions")
    files: dict[str, bytes | str] = {
        "reconstructions.npz": to_npz(
            vae, data={"x": x, "reconstruction": again}, other={"z": made.z, "y": examples.label_names}
        )
    }
    if names is not None:
        errors = column_errors(vae, again, x)
        files |= table_file(vae, "reconstructions", names, again, {"index": torch.arange(len(x))})
        files["columns.csv"] = to_csv({"column": names, **errors.as_columns()})
    results.write(files)
    how = "a draw of x from a draw of z" if args.draw else f"{mean_name(vae)} at z = E[z|x]"
    print(f"data        {examples.name}: {len(x):,} examples ({examples.split})")
    print(f"again       {how}")
    if names is None:
        print(f"error       root mean square {(again - x).square().nanmean(0).nanmean().sqrt().item():.4g} per pixel")
    else:
        print(*errors.words("error", names), sep="\n")
    results.conclude(lambda path: draw(path, vae, x, again, names, Path(examples.name).name, how))


def draw(path: Path, vae: VAE, x: Tensor, again: Tensor, names: list[str] | None, name: str, how: str) -> None:
    """Draw images, and below each its reconstruction; or the columns of a table against theirs."""
    if names is None:
        columns = min(ACROSS, len(x))
        shown = len(x[: ACROSS * DOWN]) // columns * columns
        pairs = torch.stack([part[:shown].unflatten(0, (-1, columns)) for part in (x, again)], 1).flatten(0, 1)
        row_names = ["data", "again"] * (len(pairs) // 2)
        title = f"{name} and reconstructions: {how}"
        plotting.image_rows(to_images(vae, pairs), path, row_names=row_names, column_names=[], title=title)
    else:
        title = f"{name}: {len(x):,} examples; reconstruction: {how}"
        x, again = (torch.where(unordered(vae, x), torch.nan, in_units(vae, values)) for values in (x, again))
        plotting.columns_scattered(x.numpy(), again.numpy(), path, names=names, title=title, label="reconstruction")
