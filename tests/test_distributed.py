"""Several processes: the gradient of the whole batch, equal weights, one voice, and an end together."""

import contextlib
import copy
import io
import json
import os
import shutil
import signal
import time
from dataclasses import replace
from datetime import timedelta

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
import yaml
from safetensors import safe_open

import pyro_vae
from pyro_vae.base import Encoder
from pyro_vae.commands import evaluate, train
from pyro_vae.likelihoods import Bernoulli
from pyro_vae.networks import mlp
from pyro_vae.priors import StandardNormal
from pyro_vae.runs import keeping
from pyro_vae.training import NonFiniteLoss, Training
from tests.processes import CONTEXT

QUICK = ["--epochs", "4", "--hidden_dims", "[16]", "--latent_dim", "2", "--batch_size", "100"]
STEP, UPDATE, PREPARE = pyro.infer.SVI.step, keeping.Checkpoints.update, train.prepare


class Point(Encoder):
    """No noise: q(z|x) is a point."""

    def __init__(self, network):
        super().__init__()
        self.network = network

    @staticmethod
    def num_outputs(z_dim):
        return z_dim

    def forward(self, x):
        return dist.Delta(self.network(x), event_dim=1)


def data(rows, seed=1):
    x = torch.rand(rows, 16, generator=torch.Generator().manual_seed(seed))
    return (x < torch.linspace(0, 1, 16)).float()


def make_vae(encoder):
    torch.manual_seed(0)
    return pyro_vae.VAE(
        prior=StandardNormal(2),
        encoder=encoder(mlp(16, [8], encoder.num_outputs(2))),
        decoder=mlp(2, [8], (16, 1)),
        likelihood=Bernoulli(),
    )


def weights(vae):
    return torch.cat([p.detach().flatten() for p in vae.parameters()])


def train_without_noise():
    # The last batch has one datum, less than there are processes.
    vae, x = make_vae(Point).double(), data(101).double()
    training = Training(vae, x, epochs=3, batch_size=20, lr=1e-2, clip_norm=0.5)
    return [(row["loss"], row["elbo"], weights(vae).clone()) for row in training.run()]


def train_with_noise():
    vae, noise = make_vae(pyro_vae.encoders.DiagonalNormal), []

    def draw(x):
        noise.append(torch.rand(3))
        return x

    training = Training(
        vae, data(1000), draw=draw, validation=data(300, 2), epochs=20, lr=1e-2, ema_decay=0.9, patience=15
    )
    rows = [(row["elbo"], weights(vae).clone(), weights(training.evaluated)) for row in training.run()]
    return rows, noise[2:], weights(vae)  # the first two: for a look at the data, and for the starting values


class Left(Exception):
    """A training that is left in the middle of an epoch."""


def leave_within_an_epoch():
    """The weights of a training, and of one that is left after two of the five steps of an epoch, and taken up."""

    def training():
        return Training(make_vae(pyro_vae.encoders.DiagonalNormal), data(100), epochs=3, batch_size=20)

    def leave(step, *_):
        if (broken.epoch, step) == (1, 2):
            state.append(copy.deepcopy(broken.state_dict()))
            raise Left

    whole, broken, resumed = training(), training(), training()
    state = []
    list(whole.run())
    with pytest.raises(Left):
        list(broken.run(leave))
    resumed.load_state_dict(*state[0])
    list(resumed.run())
    return weights(whole.vae), weights(resumed.vae)


def meet_a_broken_datum():
    def draw(x):
        broken = x.clone()
        if x[:, 0].any():  # in the share of one of the processes
            broken[0, 0] = torch.inf
        return broken

    x = torch.zeros(64, 16)
    x[5] = 1
    training = Training(make_vae(pyro_vae.encoders.DiagonalNormal), torch.zeros(64, 16), draw=draw, batch_size=16)
    training.data = replace(training.data, x=x)
    with pytest.raises(NonFiniteLoss) as error:
        list(training.run())
    return str(error.value)


def part(rank, folder):
    """What each of two processes does."""
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    results = [train_without_noise(), train_with_noise(), meet_a_broken_datum(), leave_within_an_epoch()]
    torch.save(results, folder / f"{rank}.pt")
    torch.distributed.destroy_process_group()


def start_two(target, *arguments):
    processes = [CONTEXT.Process(target=target, args=(rank, *arguments), daemon=True) for rank in (0, 1)]
    for process in processes:
        process.start()
    return processes


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """Each process's results of the three functions."""
    folder = tmp_path_factory.mktemp("two")
    for process in start_two(part, folder):
        process.join(60)
        assert process.exitcode == 0
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in (0, 1)]


