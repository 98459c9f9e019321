"""How a synthetic table compares with the real one that it was made after."""

from pyro_vae.inference.tables.compare import Comparison, compare_tables

__all__ = ["Comparison", "compare_tables"]
