"""Training: reproducible, resumable, and independent of what else the process does."""

import copy
import inspect
import itertools
import math
from dataclasses import FrozenInstanceError, fields, replace

import pandas
import pyro
import pytest
import torch
from pyro.infer import SVI, RenyiELBO, Trace_ELBO, TraceMeanField_ELBO

import pyro_vae
from pyro_vae.compiled import CompiledELBO, NotStatic
from pyro_vae.machine.distributed import Processes
from pyro_vae.objectives import ImportanceWeightedELBO, KLWeightedELBO, elbo_terms
from pyro_vae.training import NonFiniteLoss, Options, Training
from pyro_vae.training.loss import Loss
from pyro_vae.training.optim import FusedOptim
from pyro_vae.training.progress import TrainingProgress


def data(rows=100):
    return torch.rand(rows, 16, generator=torch.Generator().manual_seed(1)) * torch.linspace(0, 1, 16)


def make_vae(seed=0):
    torch.manual_seed(seed)
    return pyro_vae.build((1, 4, 4), latent_dim=2, hidden_dims=[8])


def weights(vae):
    return torch.cat([p.detach().flatten() for p in vae.parameters()])


OPTIONS = {"draw": torch.bernoulli, "epochs": 4, "batch_size": 32}


def trained(seed=0, **options):
    vae = make_vae(seed)
    pyro_vae.fit(vae, data(), **(OPTIONS | options))
    return weights(vae)


def test_the_result_is_that_of_the_seed():
    first = trained()
    assert torch.equal(first, trained())
    assert not torch.equal(first, trained(lr=2e-3))
    start = make_vae()
    history = pyro_vae.fit(start, data(), seed=1, **OPTIONS)
    assert not torch.equal(first, weights(start))
    assert [row["epoch"] for row in history] == [1, 2, 3, 4]


def test_two_models_in_turn_and_interleaved():
    alone = [trained(0), trained(1)]
    assert torch.equal(trained(0), alone[0])
    first, second = make_vae(0), make_vae(1)
    for _ in zip(Training(first, data(), **OPTIONS).run(), Training(second, data(), **OPTIONS).run(), strict=False):
        torch.rand(3)  # the global random state doesn't matter either
    assert torch.equal(weights(first), alone[0])
    # `zip` ends with the first one's last epoch, before the second has put its result in place.
    assert torch.equal(weights(second), alone[1])


def test_pyros_global_parameter_store_is_left_alone():
    pyro.clear_param_store()
    pyro_vae.fit(make_vae(), data(), **OPTIONS)
    assert list(pyro.get_param_store().keys()) == []


def test_the_global_random_state_is_left_alone():
    vae = make_vae()
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    pyro_vae.fit(vae, data(), **OPTIONS)
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize(
    "options", [{}, {"ema_decay": 0.9, "lr_schedule": "cosine"}, {"patience": 2, "clip_norm": 1.0}], ids=str
)
@pytest.mark.parametrize("stop", [1, 3])
def test_resuming_is_exact(options, stop):
    options = OPTIONS | options | {"validation": data(50).round()}
    whole = Training(make_vae(), data(), **options)
    rows = list(whole.run())
    broken = Training(make_vae(), data(), **options)
    for row in broken.run():
        if row["epoch"] == stop:
            break
    tensors, facts = copy.deepcopy(broken.state_dict())
    resumed = Training(make_vae(7), data(), **options)
    resumed.load_state_dict(tensors, facts)
    more = list(resumed.run())
    assert torch.equal(weights(whole.vae), weights(resumed.vae))
    assert [row["elbo"] for row in rows] == [row["elbo"] for row in resumed.history]
    assert len(more) == len(rows) - stop


