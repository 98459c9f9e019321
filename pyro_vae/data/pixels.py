"""The forms that pixels are given in: binarized, threshold, grey, levels, dequantized, raw."""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

FORMS = ("binarized", "threshold", "grey", "levels", "dequantized", "raw")

# Published, so that every figure on a validation or test set is for the same noise.
VALIDATION_SEED = 20190101
TEST_SEED = 20190102

# A pixel is white under "threshold" where its grey value exceeds this.
THRESHOLD = 0.5

# Above this a level plus noise in [0, 1) no longer fits the 24 bits of a float32.
MAX_LEVELS = 2**16


def prepare(x: Tensor, form: str, levels: int | None) -> Tensor:
    """Return ``x`` as float32 in a form; for a random form, what :func:`draw_from` draws from.

    Grey values are :math:`x / (\\mathrm{levels} - 1)`, or ``x`` itself without levels. They are
    the probabilities of "binarized"; "dequantized" starts from the levels.
    """
    x = x.float()
    if form not in ("binarized", "threshold", "grey"):
        return x
    if levels is not None:
        x = x / (levels - 1)
    return _keeping_blanks(lambda x: (x > THRESHOLD).float(), x) if form == "threshold" else x


def _keeping_blanks(change: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """Change the values of ``x``, but leave its blanks (NaN) blank."""
    return torch.where(x.isnan(), x, change(x))


def look_like_levels(x: Tensor) -> bool:
    """Whether values are whole numbers beyond 0 and 1, as grey levels are."""
    x = x[~x.isnan()]
    return bool(len(x) and (x == x.round()).all() and x.max() > 1 and x.min() >= 0)


def draw_from(form: str, levels: int | None, missing: bool = False) -> Callable[[Tensor], Tensor] | None:
    """Return the function that makes a fresh random version of a batch, None where nothing is random."""
    if form == "binarized":
        return partial(_keeping_blanks, binarize) if missing else binarize
    if form == "dequantized":
        return partial(dequantize, levels=levels)
    return None


def draw_once(x: Tensor, form: str, levels: int | None, seed: int) -> Tensor:
    """Return one random version of prepared data, the same for the same seed."""
    if draw_from(form, levels) is None:
        return x
    u = torch.rand(x.shape, dtype=x.dtype, generator=torch.Generator().manual_seed(seed))
    return _keeping_blanks(partial(binarize, u=u), x) if form == "binarized" else dequantize(x, levels, u)


def binarize(x: Tensor, u: Tensor | None = None) -> Tensor:
    r"""Draw each pixel as 0 or 1, with its grey value as the probability of 1.

    .. math:: [u < x], \quad u \sim \mathrm{Uniform}(0, 1)

    On a CPU this takes half the time of ``torch.bernoulli``.

    Args:
        x: Grey values in [0, 1].
        u: The noise, shaped like ``x`` and overwritten; drawn here if None.

    Returns:
        Zeros and ones, shaped like ``x``.

    Reference:
        Salakhutdinov & Murray (2008), On the quantitative analysis of deep belief networks.

    Example:
        >>> binarize(torch.tensor([0.0, 1.0]))
        tensor([0., 1.])
    """
    u = torch.rand_like(x) if u is None else u
    return u.lt_(x)


def dequantize(x: Tensor, levels: int | None, u: Tensor | None = None) -> Tensor:
    r"""Spread each level evenly over its cell.

    .. math:: (x + u) / \mathrm{levels}, \quad u \sim \mathrm{Uniform}(0, 1)

    Args:
        x: Levels, whole numbers 0 … levels - 1.
        levels: The number of levels.
        u: The noise, shaped like ``x`` and overwritten; drawn here if None.

    Returns:
        Values in (0, 1), with floor(value * levels) equal to ``x``.

    Reference:
        Theis, van den Oord & Bethge (2016), A note on the evaluation of generative models, section 3.1.

    Example:
        >>> (dequantize(torch.tensor([0.0, 255.0]), 256) * 256).floor()
        tensor([  0., 255.])
    """
    assert levels is not None
    # Rounding in floating point may not carry a value over the edge of its cell.
    edge = levels * torch.finfo(x.dtype).eps
    u = torch.rand_like(x) if u is None else u
    return u.clamp_(edge, 1 - edge).add_(x).div_(levels)


def choose(data: str, x: Tensor, levels: int | None, is_table: bool) -> str:
    """Return the form for data whose user asked for none."""
    return "raw" if is_table and levels is None and not _within(x, 0, 1) else "binarized"


def check(data: str, x: Tensor, form: str, levels: int | None) -> None:
    """Refuse data whose values do not fit a form.

    Raises:
        ValueError: Naming the data, what was expected, what came, and the ways out.
    """
    if levels is not None:
        wrong = (
            (x < 0) | (x > levels - 1) | ((x != x.round()) & ~x.isnan()) if x.is_floating_point() else x > levels - 1
        )
        if wrong.any():
            row = int(wrong.nonzero()[0, 0])
            raise ValueError(
                f"data={data!r}: levels={levels} expects whole numbers from 0 to {levels - 1}, but "
                f"{int(wrong.sum())} of {x.numel()} values are something else, the first of them "
                f"{x[wrong][0].item():g} in row {row + 1}; give the number of levels that the data have, "
                "or leave it out"
            )
    elif form in ("levels", "dequantized"):
        raise ValueError(
            f"data={data!r}: pixels={form!r} expects a known number of grey levels, but none is given; "
            "--levels 256 reads whole numbers 0..255 as 256 grey levels, --pixels raw takes values as they are"
        )
    elif form != "raw" and not _within(x, 0, 1):
        raise ValueError(
            f"data={data!r}: pixels={form!r} expects values in [0, 1], but they go from {x.nan_to_num(0.5).min():g} to "
            f"{x.nan_to_num(0.5).max():g}; --levels 256 reads whole numbers 0..255 as 256 grey levels, "
            "--pixels raw takes values as they are, or rescale them"
        )


def _within(x: Tensor, low: float, high: float) -> bool:
    return not bool(((x < low) | (x > high)).any())
