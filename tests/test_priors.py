"""Each prior against its definition."""

import copy

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import SVI, Trace_ELBO
from scipy import stats
from torch import nn

from pyro_vae import VAE, mlp
from pyro_vae.encoders import DiagonalNormal, FlowPosterior, FullRankNormal
from pyro_vae.likelihoods import Bernoulli
from pyro_vae.priors import FlowPrior, GaussianMixture, StandardNormal, StudentT, VampPrior
from tests.processes import Ended

FLOWS = ["spline", "maf", "coupling"]


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


@pytest.fixture
def z():
    return torch.randn(7, 3, dtype=torch.float64)


@torch.no_grad()
def perturb(module, size=0.1):
    for parameter in module.parameters():
        parameter += size * torch.randn_like(parameter)
    return module


def vamp_vae(encoder_class=DiagonalNormal, components=4, x_dim=6, z_dim=3):
    network = mlp(x_dim, [8], encoder_class.num_outputs(z_dim), "tanh")
    encoder = DiagonalNormal(network) if encoder_class is DiagonalNormal else encoder_class(network, z_dim=z_dim)
    return VAE(
        prior=VampPrior(encoder, x_dim=x_dim, components=components),
        encoder=encoder,
        decoder=mlp(z_dim, [8], (x_dim, 1)),
        likelihood=Bernoulli(),
    )


def test_gaussian_mixture_is_the_weighted_sum_of_its_gaussians(z):
    prior = perturb(GaussianMixture(z_dim=3, components=4).double(), size=1.0)
    weights, loc, scale = (t.detach().numpy() for t in (prior.logits.softmax(0), prior.loc, prior.log_scale.exp()))
    density = sum(w * stats.norm(m, s).pdf(z.numpy()).prod(-1) for w, m, s in zip(weights, loc, scale, strict=True))
    torch.testing.assert_close(prior().log_prob(z), torch.from_numpy(density).log())


def test_gaussian_mixture_starts_with_means_apart():
    assert torch.pdist(GaussianMixture(z_dim=2, components=10).loc).min() > 0


def test_student_t_tends_to_the_normal_and_has_heavier_tails(z):
    normal = StandardNormal(z_dim=3).double()().log_prob(z)
    torch.testing.assert_close(StudentT(z_dim=3, df=1e8).double()().log_prob(z), normal)
    far = torch.full((3,), 10.0)
    assert StudentT(z_dim=3)().log_prob(far) > StandardNormal(z_dim=3)().log_prob(far) + 100


@pytest.mark.parametrize("df", [0.0, -1.0, float("nan"), float("inf")])
def test_student_t_refuses_other_degrees_of_freedom(df):
    with pytest.raises(ValueError, match="df, the degrees of freedom, has to be a positive number"):
        StudentT(z_dim=3, df=df)


@pytest.mark.parametrize("encoder_class", [DiagonalNormal, FullRankNormal, FlowPosterior])
def test_vamp_prior_is_the_mean_of_the_posteriors_of_its_pseudo_inputs(encoder_class, z):
    vae = perturb(vamp_vae(encoder_class).double())
    densities = [vae.encoder(u).log_prob(z).exp() for u in vae.prior.pseudo_inputs]
    torch.testing.assert_close(vae.prior().log_prob(z), torch.stack(densities).mean(0).log())
    assert vae.prior().expand((2, 5)).sample().shape == (2, 5, 3)


@pytest.mark.parametrize("num_data", [2, 4, 50])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float64])
def test_vamp_prior_starts_at_training_data(num_data, dtype):
    prior = vamp_vae(components=4).prior
    x = torch.arange(num_data * 6).reshape(num_data, 6).to(dtype)
    prior.initialize(x)
    found = (prior.pseudo_inputs.unsqueeze(1) == x).all(-1)  # (components, num_data)
    assert found.any(1).all()
    assert found.sum(0).max() == max(4 // num_data, 1)


def test_the_encoder_is_trained_and_saved_once_but_learns_from_the_vamp_prior_too():
    pyro.clear_param_store()
    vae = vamp_vae()
    names = [name for name, _ in vae.named_parameters(remove_duplicate=False)]
    assert [name for name in names if name.startswith("prior")] == ["prior.pseudo_inputs"]
    assert set(vae.state_dict()) == set(names)

    vae.prior().log_prob(torch.zeros(3)).backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in vae.encoder.parameters())

    before = copy.deepcopy(vae.state_dict())
    svi = SVI(vae.model, vae.guide, pyro.optim.Adam({"lr": 0.01}), Trace_ELBO(max_plate_nesting=1))
    svi.step(torch.ones(5, 6))
    assert len(pyro.get_param_store()) == len(names)
    assert all(not torch.equal(before[name], tensor) for name, tensor in vae.state_dict().items())
    pyro.clear_param_store()