def test_a_training_goes_on_with_its_own_data():
    validation = data(50).round()
    begun = Training(make_vae(), data(), **OPTIONS, validation=validation)
    next(begun.run())
    tensors, facts = begun.state_dict()
    Training(make_vae(), data(), **OPTIONS, validation=validation).load_state_dict(tensors, facts)
    for x, other, part in ((data() / 2, validation, "train"), (data(), 1 - validation, "validation")):
        with pytest.raises(ValueError, match=f"not those that the checkpoint was made with: other data in {part}$"):
            Training(make_vae(), x, **OPTIONS, validation=other).load_state_dict(tensors, facts)
    facts["data"] = facts["data"]["train"]  # as earlier versions kept it
    Training(make_vae(), data(), **OPTIONS, validation=1 - validation).load_state_dict(tensors, facts)


class Left(Exception):
    """A training that is left in the middle of an epoch."""


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"ema_decay": 0.9, "lr_schedule": "cosine", "compile": "off"},
        {"patience": 2, "clip_norm": 1.0},
        {"objective": {"warmup_epochs": 2.5, "steps_per_epoch": 4}},
    ],
    ids=str,
)
@pytest.mark.parametrize("place", [(0, 1), (0, 3), (2, 2)], ids=str)
def test_resuming_within_an_epoch_is_exact(options, place):
    def training(seed=0):
        own = {"objective": KLWeightedELBO(**options["objective"])} if "objective" in options else {}
        return Training(make_vae(seed), data(), **(OPTIONS | options | {"validation": data(50).round()} | own))

    whole = training()
    rows = list(whole.run())
    broken = training()
    state = []

    def leave(step, steps, loss):
        assert steps == 4
        if (broken.epoch, step) == place:
            state.append(copy.deepcopy(broken.state_dict()))
        elif state:
            raise Left

    with pytest.raises(Left):
        list(broken.run(leave))
    resumed = training(7)
    resumed.load_state_dict(*state[0])
    resumed.load_state_dict(*copy.deepcopy(resumed.state_dict()))  # before it goes on, nothing has changed
    steps = []
    more = list(resumed.run(lambda step, *_: steps.append(step)))
    assert steps[: 4 - place[1]] == list(range(place[1] + 1, 5))
    assert len(more) == len(rows) - place[0]
    assert torch.equal(weights(whole.vae), weights(resumed.vae))
    assert [[row["elbo"], row["loss"]] for row in rows] == [[row["elbo"], row["loss"]] for row in resumed.history]


@pytest.mark.parametrize("damage", ["order", "step", "random"])
def test_a_state_within_an_epoch_of_another_training_is_refused(damage):
    training = Training(make_vae(), data(), **OPTIONS)
    states = []
    next(training.run(lambda *_: states.append(copy.deepcopy(training.state_dict()))))
    tensors, facts = states[1]
    if damage == "order":
        tensors["epoch/order"][0] = tensors["epoch/order"][1]
    elif damage == "step":
        facts["within"]["step"] = 4
    else:
        tensors["random/cpu"] = tensors["random/cpu"][:, 1:]
    with pytest.raises(ValueError, match="the checkpoint is in no epoch of 100 data in 4 steps"):
        Training(make_vae(), data(), **OPTIONS).load_state_dict(tensors, facts)


