"""Numbers as texts: what they spell, and how they are written again."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

MOST_DECIMALS = 20
# 1,234,567.8 with thousands, of a sign or none.
_GROUPED = re.compile(r"[+-]?\d{1,3}(?:,\d{3})+(?:\.\d*)?")
_FORMAT = re.compile(r"(?P<sign>\+?)(?P<group>,?)\.(?P<least>\d{1,2})(?:-(?P<most>\d{1,2}))?(?P<style>[fegrEGR])")
_SWAP = str.maketrans(".,", ",.")


def to_numbers(texts: Sequence[str], decimal: str = ".") -> np.ndarray:
    """Return the numbers that texts spell, NaN where one spells none; whole ones as int64, which keeps their digits.

    Example:
        >>> to_numbers(["3", "1614556800000000001"]), to_numbers(["1,234.5", "x"]), to_numbers(["1.234,5"], ",")
        (array([                  3, 1614556800000000001]), array([1234.5,    nan]), array([1234.5]))
    """
    import pandas

    array = np.array(_with_point(texts, decimal), dtype=object)
    numbers = np.asarray(pandas.to_numeric(pandas.Series(array, dtype=object), errors="coerce"))
    if numbers.dtype == np.int64:
        return numbers
    numbers = numbers.astype(np.float64)
    grouped = [i for i in np.flatnonzero(np.isnan(numbers)) if _GROUPED.fullmatch(array[i].strip())]
    numbers[grouped] = [float(array[i].replace(",", "")) for i in grouped]
    return numbers


def is_code(text: str) -> bool:
    """Return whether a number has zeros before it, as a postal code has."""
    digits = text.lstrip("+- ")
    return digits[:1] == "0" and digits[1:2].isdigit()


def is_format(text: str) -> bool:
    """Return whether a text, which may be a stranger's, is a format of numbers."""
    match = _FORMAT.fullmatch(text)
    return match is not None and int(match["least"]) <= int(match["most"] or match["least"]) <= MOST_DECIMALS


def _with_point(texts: Sequence[str], decimal: str) -> Sequence[str]:
    return texts if decimal == "." else [text.translate(_SWAP) for text in texts]


@dataclass(frozen=True)
class NumberFormat:
    """How numbers are written: with from ``least`` to ``most`` decimals, or so many digits, a sign and thousands.

    As a text it is ".2f" for two decimals, ".0-2f" for at most two, "+,.2f" with signs and thousands; ".3e" for a
    power of ten with three decimals, ".3g" for three digits with a power of ten where that is shorter, ".3r" for the
    same where whole numbers have a decimal, as in Python.
    """

    least: int = 0
    most: int = 0
    style: str = "f"
    group: bool = False
    sign: bool = False

    def __str__(self) -> str:
        decimals = str(self.most) if self.least == self.most else f"{self.least}-{self.most}"
        return f"{'+' * self.sign}{',' * self.group}.{decimals}{self.style}"

    @classmethod
    def parse(cls, text: str) -> "NumberFormat":
        """Return the format that a text describes."""
        match = _FORMAT.fullmatch(text)
        assert match is not None, text
        least = int(match["least"])
        return cls(least, int(match["most"] or least), match["style"], bool(match["group"]), bool(match["sign"]))

    @classmethod
    def of(cls, texts: Sequence[str], decimal: str = ".") -> "NumberFormat":
        """Return how texts that are numbers are written.

        Example:
            >>> str(NumberFormat.of(["18", "18.7"])), str(NumberFormat.of(["0,50", "1,25"], ","))
            ('.0-1f', '.2f')
            >>> str(NumberFormat.of(["1.400", "0.250", "1.125", "0"])), str(NumberFormat.of(["1.4", "0.25", "2.0"]))
            ('.3f', '.1-2f')
            >>> str(NumberFormat.of(["1e-05", "0.00123"])), str(NumberFormat.of(["1e-05", "15000.0"]))
            ('.3g', '.2r')
        """
        texts = [text.strip() for text in _with_point(texts, decimal)]
        sign = any(text.startswith("+") for text in texts)
        powers = [text for text in texts if "e" in text or "E" in text]
        if not powers:
            decimals = [len(text) - 1 - text.index(".") if "." in text else 0 for text in texts]
            most = max(decimals)
            # As many zeros at the end as numbers without: those few that have fewer decimals are written otherwise.
            zeros = sum(text[-1] == "0" and places == most for text, places in zip(texts, decimals, strict=True))
            least = most if zeros >= len(texts) - decimals.count(most) else min(decimals)
            least, most = min(least, MOST_DECIMALS), min(most, MOST_DECIMALS)
            return cls(least, most, "f", any("," in text for text in texts), sign)
        mantissas = [re.split("[eE]", text)[0].lstrip("+-") for text in texts]
        decimals = [len(mantissa.partition(".")[2]) for mantissa in mantissas]
        if len(powers) == len(texts) and len(set(decimals)) == 1:
            style, most = "e", min(decimals[0], MOST_DECIMALS)
        else:
            style = "r" if any(text.endswith(".0") for text in texts) else "g"
            most = min(max(1, *(len(mantissa.replace(".", "").strip("0")) for mantissa in mantissas)), 17)
        return cls(most, most, style if "e" in powers[0] else style.upper(), sign=sign)

    @property
    def decimals(self) -> int | None:
        """The most decimals that are written; None where digits are counted."""
        return self.most if self.style == "f" else None

    def write(self, numbers: np.ndarray, decimal: str = ".") -> list[str]:
        """Return numbers as texts.

        Example:
            >>> NumberFormat(0, 2).write(np.array([1.5, 2.0, 1234.25])), NumberFormat(2, 2).write(np.array([1.5]), ",")
            (['1.5', '2', '1234.25'], ['1,50'])
        """
        values = numbers.tolist()
        if self.style in "rR":
            texts = [repr(float(f"%{'+' * self.sign}.{self.most}g" % value)) for value in values]
            texts = [text.upper() for text in texts] if self.style == "R" else texts
        elif self.group:
            texts = [format(value, f"{'+' * self.sign},.{self.most}{self.style}") for value in values]
        else:
            style = "d" if numbers.dtype.kind == "i" and self.decimals == 0 else f".{self.most}{self.style}"
            pattern = f"%{'+' * self.sign}{style}"
            texts = [pattern % value for value in values]
        if self.least < self.most:
            cut = self.least - self.most
            texts = [text[:cut] + text[cut:].rstrip("0") for text in texts]
            texts = texts if self.least else [text.rstrip(".") for text in texts]
        return texts if decimal == "." else [text.translate(_SWAP) for text in texts]
