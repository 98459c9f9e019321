"""Make one HTML page of a run: ``pyro-vae report RUN``."""

from pyro_vae.commands.arguments import LABEL_HELP, TRUST
from pyro_vae.commands.cli import Parser, command
from pyro_vae.machine.devices import check_seed
from pyro_vae.machine.files import named, write_file
from pyro_vae.runs.folder import PAGE, is_page


def parser() -> Parser:
    """Return the parser."""
    parser = Parser(prog="pyro-vae report", description="Make one HTML page of a run, which needs no network.")
    add = parser.add_argument
    add("run", help="A run folder.")
    add("--label", type=str | None, help=LABEL_HELP)
    add("--trust", **TRUST)
    add("--seed", type=int, default=0, help="Of the random numbers.")
    add("--out", type=str | None, metavar="FILE", help="The page. Default: RUN/report.html.")
    add("--overwrite", action="store_true", help="Replace an earlier page.")
    add("--no_check", action="store_true", help="Leave out the check of the equations, which takes a few seconds.")
    return parser


@command
def main(argv: list[str] | None = None) -> None:
    """Write the page."""
    args = parser().parse_args(argv)
    check_seed(args.seed)
    path = named(args.run) / PAGE if args.out is None else named(args.out)
    if path.is_dir():
        raise IsADirectoryError(f"--out: {path} is a folder; name a file")
    if path.exists() and not is_page(path):
        raise FileExistsError(f"--out: {path} exists and is no page of this program; name another file with --out")
    if path.exists() and not args.overwrite:
        raise FileExistsError(f"--out: {path} exists; replace it with --overwrite, or name another file with --out")
    if not path.parent.is_dir() and args.out is not None:
        raise FileNotFoundError(f"--out: {path.parent} is no folder; make it, or name another file")
    from pyro_vae.runs.page import report

    page = report(args.run, check=not args.no_check, seed=args.seed, label=args.label, trust=args.trust)
    write_file(path, page)
    print(f"page        {path}  ({len(page.encode()) / 2**20:.1f} MB; open it in a browser, it needs no network)")
