"""The commands, ``pyro-vae NAME``: a file for each, and what they share."""
