"""Files that only show what others hold."""

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path

from pyro_vae.data.source import one_line


@contextlib.contextmanager
def beside_the_figures(*paths: Path) -> Iterator[None]:
    """Write what only shows figures that are safe already: where that fails, say why, and go on without it."""
    try:
        yield
    except Exception as error:
        for path in paths:
            path.unlink(missing_ok=True)  # an earlier one would show other figures
        names = ", ".join(path.name for path in paths)
        print(f"warning: {names} could not be written ({type(error).__name__}: {one_line(error)})", file=sys.stderr)