def test_a_copied_vamp_prior_follows_the_copied_encoder():
    vae = vamp_vae()
    copied = copy.deepcopy(vae)
    assert copied.prior._encoder[0] is copied.encoder
    before = vae.prior().log_prob(torch.zeros(3))
    perturb(copied.encoder)
    assert torch.equal(before, vae.prior().log_prob(torch.zeros(3)))
    assert not torch.equal(before, copied.prior().log_prob(torch.zeros(3)))


@pytest.mark.parametrize("prior", [GaussianMixture, lambda z_dim, **o: VampPrior(nn.Identity(), z_dim, **o)])
def test_mixtures_refuse_to_have_no_components(prior):
    with pytest.raises(ValueError, match=r"components, the number of .*, has to be at least 1, not 0"):
        prior(3, components=0)


@pytest.mark.parametrize("z_dim", [1, 3])
@pytest.mark.parametrize("flow", FLOWS)
def test_flow_prior_starts_as_the_standard_normal(flow, z_dim):
    z = torch.randn(7, z_dim, dtype=torch.float64)
    p = FlowPrior(z_dim=z_dim, flow=flow).double()()
    torch.testing.assert_close(p.log_prob(z), StandardNormal(z_dim).double()().log_prob(z))


@pytest.mark.parametrize("flow", FLOWS)
def test_flow_prior_scores_by_the_change_of_variables(flow, z):
    prior = perturb(FlowPrior(z_dim=3, flow=flow).double())
    to_noise = prior.transform()
    jacobian = torch.stack([torch.autograd.functional.jacobian(to_noise, row) for row in z])
    expected = dist.Normal(0, 1).log_prob(to_noise(z)).sum(-1) + jacobian.det().abs().log()
    torch.testing.assert_close(prior().log_prob(z), expected)


@pytest.mark.parametrize("flow", FLOWS)
def test_flow_prior_scores_in_one_pass_and_its_own_draws_in_none(flow, z):
    prior = perturb(FlowPrior(z_dim=3, flow=flow, transforms=2).double())
    passes = []
    for step in prior.transform.transforms:
        step.hyper.register_forward_hook(lambda *_: passes.append(1))
    prior().log_prob(z)
    assert len(passes) == 2
    p = prior().expand((7,))
    draw = p.rsample()
    passes.clear()
    own = p.log_prob(draw)
    assert len(passes) == 0
    torch.testing.assert_close(own, p.log_prob(draw.clone()))


def test_each_flow_has_its_form():
    far, steps = torch.full((3,), 20.0), torch.tensor([[0.0], [1.0], [2.0]]) * torch.tensor([1.0, 0.0, 0.0])
    maps = {flow: perturb(FlowPrior(z_dim=3, flow=flow)).transform() for flow in FLOWS}
    assert torch.equal(maps["spline"](far), far)  # the splines end at 5
    for flow in ("maf", "coupling"):
        assert not torch.isclose(maps[flow](far), far).any()
        first = perturb(FlowPrior(z_dim=3, flow=flow, transforms=1)).transform()(steps)[:, 0]
        torch.testing.assert_close(first.diff()[0], first.diff()[1])  # affine in what nothing depends on
    assert [t.passes for t in maps["spline"].transforms] == [t.passes for t in maps["maf"].transforms] == [3, 3, 3]
    assert [t.passes for t in maps["coupling"].transforms] == [2, 2, 2]


@pytest.mark.parametrize("flow", FLOWS)
@pytest.mark.parametrize("method", ["sample", "rsample"])
def test_gradients_of_a_draws_own_score_are_those_of_any_value(flow, method):
    prior = perturb(FlowPrior(z_dim=3, flow=flow).double())
    p = prior().expand((7,))
    draw = getattr(p, method)()
    parameters = list(prior.parameters())
    own = torch.autograd.grad(p.log_prob(draw).sum(), parameters, retain_graph=True)
    other = torch.autograd.grad(p.log_prob(draw.clone()).sum(), parameters)
    for a, b in zip(own, other, strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"flow": "planar"}, "flow has to be one of spline, maf, coupling, not 'planar'"),
        ({"transforms": 0}, "at least 1"),
    ],
)
def test_flow_prior_refuses_unknown_flows(options, message):
    with pytest.raises(ValueError, match=message):
        FlowPrior(z_dim=3, **options)


@pytest.mark.parametrize("validate", [True, False])
def test_zuko_is_imported_late_and_leaves_validation_as_it_was(validate, run_code, tmp_path):
    code = f"""
import sys
import warnings
warnings.simplefilter("error")
import pyro.distributions as dist
from pyro_vae.priors import FlowPrior
import pyro_vae.encoders
assert "zuko" not in sys.modules
dist.enable_validation({validate})
FlowPrior(z_dim=2)
assert "zuko" in sys.modules
try:
    dist.Normal(0.0, -1.0)
except ValueError:
    sys.exit(0 if {validate} else 3)
sys.exit(3 if {validate} else 0)
"""
    assert run_code(code, tmp_path) == Ended(0, "", "")
