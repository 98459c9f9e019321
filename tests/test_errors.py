"""What a user or a file can cause is one line with status 2, in every command; a fault of ours says that it is one."""

import importlib

import pytest


def call(name, *arguments):
    importlib.import_module(f"pyro_vae.commands.{name}").main([str(argument) for argument in arguments])


def refused(capsys, name, *arguments, status=2):
    """Run a command that must fail; return its one line."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        call(name, *arguments)
    (line,) = capsys.readouterr().err.splitlines()
    assert ended.value.code == status
    assert line.startswith("error: ")
    return line


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "--prior", "StudentT", "--prior.df", "x"], "error: --prior.df: expected float, got x"),
        (["train", "--prior", "StudentT", "--prior.nope", "3"], "pyro_vae.priors.StudentT: there is no option nope"),
        (["train", "--likelihood", "Columns", "--likelihood.groups", "[[2, Nope]]"], "error: --likelihood.groups: exp"),
        (["train", "--prior", "[3]"], "error: --prior: expected the name of a class, got [3]"),
        (["train", "--prior", "json.JSONDecoder"], "error: --prior: expected a subclass of Prior"),
        (["evaluate", "run", "--proposal", "Widened", "--proposal.factor", "x"], "error: --proposal.factor: exp"),
        (["score", "run", "--proposal", "Laplace", "--proposal.nope", "1"], "there is no option nope"),
    ],
)
def test_errors_within_a_part_name_its_option_and_the_command(arguments, message, capsys):
    line = refused(capsys, *arguments)
    assert message in line
    program = {"train": "python -m pyro_vae.train"}.get(arguments[0], f"pyro-vae {arguments[0]}")
    assert line.endswith(f"(see {program} --help)")
