"""How far off what was made of a table's columns is, in their own units."""

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from pyro_vae.commands.outputs import in_units, unordered
from pyro_vae.vae import VAE

MOST = 12  # columns that are named


class ColumnErrors(NamedTuple):
    """How far off D columns are, beside what they come to where the same is said of all rows.

    Attributes:
        error: Root mean square error, (D,); of categories the share that is wrong.
        spread: Standard deviation of the data, (D,); of categories the share of all but the commonest.
        named: Which columns are categories, (D,).
    """

    error: Tensor
    spread: Tensor
    named: Tensor

    def as_columns(self) -> dict[str, Tensor]:
        """Return them as columns of a table, by name."""
        numbers = {"rms_error": self.error, "sd": self.spread}
        columns = {name: values.masked_fill(self.named, torch.nan) for name, values in numbers.items()}
        if self.named.any():
            shares = {"wrong": self.error, "not_commonest": self.spread}
            columns |= {name: values.masked_fill(~self.named, torch.nan) for name, values in shares.items()}
        return columns

    def words(self, what: str, names: Sequence[str]) -> Iterator[str]:
        """Say how large they are, line by line."""
        for named, kind, style in (
            (False, "root mean square error of each column (standard deviation of its values):", ".3g"),
            (True, "wrong of each column (all but its commonest value):", ".1%"),
        ):
            known = ((self.named == named) & self.error.isfinite()).nonzero()[:, 0].tolist()
            shown = [f"{names[d]} {self.error[d].item():{style}} ({self.spread[d].item():{style}})" for d in known]
            if shown:
                yield f"{what:<12}{kind}"
                yield f"            {', '.join(shown[:MOST])}{', …' * (len(shown) > MOST)}"
                what = ""


def column_errors(vae: VAE, made: Tensor, x: Tensor) -> ColumnErrors:
    """Compare what was made of data, (N, D), with these, in own units; what is NaN in either doesn't count."""
    named, made, x = unordered(vae, x[0]), in_units(vae, made), in_units(vae, x)
    error, spread = (values.square().nanmean(0).sqrt() for values in (made - x, x - x.nanmean(0)))
    for d in named.nonzero()[:, 0].tolist():
        known = ~(made[:, d] - x[:, d]).isnan()
        true = x[known, d]
        error[d] = (made[known, d] != true).double().mean()
        spread[d] = (true != true.mode().values).double().mean() if known.any() else math.nan
    return ColumnErrors(error, spread, named)
