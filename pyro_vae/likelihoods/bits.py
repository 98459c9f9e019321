"""Bits per dimension, the unit in which image densities are compared."""

import math
from typing import TypeVar

from torch import Tensor

Value = TypeVar("Value", float, Tensor)


def bits_per_dimension(log_prob: Value, num_elements: int, levels: int | None = None) -> Value:
    r"""Convert a log-probability of a whole datum to bits per dimension.

    .. math:: -\frac{\log_2 p(x)}{D} \; [+ \log_2 L]

    A density of data dequantised to [0, 1] has levels of width 1/L, so that :math:`p(x) / L^D` stands
    for the probability of the levels themselves; since it is a lower bound of that
    probability on average over the noise, the bits are then an upper bound.

    Args:
        log_prob: log p(x), or a bound of it, of whole data; in nats.
        num_elements: D, the number of elements of a datum.
        levels: L, for a density on [0, 1] after dequantising L levels; None for
            probabilities of the levels.

    Returns:
        Bits per dimension, with the shape of ``log_prob``; less is better.

    Reference:
        Theis, van den Oord & Bethge (2016), A note on the evaluation of generative models, section 3.1.

    Example:
        >>> bits_per_dimension(-8 * math.log(256), num_elements=8)  # uniform over 256 levels
        8.0
        >>> bits_per_dimension(0.0, num_elements=8, levels=256)  # the same, as a density on [0, 1]
        8.0
    """
    bits = -log_prob / (num_elements * math.log(2))
    return bits if levels is None else bits + math.log2(levels)