def test_the_fused_optimiser_does_what_pyros_does():
    x, results = data().round(), []
    for optim in (pyro.optim.Adam({"lr": 1e-2}), FusedOptim(torch.optim.Adam, {"lr": 1e-2, "fused": True})):
        vae = make_vae()
        svi = SVI(vae.model, vae.guide, optim, Trace_ELBO())
        for step in range(20):
            torch.manual_seed(step)
            svi.step(x)
        results.append(weights(vae))
    torch.testing.assert_close(*results, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("options", [{"fused": True}, {}, {"fused": True, "amsgrad": True, "weight_decay": 0.1}])
def test_the_recorded_optimiser_takes_torchs_steps(options):
    shapes = ((3, 4), (5,), (2,))
    torch.manual_seed(0)
    start = [torch.randn(shape) for shape in shapes]
    ours, theirs = ([p.clone().requires_grad_() for p in start] for _ in range(2))
    optim = FusedOptim(torch.optim.Adam, {"lr": 1.0} | options, lambda step: 0.1 / (1 + step))
    optimizer = torch.optim.Adam(theirs[:2], **({"lr": 1.0} | options))
    for step in range(20):
        if step == 12:
            optimizer.add_param_group({"params": theirs[2:]})
        optimizer.param_groups[0]["lr"] = optimizer.param_groups[-1]["lr"] = 0.1 / (1 + step)
        for i, (a, b) in enumerate(zip(ours, theirs, strict=True)):
            absent = (i == 1 and step in (7, 8)) or (i == 2 and step < 12)
            a.grad = None if absent else torch.randn_like(a)
            b.grad = None if absent else a.grad.clone()
        optim(ours[: 2 + (step >= 12)])
        optimizer.step()
    assert (optim._recorded is not None) == ("fused" in options)
    for a, b in zip(ours, theirs, strict=True):
        assert torch.equal(a, b)


def test_moments_do_not_decay_into_denormal_numbers():
    weights = torch.ones(2, requires_grad=True)
    optim = FusedOptim(torch.optim.Adam, {"lr": 1e-3, "fused": True})
    for step in range(1500):
        weights.grad = torch.tensor([1.0, float(step == 0)])
        optim([weights])
        moment = optim.state_of(weights)["exp_avg"][1].item()
        assert moment == 0 or moment > torch.finfo(torch.float32).tiny
    assert moment == 0
    assert optim.state_of(weights)["exp_avg"][0].item() == pytest.approx(1)


def test_clipping_bounds_the_gradient():
    # One step of plain gradient descent moves the weights by lr times the clipped gradient.
    vae = make_vae()
    before = weights(vae)
    loss = Loss(Trace_ELBO(), vae, Processes(torch.device("cpu")), clip_norm=0.001, classifier=None)
    optim = FusedOptim(torch.optim.SGD, {"lr": 1.0})
    SVI(vae.model, vae.guide, optim, loss.loss, loss.loss_and_grads).step(data().round(), size=10)
    assert (weights(vae) - before).norm().item() == pytest.approx(0.01, rel=1e-4)
    assert len(loss.take()) == 1


def test_the_steps_are_compiled_where_that_can_be_done():
    class Halved(Trace_ELBO):
        """Its factor lies in Python, where it may change."""

        def loss_and_grads(self, model, guide, *args, **kwargs):
            return 0.5 * super().loss_and_grads(model, guide, *args, **kwargs)

    losses = {}
    for compile, objective in itertools.product(("auto", "on", "off"), (Trace_ELBO, Halved)):
        training = Training(make_vae(), data(), objective=objective(), compile=compile, **OPTIONS)
        losses[compile, objective] = [row["loss"] for row in training.run()]
        compiled = compile == "on" or (compile == "auto" and objective is Trace_ELBO)
        assert isinstance(training.compiled, CompiledELBO) == compiled
        assert not training.not_compiled
        if compiled:
            assert training.compiled.traces == 1
    for (compile, objective), loss in losses.items():
        assert loss == pytest.approx(losses["off", objective], rel=1e-4), compile


def test_a_program_that_cannot_be_compiled_trains_as_it_is():
    def training(compile):
        vae = make_vae()
        vae.decoder = Branching(vae.decoder)
        return Training(vae, data(), compile=compile, **OPTIONS)

    class Branching(torch.nn.Sequential):
        def forward(self, z):
            return super().forward(z) if z.abs().sum() > 0 else z

    runs = {compile: training(compile) for compile in ("auto", "off")}
    losses = {compile: [row["loss"] for row in t.run()] for compile, t in runs.items()}
    assert losses["auto"] == losses["off"]
    assert "looks at the value of a tensor" in runs["auto"].not_compiled
    with pytest.raises(NotStatic, match="use Trace_ELBO instead of CompiledELBO"):
        list(training("on").run())


def test_averaged_weights_are_the_moving_average():
    vae = make_vae()
    training = Training(vae, data(), **(OPTIONS | {"ema_decay": 0.5}))
    steps = []
    for _ in training.run(lambda *_: steps.append(weights(vae).clone())):
        pass
    average = steps[0]
    for step in steps[1:]:
        average = 0.5 * average + 0.5 * step
    torch.testing.assert_close(weights(vae), average)


def test_early_stopping_keeps_the_best_epoch():
    training = Training(
        make_vae(), data(20).round(), validation=data(60).round(), epochs=400, batch_size=5, lr=0.02, patience=3
    )
    seen = {row["epoch"]: (row["elbo"], weights(training.vae).clone()) for row in training.run()}
    best = max(seen, key=lambda epoch: seen[epoch][0])
    assert training.epoch == best + 3 < 400
    assert torch.equal(weights(training.vae), seen[best][1])


def test_the_best_epoch_is_kept_by_default_where_there_are_validation_data():
    options = {"epochs": 400, "batch_size": 5, "lr": 0.02}
    training = Training(make_vae(), data(20).round(), validation=data(60).round(), **options)
    seen = {row["epoch"]: (row["elbo"], weights(training.vae).clone()) for row in training.run()}
    best = max(seen, key=lambda epoch: seen[epoch][0])
    assert training.patience == 80
    assert training.epoch == best + 80 < 400
    assert torch.equal(weights(training.vae), seen[best][1])
    options |= {"epochs": 100, "patience": 0}
    to_the_end = Training(make_vae(), data(20).round(), validation=data(60).round(), **options)
    assert len(list(to_the_end.run())) == 100
    assert to_the_end.best_epoch == 0


@pytest.mark.parametrize(
    ("objective", "stops"),
    [
        (None, True),
        (TraceMeanField_ELBO(), True),
        (KLWeightedELBO(warmup_epochs=3.0), True),
        (KLWeightedELBO(kl_weight=4.0), False),
        (KLWeightedELBO(free_bits=0.1), False),
        (ImportanceWeightedELBO(), False),
        (RenyiELBO(alpha=0.5), False),
    ],
    ids=lambda value: type(value).__name__,
)
def test_only_what_maximises_the_elbo_stops_by_the_elbo(objective, stops):
    training = Training(make_vae(), data().round(), validation=data(60).round(), objective=objective, epochs=50)
    assert training.patience == (20 if stops else 0)
    assert Training(make_vae(), data().round(), objective=objective, epochs=50).patience == 0


def test_a_classifier_is_not_stopped_by_the_elbo():
    y = torch.arange(100) % 2
    given = {"y": y, "validation": data(60).round(), "epochs": 50}
    for weight, patience in ((1.0, 0), (0.0, 20)):
        vae = pyro_vae.build((1, 4, 4), latent_dim=2, num_classes=2)
        assert Training(vae, data().round(), classifier_weight=weight, **given).patience == patience


def test_cosine_goes_from_lr_to_zero():
    history = pyro_vae.fit(make_vae(), data(), **(OPTIONS | {"lr_schedule": "cosine", "epochs": 10}))
    lr = [row["lr"] for row in history]
    assert lr == sorted(lr, reverse=True)
    assert lr[-1] < 3e-5


def test_a_default_number_of_epochs_makes_enough_steps():
    assert Training(make_vae(), data(1000).round(), batch_size=100).epochs == 500
    assert Training(make_vae(), data(1000).round(), batch_size=1).epochs == 20


def test_elbo_terms_are_those_of_trace_elbo():
    vae, x = make_vae().double(), data(40).round().double()
    reconstruction, kl = elbo_terms(vae.model, vae.guide, x, seed=3)
    torch.manual_seed(3)
    loss = Trace_ELBO().loss(vae.model, vae.guide, x)
    assert (kl - reconstruction).sum().item() == pytest.approx(loss, rel=1e-12)
    assert reconstruction.shape == kl.shape == (40,)


def test_the_loss_falls_and_the_kl_is_used():
    x = torch.cat([torch.zeros(200, 8), torch.ones(200, 8)], 1)
    x[::2] = 1 - x[::2]
    vae = make_vae()
    history = pyro_vae.fit(vae, x, epochs=60, batch_size=20, lr=3e-3)
    # The data are one fair coin: no bound on their log-evidence exceeds minus its entropy, log 2 nats,
    # and a Gaussian posterior over half of the latent space comes within a nat of it.
    assert math.log(2) < -history[-1]["elbo"] < math.log(2) + 1
    assert history[0]["elbo"] < -5


def test_a_loss_that_is_not_finite_stops_the_training():
    vae = make_vae()
    with pytest.raises(NonFiniteLoss, match=r"epoch 1, step \d+: .*smaller lr than 1e\+30"):
        pyro_vae.fit(vae, data(), **(OPTIONS | {"lr": 1e30}))
    with pytest.raises(NonFiniteLoss, match="the batch holds values that are not finite"):
        pyro_vae.fit(make_vae(), data(), draw=lambda x: x.round() / (len(x) > 10), batch_size=10)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"epochs": 0}, "epochs: expected at least 1, got 0"),
        ({"batch_size": 0}, "batch_size: expected at least 1, got 0"),
        ({"batch_size": 101}, "batch_size: expected at most the number of training data, 100, got 101"),
        ({"lr": 0.0}, "lr: expected a positive number"),
        ({"lr": math.nan}, "lr: expected a positive number"),
        ({"clip_norm": -1.0}, "clip_norm"),
        ({"ema_decay": 1.0}, "ema_decay"),
        ({"patience": 3}, "patience=3 needs validation data"),
        ({"device": "cuda:99"}, "device: expected one that this machine has"),
        ({"device": "nope"}, "device: expected one that this machine has"),
    ],
)
def test_training_refuses(options, message):
    with pytest.raises(ValueError, match=message):
        Training(make_vae(), data().round(), **({"batch_size": 10} | options))


