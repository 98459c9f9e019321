"""The command line's first word: ``python -m pyro_vae.train``."""

from pyro_vae.commands.train import main

if __name__ == "__main__":
    main()
