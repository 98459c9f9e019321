"""Dates and times as texts, and as days or seconds since 1970."""

import calendar
import itertools
import re
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

import numpy as np

DAYS = ("%Y-%m-%d", "%Y/%m/%d", "%Y.%m.%d", "%d.%m.%Y", "%m/%d/%Y", "%d/%m/%Y", "%m-%d-%Y", "%d-%m-%Y", "%d %b %Y",
        "%d-%b-%Y", "%d %B %Y", "%b %d, %Y", "%B %d, %Y", "%m/%d/%y", "%d/%m/%y", "%d.%m.%y", "%d-%b-%y", "%Y-%m",
        "%b %Y", "%Y%m%d")  # fmt: skip
TIMES = ("%H:%M:%S", "%H:%M", *(f"%H:%M:%S.%{digits}f" for digits in (3, 6, 1, 2, 4, 5)), "%I:%M %p", "%I:%M:%S %p")
ZONE = re.compile(r"(?<=\d)(?:Z| ?UTC| ?GMT|[+-]\d\d:?\d\d)$")
DIRECTIVE = re.compile(r"%(-?)([1-6]?)([YmdHMSfIpbByz])")
OTHER = r"[ T/.:,+\-ZUTCGM\d]*"  # what may stand between them
FORMAT = re.compile(f"{OTHER}(?:{DIRECTIVE.pattern}{OTHER})+")
EPOCH = datetime(1970, 1, 1)
SECONDS = 86_400
# Years from 1 to 9999, which every library can write; a data frame of nanoseconds holds fewer.
NO_DAY = -25_567 * SECONDS  # 1900-01-01, which pandas has for the day of a time alone
FIRST, LAST = -719_162 * SECONDS, 2_932_896 * SECONDS + SECONDS - 1


def _plain(format: str) -> str:
    """Return a format as pandas and Python read it: without what only says how digits are written."""
    return re.sub(r"%-?[1-6]?([a-zA-Z])", r"%\1", format)


def is_format(format: str | None) -> bool:
    """Return whether a text, which may be a stranger's, is a format of dates."""
    return format is not None and len(format) < 100 and FORMAT.fullmatch(format) is not None


def has_time(format: str) -> bool:
    """Return whether a format says more than the day."""
    return any(directive in _plain(format) for directive in ("%H", "%I"))


def has_day(format: str) -> bool:
    """Return whether a format says more than the time of a day."""
    return "%Y" in format or "%y" in format


def find_format(texts: Sequence[str]) -> str | None:
    """Return the format, as strftime's, that all texts are dates in; None where there is none.

    Of several the one is taken in which the first ones are written to the letter, months before days as pandas does.
    ``%-d`` is a day without a leading zero, ``%3f`` three digits of a second.

    Example:
        >>> find_format(["2021-03-01", "2021-12-24"]), find_format(["24.12.2021 8:05", "1.3.2021 17:30"])
        ('%Y-%m-%d', '%-d.%-m.%Y %-H:%M')
        >>> find_format(["2021-03-01T10:00:00Z"]), find_format(["red", "green"])
        ('%Y-%m-%dT%H:%M:%SZ', None)
    """
    texts = [text.strip() for text in texts]
    first = texts[0]
    if not any(character.isdigit() for character in first) or not 4 <= len(first) <= 40:
        return None
    zones = {zone.group() if (zone := ZONE.search(text)) else "" for text in texts} if ":" in first else {""}
    if len(zones) > 1 and ("" in zones or not all(zone == "Z" or zone[0] in "+-" for zone in zones)):
        return None
    suffix = next(iter(zones)) if len(zones) == 1 else "%z"
    some = texts[:200]
    for candidate in _candidates(first, suffix):
        if _are_written(some, candidate) and not np.isnan(to_seconds(texts, candidate)).any():
            return candidate
    return None


def _candidates(first: str, suffix: str) -> list[str]:
    """Return the formats that a text may be in."""
    between = "T" if "T" in first and ":" in first else " "
    days: list[str] = [] if first[:2].rstrip(":").isdigit() and ":" in first[:3] else list(DAYS)
    times = list(TIMES) if ":" in first else []
    plain = [f"{day}{between}{time}" for day in days for time in times] if times and days else days or times
    loose = [re.sub("%([mdHI])", r"%-\1", format) for format in plain]
    formats = [f"{format}{suffix}" for format in itertools.chain(plain, loose)]
    return [format for format in formats if _parse(first, format) is not None]