def test_data_that_the_likelihood_does_not_describe_are_refused():
    with pytest.raises(ValueError, match="Bernoulli takes zeros and ones"):
        Training(make_vae(), data(), batch_size=10)
    with pytest.raises(ValueError, match="Bernoulli takes zeros and ones"):
        Training(make_vae(), data().round(), validation=data(), batch_size=10)


# Data and options


def test_fit_takes_data_as_they_were_loaded():
    digits = pyro_vae.data.load("digits", condition="label")
    few = {"epochs": 2, "batch_size": 100}
    results = []
    for conditional in (False, True):
        for whole in (True, False):
            torch.manual_seed(0)
            vae = pyro_vae.build(digits.shape, hidden_dims=[8], num_classes=10 if conditional else None)
            labels = {"y": digits.labels["train"], "validation_y": digits.labels["validation"]} if conditional else {}
            given = {"draw": digits.draw, "validation": digits.validation} | labels
            dataset = digits if conditional else replace(digits, num_classes=None)
            rows = pyro_vae.fit(vae, dataset, **few) if whole else pyro_vae.fit(vae, digits.train, **given, **few)
            results.append([(row["loss"], row["elbo"]) for row in rows])
    assert results[0] == results[1] != results[2] == results[3]
    with pytest.raises(ValueError, match=r"draw: the data have their own; leave it out, or pass data\.train"):
        pyro_vae.fit(make_vae(), digits, draw=torch.bernoulli)


