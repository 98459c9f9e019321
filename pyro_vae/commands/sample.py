"""Generate data from a run: ``pyro-vae sample RUN --num 64``."""

import math
from collections.abc import Iterable, Sequence
from pathlib import Path

import torch

from pyro_vae import plotting
from pyro_vae.commands import given
from pyro_vae.commands.arguments import Opened, on_run, options_of, run_parser
from pyro_vae.commands.cli import Parser
from pyro_vae.commands.outputs import bytes_of_datum, check_fits, in_units, read_near, words_of, write_decoded, x_shape
from pyro_vae.commands.progress import SOON, progress_bar
from pyro_vae.conditional import ConditionalVAE
from pyro_vae.data.labels import in_words, named
from pyro_vae.evidence.checks import check_count
from pyro_vae.inference import Conditioned, Decoded, sample
from pyro_vae.runs.opening import condition_of, read_examples, some_data

NAME = "sample"
SHOWN = 144  # images in the picture


def parser() -> Parser:
    """Return the parser."""
    parser = run_parser(NAME, "Generate data from a run, or variations of a given example.", examples=False)
    add = parser.add_argument
    add("--num", type=int | None, help="How many. Default: 64; of a run with --condition and no --label 8 a class.")
    parser.add_options(sample, "temperature", "mean")
    add(
        "--near",
        type=str | None,
        metavar="FILE[:ROW]",
        help="Vary an example: draws from its posterior, decoded. The number of a row of the test data, from 0, or a "
        "file of your own with one (default: the first).",
    )
    parser.add_options(read_examples, "levels", "data_dir")
    given.add_options(parser)
    return parser


@on_run(NAME, parser, whole=True, check=given.check_options)
def main(opened: Opened) -> None:
    """Generate data, and leave the files in a folder."""
    args, run, names = opened.args, opened.run, opened.names
    vae, cells, where = given.read_wanted(opened)
    y, classes = None, vae.config.class_names
    if isinstance(vae, ConditionalVAE):
        if args.near is not None:
            raise ValueError(f"--near: {run} was trained with --condition; add --label {in_words(classes)}")
        args.num = 8 * vae.num_classes if args.num is None else args.num
        check_count(num=args.num)
        y = torch.arange(args.num) * vae.num_classes // args.num  # as many of each class, in their order
    args.num = 64 if args.num is None else args.num
    check_count(num=args.num)
    check_fits("num", args.num, bytes_of_datum(vae))
    if args.near is None and (args.levels is not None or args.data_dir is not None):
        raise ValueError("--levels and --data_dir say how to read the file of --near; leave them out, or name one")
    near, which = None, ""
    if args.near is not None:
        near, which = read_near(run, vae, args.near, **options_of(read_near, args))
    options = {name: args[name] for name in ("temperature", "mean", "seed")}
    if cells or where:
        made: Decoded = given.draw(vae, args.num, cells, where, args)
    elif isinstance(vae, ConditionalVAE) and y is not None:
        of_each = zip(*y.unique(return_counts=True), strict=True)
        made = join([sample(vae.given(int(label)), int(count), **options) for label, count in of_each])
    else:
        with progress_bar("sampling", after=SOON) as progress:
            own = None if near is None else near.to(opened.device)
            made = sample(vae, args.num, near=own, **options, progress=progress)
    x = made.x.cpu()

    data = {"x": x} if near is None else {"x": x, "near": near}
    if vae.label is not None:
        y = torch.full((args.num,), vae.label)
    labels = None if y is None else named(y, classes)
    first = {} if labels is None else {condition_of(run) or "label": labels}
    results = write_decoded(opened.folder, "samples", vae, names, data, first=first, z=made.z, y=labels)
    what = "means E[x|z]" if args.mean else "draws"
    of = "" if y is None else f", classes {in_words(classes)}" if vae.label is None else f", class {classes[vae.label]}"
    source = "z ~ p(z)" if near is None else f"z ~ q(z|x) of {which}"
    title = f"{what}{of}, {source}, temperature {args.temperature:g}"
    notes: Iterable[str] = ()
    if isinstance(made, Conditioned):
        title = f"{what}{of} {given.source(cells, where)}"
        notes = given.words(made, where, names or [])
    print(f"samples     {args.num:,} {title}", *notes, sep="\n")

    def draw(path: Path) -> None:
        if names is not None:
            # Of all rows, by column: those without any blank may be of a kind of their own.
            train = some_data(run, vae).train
            plotting.columns_compared(
                in_units(vae, train),
                in_units(vae, x),
                path,
                names=names,
                title=title,
                label=what,
                words=words_of(vae),
            )
            return
        shown = x[:SHOWN] if near is None else torch.cat([near[None], x[: SHOWN - 1]])
        columns, row_names = min(12, max(8, math.ceil(math.sqrt(len(shown))))), []
        if isinstance(vae, ConditionalVAE) and y is not None and args.num >= vae.num_classes:  # a row for each class
            columns = min(12, args.num // vae.num_classes)
            shown = torch.cat([x[y == label][:columns] for label in y.unique()[: SHOWN // columns]])
            row_names = [classes[label] for label in y.unique().tolist()][: SHOWN // columns]
        above = title if near is None else f"{which}, and variations: {what}, temperature {args.temperature:g}"
        plotting.image_grid(shown, x_shape(vae), path, columns=columns, title=above, row_names=row_names)

    results.conclude(draw)


def join(parts: Sequence[Decoded]) -> Decoded:
    """Put data of several classes together."""
    return Decoded(torch.cat([part.x for part in parts]), torch.cat([part.z for part in parts]))