def _parse(text: str, format: str) -> datetime | None:
    try:
        return datetime.strptime(text, _plain(format))
    except ValueError:
        return None


def _are_written(texts: Sequence[str], format: str) -> bool:
    """Return whether texts are dates that are written like this, to the letter but for the offset of a time zone."""
    if "%z" in format:
        texts, format = [ZONE.sub("", text) for text in texts], format.replace("%z", "")
    seconds = to_seconds(texts, format)
    return not np.isnan(seconds).any() and write(seconds, format) == list(texts)


def to_seconds(texts: Sequence[str], format: str) -> np.ndarray:
    """Return the seconds since 1970 of texts in a format, in UTC where it has a zone; NaN where one is not in it."""
    import pandas

    zoned, texts = "%z" in format, [text.strip() for text in texts]
    moments = pandas.to_datetime(pandas.Series(texts, dtype=object), format=_plain(format), errors="coerce", utc=zoned)
    seconds = seconds_of(moments.dt.tz_localize(None) if zoned else moments)
    # Older versions of pandas know the years from 1678 to 2261 alone.
    for i in np.flatnonzero(np.isnan(seconds)).tolist():
        if (moment := _parse(texts[i], format)) is not None:
            seconds[i] = (moment.replace(tzinfo=None) - (moment.utcoffset() or timedelta()) - EPOCH).total_seconds()
    return seconds


def seconds_of(moments: Any) -> np.ndarray:
    """Return the seconds since 1970 of a column of datetimes without a zone; NaN where there is none."""
    values = np.asarray(moments, dtype="datetime64[us]")
    seconds = values.astype(np.int64) / 1e6
    seconds[np.isnat(values)] = np.nan
    return seconds


def write(seconds: np.ndarray, format: str) -> list[str]:
    """Return seconds since 1970 as texts in a format.

    Example:
        >>> write(np.array([0.0, 86400.25]), "%Y-%m-%d %H:%M:%S.%3f")
        ['1970-01-01 00:00:00.000', '1970-01-02 00:00:00.250']
    """
    rest, whole = np.modf(np.clip(seconds, FIRST, LAST))
    micros = whole.astype(np.int64) * 10**6 + np.round(rest * 1e6).astype(np.int64)
    fields = []

    def style(directive: re.Match[str]) -> str:
        shortest, digits, letter = directive.groups()
        values = _field(letter, micros)
        if letter == "f":
            fields.append(values // 10 ** (6 - int(digits or 6)))
            return f"%0{digits or 6}d"
        fields.append(values)
        return "%s" if letter in "bBp" else "%d" if shortest else "%04d" if letter == "Y" else "%02d"

    template = DIRECTIVE.sub(style, format.replace("%z", "+00:00"))
    return [template % values for values in zip(*(field.tolist() for field in fields), strict=True)]


def _field(letter: str, micros: np.ndarray) -> np.ndarray:
    """Return what a directive of a format stands for, of moments in microseconds since 1970."""
    days, time = np.divmod(micros, SECONDS * 10**6)
    hours = time // (3600 * 10**6)
    months = days.astype("datetime64[D]").astype("datetime64[M]")
    years, month = np.divmod(months.astype(np.int64), 12)
    match letter:
        case "Y":
            return years + 1970
        case "y":
            return (years + 1970) % 100
        case "m":
            return month + 1
        case "b" | "B":
            return np.array((calendar.month_abbr if letter == "b" else calendar.month_name)[1:], dtype=object)[month]
        case "d":
            return (days.astype("datetime64[D]") - months).astype(np.int64) + 1
        case "H":
            return hours
        case "I":
            return (hours - 1) % 12 + 1
        case "p":
            return np.array(["AM", "PM"], dtype=object)[hours // 12]
        case "M":
            return time // (60 * 10**6) % 60
        case "S":
            return time // 10**6 % 60
        case _:
            return time % 10**6