def test_fit_takes_arrays_and_frames():
    x = (data() > 0.5).numpy()
    same = [
        torch.tensor(x).float(), x, x.astype(float), x.astype(int).reshape(-1, 4, 4), x.reshape(-1, 1, 4, 4),
        torch.tensor(x).int(), pandas.DataFrame(x), pandas.DataFrame(x.astype(int)), x.tolist(),
    ]  # fmt: skip
    trained = []
    for given in same:
        vae = make_vae()
        pyro_vae.fit(vae, given, validation=given, epochs=2, batch_size=50)
        trained.append(weights(vae))
    assert all(torch.equal(trained[0], other) for other in trained)
    for wrong, message in (
        (x[0], r"data: expected a row for each datum, \(N, D\) or \(N, H, W\), got shape \(16,\)"),
        (pandas.DataFrame({"a": ["low", "high"]}), "data: expected numbers, as a tensor, an array or a data frame"),
        (object(), "data: expected numbers"),
    ):
        with pytest.raises(ValueError, match=message):
            pyro_vae.fit(make_vae(), wrong)


def test_training_starts_at_the_marginals_of_the_data_and_only_once():
    x = data(1000).bernoulli()
    vae = make_vae()
    Training(vae, x)
    bias = [p for name, p in vae.decoder.named_parameters() if name.endswith("bias")][-1]
    torch.testing.assert_close(bias.sigmoid().detach(), x.mean(0), atol=0.01, rtol=0)
    for begun in (copy.deepcopy(vae), make_vae()):
        if begun.initialized:
            pyro_vae.fit(begun, x, epochs=1)
        else:
            begun.load_state_dict(make_vae(3).state_dict())
        before = weights(begun)
        Training(begun, data(1000).bernoulli())
        assert torch.equal(weights(begun), before)


