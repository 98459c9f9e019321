"""Dates as texts."""

import datetime
import re

import numpy as np
import pytest

from pyro_vae.data.tables import dates


@pytest.mark.parametrize("time", ["", *dates.TIMES])
def test_dates_are_written_as_python_writes_them(time):
    seconds = np.append(np.random.default_rng(0).integers(dates.FIRST, dates.LAST, 100), [-1, 0, 86_399]) + 0.25

    def as_python_does(moment, format):
        tenths = re.sub(r"%(\d)f", lambda directive: f"{moment.microsecond:06}"[: int(directive[1])], format)
        return moment.strftime(tenths.replace("%Y", f"{moment.year:04}"))

    for day in dates.DAYS:
        format = f"{day} {time}"
        moments = [dates.EPOCH + datetime.timedelta(seconds=value) for value in seconds.tolist()]
        assert dates.write(seconds, format) == [as_python_does(moment, format) for moment in moments]
