"""Settings of all tests."""

import inspect
import os

# The tests run in one process for each core: more threads than that would only wait for each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
import torch

from tests.processes import few_imports

torch.set_num_threads(1)
# For devices that are not there, torch.manual_seed writes down the stack, which takes longer than many tests compute.
for device in (torch.cuda, torch.xpu, torch.mtia):
    if not device.is_available():
        device.manual_seed_all = lambda seed: None


@pytest.fixture(scope="session")
def run_code():
    """A function that runs code in a folder, in a process that has imported nothing yet but torch and Pyro."""
    with few_imports() as run:
        yield run


@pytest.fixture(autouse=True)
def undrawn(request, monkeypatch):
    """Leave pictures empty where a test is not marked to be about them: they take longer than a short training.

    Nothing is lost by that, since a command whose picture fails only warns of it.
    """
    if request.node.get_closest_marker("pictures"):
        return
    from pyro_vae import plotting

    def touch(function):
        return lambda *args, **options: inspect.signature(function).bind(*args, **options).arguments["path"].touch()

    for name in plotting.__all__:
        if callable(function := getattr(plotting, name)):
            monkeypatch.setattr(plotting, name, touch(function))