def test_options_stand_in_one_place():
    own = {field.name: field.default for field in fields(Options)}
    seen = inspect.signature(pyro_vae.fit).parameters
    assert {name: seen[name].default for name in own} == own
    with pytest.raises(TypeError, match="epoch"):
        pyro_vae.fit(make_vae(), data().round(), epoch=3)
    with pytest.raises(FrozenInstanceError):
        Options().epochs = 3


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"lr": 2e-3}, "lr: 0.002 contradicts 0.001, which the training was begun with"),
        ({"epochs": 2}, "epochs: 2 contradicts 4"),
        ({"lr_schedule": "cosine"}, "lr_schedule: cosine contradicts constant"),
    ],
)
def test_a_training_goes_on_with_its_own_options(changed, message):
    begun = Training(make_vae(), data(), **OPTIONS)
    next(begun.run())
    state = copy.deepcopy(begun.state_dict())
    Training(make_vae(), data(), **(OPTIONS | {"epochs": 6, "device": "cpu"})).load_state_dict(*state)
    with pytest.raises(ValueError, match=message):
        Training(make_vae(), data(), **(OPTIONS | changed)).load_state_dict(*state)


def test_progress_is_shown_where_it_is_wanted(capsys):
    pyro_vae.fit(make_vae(), data().round(), epochs=2)
    assert capsys.readouterr().out == ""  # no terminal
    pyro_vae.fit(make_vae(), data().round(), epochs=2, progress=True)
    assert capsys.readouterr().out.count("ELBO") == 2


@pytest.mark.parametrize(("seconds", "steps"), [(0, [1, 2, 3]), (60, [])])
def test_off_a_terminal_a_long_epoch_shows_how_far_it_is(seconds, steps, capsys):
    training = Training(make_vae(), data().round(), batch_size=32, epochs=1)
    with TrainingProgress(1, show=True, seconds=seconds) as progress:
        for row in training.run(progress.step):
            progress.row(row)
    *within, last = capsys.readouterr().out.splitlines()
    assert [line.partition(", ")[0] for line in within] == [f"epoch 1/1  step {step} of 4" for step in steps]
    assert all(line.endswith(" nats per example") for line in within)
    assert "ELBO" in last
