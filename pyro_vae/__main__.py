"""The commands as one program: ``pyro-vae train``, ``python -m pyro_vae train`` …"""

import importlib
import os
import sys
from types import ModuleType

from pyro_vae.commands.cli import command, fail
from pyro_vae.machine.trust import named_modules

COMMANDS = {
    "train": "train a VAE, and leave a run folder",
    "evaluate": "estimate log P(X) of test data, or of your own, with error bars",
    "parts": "list the priors, encoders, likelihoods and objectives to choose from",
    "check": "check each equation of the derivation, in numbers",
    "report": "make one HTML page of a run, with an explorer of its latent space",
    "sample": "generate data, or variations of an example",
    "reconstruct": "encode data and decode them again",
    "encode": "where data are in the latent space, and what its dimensions are used for",
    "interpolate": "walk from one example to another",
    "manifold": "see what the latent space decodes to",
    "impute": "fill the blanks in data, several times",
    "augment": "add realistic variations to a data set",
    "classify": "P(Y | X) of a run with labels, by Bayes' rule",
    "score": "find anomalies: log P(X) of each example, and its p-value against held-out data",
    "compare-table": "how a synthetic table compares with the real one: errors, two-sample tests, use, copies",
}


@command
def main(argv: list[str] | None = None) -> None:
    """Run the command named by the first argument."""
    arguments = sys.argv[1:] if argv is None else argv
    # A part in a file beside the user is found as with python -m; at the end, so that it shadows nothing installed, and
    # only where one is named: libraries look for others, which need not be there, and the folder may be a stranger's.
    if named_modules(arguments) or (arguments[:1] == ["parts"] and not all(a.startswith("-") for a in arguments[1:])):
        sys.path.append(os.getcwd())
    if not arguments or arguments[0] in ("-h", "--help"):
        print("usage: pyro-vae COMMAND [options]\n")
        print("\n".join(f"  {name:<15}{what}" for name, what in COMMANDS.items()))
        print("\npyro-vae COMMAND --help tells a command's options.")
    elif arguments[0] not in COMMANDS:
        fail(f"no command is called {arguments[0]!r}; there are {', '.join(COMMANDS)}")
    else:
        module_of(arguments[0]).main(arguments[1:])


def module_of(name: str) -> ModuleType:
    """Return the module of a command."""
    return importlib.import_module(f"pyro_vae.commands.{name.replace('-', '_')}")


if __name__ == "__main__":
    main()