def test_without_noise_two_processes_do_what_one_does(two):
    alone = train_without_noise()
    for results in two:
        for (loss, elbo, w), (expected_loss, expected_elbo, expected) in zip(results[0], alone, strict=True):
            torch.testing.assert_close(w, expected, rtol=1e-9, atol=1e-11)
            assert loss == pytest.approx(expected_loss, rel=1e-9)
            assert elbo == pytest.approx(expected_elbo, rel=1e-9)


def test_weights_are_equal_after_every_epoch(two):
    (first, _, final), (second, _, other) = two[0][1], two[1][1]
    assert len(first) == len(second) > 3
    for a, b in zip(first, second, strict=True):
        assert a[0] == b[0]
        assert torch.equal(a[1], b[1])
        assert torch.equal(a[2], b[2])
    assert torch.equal(final, other)


def test_processes_draw_noise_of_their_own(two):
    noise = torch.stack([*two[0][1][1], *two[1][1][1]]).flatten()
    assert noise.unique().numel() > 0.999 * noise.numel()
    assert noise.mean().item() == pytest.approx(0.5, abs=5 * (1 / 12 / noise.numel()) ** 0.5)


def test_the_elbo_is_that_of_one_process(two):
    alone, _, _ = train_with_noise()
    # Between seeds, the ELBO after these epochs has a standard deviation of about 0.02 nats.
    assert two[0][1][0][-1][0] == pytest.approx(alone[-1][0], abs=0.1)


def test_all_stop_at_a_loss_that_is_not_finite_and_know_why(two):
    assert two[0][2] == two[1][2]
    assert "the batch holds values that are not finite" in two[0][2]


def test_an_epoch_is_taken_up_in_its_middle_by_as_many_processes_exactly(two):
    (whole, resumed), others = two[0][3], two[1][3]
    for weights in (resumed, *others):
        assert torch.equal(weights, whole)


def test_an_epoch_is_taken_up_in_its_middle_by_another_number_of_processes():
    broken = Training(make_vae(pyro_vae.encoders.DiagonalNormal), data(100), epochs=3, batch_size=20)
    states = []
    next(broken.run(lambda *_: states.append(copy.deepcopy(broken.state_dict()))))
    tensors, facts = states[1]
    tensors["random/cpu"] = tensors["random/cpu"].repeat(2, 1)  # as of two
    resumed = Training(make_vae(pyro_vae.encoders.DiagonalNormal), data(100), epochs=3, batch_size=20)
    resumed.load_state_dict(tensors, facts)
    steps = []
    list(resumed.run(lambda step, *_: steps.append(step)))
    assert steps == [3, 4, 5, *range(1, 6), *range(1, 6)]


