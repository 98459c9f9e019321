"""Add realistic variations to a data set: ``pyro-vae augment RUN --data FILE --times 5``."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pyro_vae import plotting
from pyro_vae.commands.arguments import OF_A_FILE, Opened, on_run, options_of, run_parser
from pyro_vae.commands.cli import Parser
from pyro_vae.commands.outputs import Results, check_fits, to_csv, to_npz
from pyro_vae.data.source import Source
from pyro_vae.data.tables import Schema, as_bytes
from pyro_vae.evidence.checks import check_count
from pyro_vae.inference import augment
from pyro_vae.runs.opening import condition_of, of_class, read_examples, read_source

NAME = "augment"
GREY_FORMS = ("binarized", "threshold", "grey")
SHOWN, SHOWN_TIMES = 12, 5  # originals, and variations of each, in the picture


def parser() -> Parser:
    """Return the parser."""
    description = "Add variations of each example to a data set: other draws from its posterior, decoded."
    parser = run_parser(NAME, description, examples=False)
    help = "A file, folder or name as for training. All of it, in its order."
    parser.add_argument("--data", type=str, required=True, help=help)
    parser.add_options(read_examples, *OF_A_FILE)
    parser.add_options(augment, "times", "temperature", "mean")
    return parser


@on_run(NAME, parser)
def main(opened: Opened) -> None:
    """Augment a data set, and leave the files in a folder."""
    args, run, vae, examples = opened.args, opened.run, opened.vae, opened.examples
    vae.check(examples.x)
    if vae.config.table is not None:
        _augment_table(opened, examples.table or vae.config.table)
        return
    original = of_class(
        read_source(run, vae, args.data, pixels="raw", data_dir=args.data_dir, missing=vae.missing), vae
    )
    check_count(times=args.times)
    check_fits("times", args.times + 1, 4 * examples.x.numel())
    count, form, levels = len(examples.x), vae.config.pixels, vae.config.levels
    print(f"data        {examples.name}: {count:,} examples")
    made = augment(vae, opened.x(), **options_of(augment, args)).cpu()
    levels = original.levels or args.levels or levels
    known = original.x[~original.x.isnan()]
    if form in GREY_FORMS and original.levels is None and bool(((known >= 0) & (known <= 1)).all()):
        levels = None  # as they were read
    variations = to_original_units(made, form, levels)
    x = torch.cat([original.x[:count], variations.flatten(0, 1)])
    origin = torch.arange(count).repeat(args.times + 1)
    labels = None if examples.label_names is None else examples.label_names[origin]

    files: dict[str, bytes | str] = {
        "augmented.npz": to_npz(vae, data={"x": x}, other={"original": origin, "y": labels})
    }
    if Path(args.data).suffix.lower() == ".csv":
        names = original.columns or [f"column {d + 1}" for d in range(x.shape[1])]
        shortest = x.numpy().astype(str).astype(np.float64)  # 0.1 rather than what float32 makes of it
        columns = dict(zip(names, torch.from_numpy(shortest).T, strict=True)) | (
            {} if labels is None else {"label": labels}
        )
        files["augmented.csv"] = to_csv(columns)
    results = Results(opened.folder, "augmented").write(files)
    what = "the means of other draws of z" if args.mean else "drawn from other draws of z"
    print(f"variations  {args.times:,} of each, {what} at temperature {args.temperature:g}, in the data's own units")
    if labels is not None:
        print("labels      those of the originals: whether a variation still deserves it, the model doesn't know")
    print(f"rows        {len(x):,}: the {count:,} originals first, then in turn")
    results.conclude(lambda path: draw(path, original, variations, args.data))


def _augment_table(opened: Opened, table: Schema) -> None:
    """Augment a table whose columns are more than numbers, in which the variations stand below the originals."""
    import pandas

    args, vae, examples = opened.args, opened.vae, opened.examples
    check_count(times=args.times)
    check_fits("times", args.times + 1, 4 * examples.x.numel())
    made = augment(vae, opened.x(), **options_of(augment, args)).cpu().flatten(0, 1)
    originals, variations = examples.frame, table.decode(made)
    if (label := condition_of(opened.run)) in originals:
        variations[label] = np.tile(originals[label].to_numpy(), args.times)
    rows = pandas.concat([originals, variations], ignore_index=True)[list(originals.columns)]
    x, origin = torch.cat([examples.x, made]), torch.arange(len(originals)).repeat(args.times + 1)
    labels = None if examples.label_names is None else examples.label_names[origin]
    files: dict[str, bytes | str] = {
        "augmented.npz": to_npz(vae, data={"x": x}, other={"original": origin, "y": labels}),
        f"augmented.{table.form.suffix}": as_bytes(rows, table),
    }
    results = Results(opened.folder, "augmented").write(files)
    print(f"rows        {len(rows):,}: the {len(originals):,} originals first, then in turn")
    title = f"{Path(args.data).name}, and variations of it"
    names = [column.name for column in table.modelled]
    how: dict[str, Any] = {"names": names, "title": title, "label": "variations", "words": table.words}
    own, others = table.in_units(examples.x), table.in_units(made)
    results.conclude(lambda path: plotting.columns_compared(own, others, path, **how))


def to_original_units(x: Tensor, form: str, levels: int | None) -> Tensor:
    """Return data in the form that a model was trained on in that of the data set: whole grey levels where it has any.

    Args:
        x: Draws or means, of any shape.
        form: The form, as in :func:`pyro_vae.data.load`.
        levels: The number of grey levels; None where the data are used as they are.

    Example:
        >>> to_original_units(torch.tensor([0.0, 0.4, 1.0]), "binarized", 256)
        tensor([  0., 102., 255.])
    """
    if levels is None or form == "raw":
        return x
    if form == "dequantized":
        return (x * levels).floor().clamp(0, levels - 1)
    return ((levels - 1) * x if form in GREY_FORMS else x).round()


def draw(path: Path, original: Source, variations: Tensor, name: str) -> None:
    """Draw some originals, and below each its variations; of a table, its columns."""
    if len(original.shape) == 3:
        rows = torch.cat([original.x[None, : min(SHOWN, variations.shape[1])], variations[:SHOWN_TIMES, :SHOWN]])
        title = f"{Path(name).name}, and below each its variations"
        plotting.image_grid(rows.flatten(0, 1), original.shape, path, columns=rows.shape[1], title=title)
    else:
        names = original.columns or [f"column {d + 1}" for d in range(original.shape[0])]
        made = variations.flatten(0, 1)
        plotting.columns_compared(
            original.x, made, path, names=names, title=f"{Path(name).name}, and variations of it", label="variations"
        )
