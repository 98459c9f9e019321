"""Settings of all tests."""

import os

# The tests run in one process for each core: more threads than that would only wait for each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
import torch

from tests.processes import few_imports

torch.set_num_threads(1)


@pytest.fixture(scope="session")
def run_code():
    """A function that runs code in a folder, in a process that has imported nothing yet but torch and Pyro."""
    with few_imports() as run:
        yield run
