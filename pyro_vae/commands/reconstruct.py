"""Encode data and decode them again: ``pyro-vae reconstruct RUN``."""

from pathlib import Path

import torch

from pyro_vae import plotting
from pyro_vae.commands.arguments import add_data_arguments, add_out_arguments, add_run_arguments, new_folder
from pyro_vae.commands.cli import Parser, command
from pyro_vae.commands.outputs import (
    by_column,
    check_memory,
    column_names,
    is_image,
    rows_of_table,
    to_csv,
    to_images,
    to_npz,
)
from pyro_vae.inference import reconstruct
from pyro_vae.machine.devices import resolve_device
from pyro_vae.runs.files import write_file
from pyro_vae.runs.opening import load_run, read_examples

NAME = "reconstruct"
ACROSS, DOWN = 16, 4  # pairs of images in the picture


def parser() -> Parser:
    """Return the parser."""
    parser = Parser(prog="pyro-vae reconstruct", description="Encode data, and decode them again.")
    add_run_arguments(parser)
    add_data_arguments(parser)
    parser.add_argument("--draw", action="store_true", help="Draw z and x rather than take their means.")
    add_out_arguments(parser, NAME)
    return parser


@command
def main(argv: list[str] | None = None) -> None:
    """Reconstruct data, and leave the files in a folder."""
    args = parser().parse_args(argv)
    run, device = Path(args.run), resolve_device(args.device)
    vae = load_run(run, args.label).to(device)
    folder = new_folder(args.out, run, NAME, args.overwrite)
    chosen = {name: args[name] for name in ("split", "data", "levels", "data_dir", "max_examples", "seed")}
    examples = read_examples(run, vae, **chosen)
    x = examples.x
    check_memory("max_examples", 2 * len(x), vae)
    names = None if is_image(vae) else column_names(run)
    made = reconstruct(vae, x.to(device), mean=not args.draw, seed=args.seed)
    again = made.x.cpu()
    error = (again - x).square().nanmean(0).sqrt()  # (D,)

    folder.mkdir(parents=True, exist_ok=True)
    other = {"z": made.z, "y": examples.labels}
    write_file(folder / "reconstructions.npz", to_npz(vae, data={"x": x, "reconstruction": again}, other=other))
    how = "a draw of x from a draw of z" if args.draw else "E[x|z] at z = E[z|x]"
    files = ["reconstructions.npz", "reconstructions.png"]
    picture = folder / "reconstructions.png"
    if names is None:
        columns = min(ACROSS, len(x))
        shown = len(x[: ACROSS * DOWN]) // columns * columns
        pairs = torch.stack([part[:shown].unflatten(0, (-1, columns)) for part in (x, again)], 1).flatten(0, 1)
        row_names = ["data", "again"] * (len(pairs) // 2)
        title = f"{Path(examples.name).name} and reconstructions: {how}"
        plotting.image_rows(to_images(vae, pairs), picture, row_names=row_names, column_names=[], title=title)
    else:
        files[:0] = ["reconstructions.csv", "columns.csv"]
        index = {"index": torch.arange(len(x))}
        write_file(folder / "reconstructions.csv", rows_of_table(names, again, index))
        spread = (x - x.nanmean(0)).square().nanmean(0).sqrt()
        write_file(folder / "columns.csv", to_csv({"column": names, "rms_error": error, "sd": spread}))
        title = f"{Path(examples.name).name}: {len(x):,} examples; reconstruction: {how}"
        plotting.columns_scattered(x.numpy(), again.numpy(), picture, names=names, title=title, label="reconstruction")
    print(f"data        {examples.name}: {len(x):,} examples ({examples.split})")
    print(f"again       {how}")
    if names is None:
        print(f"error       root mean square {error.square().nanmean().sqrt().item():.4g} per pixel")
    else:
        print(*by_column("error", names, again - x, x), sep="\n")
    print(f"results     {folder}  ({', '.join(files)})")


if __name__ == "__main__":
    main()
