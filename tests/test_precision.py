"""Matrix products in bfloat16: where it is used, and where it is not."""

import copy
import json
import warnings

import pytest
import torch

import pyro_vae
from pyro_vae.commands.evaluate import main as evaluate
from pyro_vae.commands.train import main
from pyro_vae.machine.devices import bfloat16_products, rounds_to_bfloat16
from pyro_vae.networks import conv_encoder, mlp
from pyro_vae.objectives import elbo_terms
from pyro_vae.training import Training

pytestmark = pytest.mark.filterwarnings("ignore:precision")
ROUNDS = rounds_to_bfloat16(torch.device("cpu"))


def networks():
    torch.manual_seed(0)
    yield mlp(64, [128], 10, "tanh"), torch.randn(30, 64)
    yield conv_encoder((1, 8, 8), [4, 8], 10, "tanh"), torch.randn(30, 64)


def gradients(network, x):
    return torch.autograd.grad(network(x).square().sum(), [*network.parameters()])


def convolutions_round():
    x = torch.full((64, 16, 8, 8), 1 + 2**-10)
    with bfloat16_products():
        return bool((torch.nn.functional.conv2d(x, x[:16, :, :3, :3]) == 16 * 9).all())


def test_factors_are_rounded_to_eight_bits_and_the_rest_is_not():
    for (network, x), rounds in zip(networks(), (ROUNDS, convolutions_round()), strict=True):
        exact, exact_gradients = network(x), gradients(network, x)
        with bfloat16_products():
            rounded, rounded_gradients = network(x), gradients(network, x)
        for a, b in zip([rounded, *rounded_gradients], [exact, *exact_gradients], strict=True):
            assert a.dtype == torch.float32
            difference = (a - b).norm() / b.norm()
            assert difference < 2**-7  # a bfloat16 is rounded by up to 2**-9 of itself
            assert difference > 1e-4 if rounds else difference < 1e-4
        assert torch.equal(network(x), exact)


def test_an_error_inside_leaves_the_precision_as_it_was():
    network, x = next(networks())
    expected = network(x)
    with pytest.raises(KeyError), bfloat16_products():
        raise KeyError
    assert torch.equal(network(x), expected)
    assert torch.get_float32_matmul_precision() == "highest"


def data(rows):
    x = torch.rand(rows, 16, generator=torch.Generator().manual_seed(1))
    return (x < torch.linspace(0, 1, 16)).float()


def training(seed=0, **options):
    torch.manual_seed(seed)
    vae = pyro_vae.build((1, 4, 4), latent_dim=2, hidden_dims=[64])
    return Training(vae, data(300), validation=data(100), epochs=6, batch_size=32, lr=1e-2, patience=0, **options)


def test_training_in_bfloat16():
    exact, rounded = training(), training(precision="bfloat16")
    elbo = [list(t.run())[-1]["elbo"] for t in (exact, rounded)]
    assert elbo[1] == pytest.approx(elbo[0], abs=0.05)
    parameters = [torch.cat([p.detach().flatten() for p in t.vae.parameters()]) for t in (exact, rounded)]
    assert parameters[1].dtype == torch.float32
    assert torch.equal(*parameters) != ROUNDS
    reconstruction, kl = elbo_terms(rounded.vae.model, rounded.vae.guide, data(100))  # in float32
    assert (reconstruction - kl).mean().item() == pytest.approx(elbo[1], abs=1e-6)


def test_resuming_in_bfloat16_is_exact():
    whole, broken, resumed = (training(seed, precision="bfloat16") for seed in (0, 0, 7))
    rows = list(whole.run())
    for row in broken.run():
        if row["epoch"] == 2:
            break
    resumed.load_state_dict(*copy.deepcopy(broken.state_dict()))
    list(resumed.run())
    assert [row["elbo"] for row in rows] == [row["elbo"] for row in resumed.history]


@pytest.mark.parametrize("rounds", [True, False])
def test_it_is_said_where_nothing_is_rounded(tmp_path, monkeypatch, rounds):
    monkeypatch.setattr("pyro_vae.machine.devices.rounds_to_bfloat16", lambda device: rounds)
    run, small = str(tmp_path), ["--epochs", "1", "--hidden_dims", "[16]", "--latent_dim", "2"]
    evaluation = [run, "--num_samples", "10", "--max_examples", "5"]
    for command, options in ((main, [*small, "--run", run]), (evaluate, evaluation)):
        with warnings.catch_warnings() if rounds else pytest.warns(UserWarning, match="they stay in float32"):
            warnings.filterwarnings("error" if rounds else "always", "precision")
            command([*options, "--precision", "bfloat16"])
    summary, evaluated = (json.loads((tmp_path / f"{name}.json").read_text()) for name in ("summary", "evaluation"))
    assert summary["precision"] == evaluated["precision"] == ("bfloat16" if rounds else "float32")
    assert ("bfloat16" in evaluated["protocol"]) == rounds


def test_a_run_keeps_its_precision(tmp_path, capsys):
    options = ["--epochs", "1", "--hidden_dims", "[16]", "--latent_dim", "2", "--run", str(tmp_path)]
    main([*options, "--precision", "bfloat16"])
    assert "precision: bfloat16" in (tmp_path / "config.yaml").read_text()
    with pytest.raises(SystemExit):
        main(["--resume", str(tmp_path), "--epochs", "2", "--precision", "float32"])
    assert "--precision float32 contradicts the run's own bfloat16" in capsys.readouterr().err
    main(["--resume", str(tmp_path), "--epochs", "2"])


def test_other_precisions_are_refused():
    with pytest.raises(ValueError, match="precision: expected"):
        training(precision="float16")