def command(main, arguments):
    """Run a command; return its exit status and what it prints."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main([str(a) for a in arguments])
            status = 0
        except SystemExit as error:
            status = error.code
    return status, out.getvalue(), err.getvalue()


def fail_alone(config):
    raise ValueError("no such data here")


def end_in_the_third_epoch(number):
    steps = 0

    def step(svi, *batch, **options):
        nonlocal steps
        steps += 1
        if steps == 25:
            os.kill(os.getpid(), number)
        return STEP(svi, *batch, **options)

    return step


def commands(rank, ports, run):
    """What each of two processes is asked for, one after the other; the second one is killed in the last."""
    torch.set_num_threads(1)
    os.environ |= {
        "RANK": str(rank),
        "WORLD_SIZE": "2",
        "MASTER_ADDR": "localhost",
        "TORCHELASTIC_USE_AGENT_STORE": "True",  # as torchrun says it
    }
    keeping.Checkpoints.update = lambda self, now: UPDATE(self, now=True)  # each epoch
    keeping.Checkpoints.__init__.__kwdefaults__["within"] = 0.0  # and each step
    ports = iter(ports)

    def started(*arguments, main=train.main):
        os.environ["MASTER_PORT"] = str(next(ports))
        return command(main, arguments)

    found = {"wrong": started("--epochs", "many"), "taken": started(*QUICK, "--run", run / "one")}
    if rank == 1:
        train.prepare = fail_alone
    found["alone"] = started(*QUICK, "--run", run / "nothing")
    train.prepare = PREPARE
    found["resumed"] = started("--resume", run / "one", "--epochs", "6")
    evaluation = (run / "one", "--num_samples", "400", "--max_examples", "101")
    found["evaluated"] = started(*evaluation, main=evaluate.main)
    found["too few"] = started(run / "one", "--max_examples", "1", "--name", "few", main=evaluate.main)
    if rank == 1:
        pyro.infer.SVI.step = end_in_the_third_epoch(signal.SIGTERM)
    found["told"] = started(*QUICK, "--run", run / "told")
    (run / f"answers{rank}.json").write_text(json.dumps(found))
    if rank == 1:
        pyro.infer.SVI.step = end_in_the_third_epoch(signal.SIGKILL)
    (run / "survivor.json").write_text(json.dumps(started(*QUICK, "--run", run / "killed")))


@pytest.fixture(scope="module")
def asked(tmp_path_factory):
    """The run folders, what both processes answered, and what the first one did when the second was killed."""
    run = tmp_path_factory.mktemp("runs")
    train.main([*QUICK, "--run", str(run / "one")])
    shutil.copytree(run / "one", run / "before")
    stores = [
        torch.distributed.TCPStore(
            "localhost", 0, is_master=True, wait_for_workers=False, timeout=timedelta(seconds=60)
        )
        for _ in range(8)
    ]
    first, second = start_two(commands, [store.port for store in stores], run)
    second.join(300)  # several trainings, on a machine that may be busy
    assert second.exitcode == -signal.SIGKILL
    killed = time.monotonic()
    first.join(60)
    answers = [json.loads((run / f"answers{rank}.json").read_text()) for rank in (0, 1)]
    return run, answers, (*json.loads((run / "survivor.json").read_text()), time.monotonic() - killed)


@pytest.mark.parametrize(
    ("what", "message"),
    [("wrong", "--epochs"), ("taken", "holds a run already"), ("alone", "process 1: no such data here")],
)
def test_a_mistake_is_one_line_and_ends_all(asked, what, message):
    run, (first, second), _ = asked
    status, out, err = first[what]
    assert (status, out) == (2, "")
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert message in err
    assert second[what] == [2, "", ""]
    assert not (run / "nothing").exists()


def test_a_run_goes_on_in_another_number_of_processes(asked):
    run, (first, second), _ = asked
    status, out, err = first["resumed"]
    assert (status, err) == (0, "")
    assert "in 2 processes" in out
    assert second["resumed"] == [0, "", ""]
    summary = yaml.safe_load((run / "one" / "summary.json").read_text())
    assert (summary["epochs"], summary["processes"]) == (6, 2)
    before = (run / "before" / "metrics.csv").read_text()
    assert (run / "one" / "metrics.csv").read_text().startswith(before)


def test_an_evaluation_is_that_of_one_process_with_other_noise(asked):
    run, (first, second), _ = asked
    status, out, _ = first["evaluated"]
    assert status == 0
    assert "101 test examples" in out
    assert second["evaluated"][:2] == [0, ""]
    summary = json.loads((run / "one" / "evaluation.json").read_text())
    evaluate.main([str(run / "one"), "--num_samples", "400", "--max_examples", "101", "--name", "alone"])
    alone = json.loads((run / "one" / "evaluation-alone.json").read_text())
    both = [np.loadtxt(run / "one" / f"evaluation{name}.csv", delimiter=",", skiprows=1) for name in ("", "-alone")]
    assert [len(table) for table in both] == [101, 101]
    estimates, errors = [table[:, 1] for table in both], [table[:, 2] for table in both]
    assert (estimates[0] != estimates[1]).all()
    z = (estimates[0] - estimates[1]).sum() / np.sqrt(sum((e**2).sum() for e in errors))
    assert abs(z) < 4
    assert summary["log_evidence"] == pytest.approx(alone["log_evidence"], abs=0.05)
    assert first["too few"][0] == second["too few"][0] == 2
    assert "at least one example for each of 2 processes, got 1" in first["too few"][2]


def test_a_killed_process_ends_the_others_and_the_run_goes_on(asked, capsys):
    run, (first, second), (status, _, err, seconds) = asked
    go_on = f"go on with: python -m pyro_vae.train --resume {run}"
    assert (status, err) == (1, f"error: another process ended; {go_on}/killed\n")
    assert seconds < 30
    assert first["told"][::2] == [1, f"error: another process ended; {go_on}/told\n"]
    assert second["told"][0] == 1
    assert second["told"][2].startswith("error: told to end")
    for name in ("told", "killed"):
        with safe_open(run / name / "checkpoint" / "state.safetensors", "pt") as file:
            facts = json.loads(file.metadata()["pyro_vae"])
            assert (facts["epoch"], facts["within"]["step"]) == (2, 4)
            assert file.get_slice("random/cpu").get_shape()[0] == 2
    train.main(["--resume", str(run / "killed")])
    assert "epoch 3/4" in capsys.readouterr().out
    assert yaml.safe_load((run / "killed" / "summary.json").read_text())["epochs"] == 4


def test_weights_that_differ_are_noticed(monkeypatch):
    training = Training(make_vae(Point), data(100), batch_size=10)
    training.processes.size = 2
    monkeypatch.setattr(training.processes, "agree", lambda number: False)
    with pytest.raises(ArithmeticError, match="the weights of the 2 processes differ after epoch 1"):
        training._check_agreement()
