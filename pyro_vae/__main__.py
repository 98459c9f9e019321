"""The commands as one program: ``pyro-vae train``, ``python -m pyro_vae train`` …"""

import importlib
import sys

from pyro_vae.cli import fail

COMMANDS = {
    "train": "train a VAE, and leave a run folder",
}


def main() -> None:
    """Run the command named by the first argument."""
    arguments = sys.argv[1:]
    if not arguments or arguments[0] in ("-h", "--help"):
        print("usage: pyro-vae COMMAND [options]\n")
        print("\n".join(f"  {name:<12}{what}" for name, what in COMMANDS.items()))
        print("\npyro-vae COMMAND --help tells a command's options.")
    elif arguments[0] not in COMMANDS:
        fail(f"no command is called {arguments[0]!r}; there are {', '.join(COMMANDS)}")
    else:
        importlib.import_module(f"pyro_vae.{arguments[0]}").main(arguments[1:])


if __name__ == "__main__":
    main()
