"""Commands as a user calls them, but in the tests' own process."""

import pytest

from pyro_vae.__main__ import module_of

FEW = ["--num_samples", 2, "--max_examples", 5]
# Commands on the folder "run", with what makes them end soon and well.
ON_A_RUN = {
    "train": ["--resume", "run", "--epochs", 2],
    "check": ["run"],
    "report": ["run", "--no_check"],
    "evaluate": ["run", *FEW],
    "score": ["run", *FEW],
    "classify": ["run", *FEW],
    "sample": ["run", "--num", 2],
    "reconstruct": ["run", "--max_examples", 2],
    "encode": ["run", "--max_examples", 5],
    "interpolate": ["run", "--between", 0, 1],
    "manifold": ["run", "--num", 2],
    "impute": ["run", "--hide", "left", "--max_examples", 2, "--num_samples", 5, "--num_starts", 1, "--steps", 2],
    "augment": ["run", "--data", "own.npy", "--times", 1],
}


def call(name, *arguments):
    """Run a command."""
    module_of(name).main([str(argument) for argument in arguments])


def refused(capsys, name, *arguments, status=2):
    """Run a command that must fail; return its one line."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as exit:
        call(name, *arguments)
    assert exit.value.code == status
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1, lines
    assert lines[0].startswith("error: ")
    return lines[0]
