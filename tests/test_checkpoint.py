"""Every part of ours comes back from its file as it was."""

import pytest
import torch

import pyro_vae
from pyro_vae.commands.parts import our_parts

PARTS = [(kind, part.__name__) for kind in ("prior", "encoder", "likelihood") for part in our_parts(kind)]
COLUMNS = {
    "class_path": "Columns",
    "init_args": {"groups": [[4, {"class_path": "Gaussian"}], [12, {"class_path": "Poisson"}]]},
}


@pytest.mark.parametrize(("kind", "name"), PARTS)
def test_a_model_is_loaded_as_it_was_saved(kind, name, tmp_path):
    torch.manual_seed(0)
    part = COLUMNS if name == "Columns" else name
    vae = pyro_vae.build((1, 4, 4), latent_dim=3, hidden_dims=[8], levels=5, **{kind: part})
    with torch.no_grad():
        for parameter in vae.parameters():
            parameter.add_(torch.randn_like(parameter))
    pyro_vae.save(vae, tmp_path / "model.safetensors")
    state = torch.random.get_rng_state()
    again = pyro_vae.load(tmp_path / "model.safetensors")
    assert torch.equal(torch.random.get_rng_state(), state)
    assert type(getattr(again, kind)).__name__ == name
    assert vae.state_dict().keys() == again.state_dict().keys()
    for key, tensor in vae.state_dict().items():
        assert torch.equal(tensor, again.state_dict()[key])
    torch.manual_seed(1)
    samples = vae.eval().sample(5)
    torch.manual_seed(1)
    assert torch.equal(samples, again.sample(5))


def test_a_vae_put_together_by_hand_needs_one_like_it(tmp_path):
    from pyro_vae import VAE, mlp
    from pyro_vae.encoders import DiagonalNormal
    from pyro_vae.likelihoods import Bernoulli
    from pyro_vae.priors import StandardNormal

    def by_hand(width):
        return VAE(
            prior=StandardNormal(2),
            encoder=DiagonalNormal(mlp(16, [width], 4)),
            decoder=mlp(2, [width], (16, 1)),
            likelihood=Bernoulli(),
        )

    vae = by_hand(8)
    pyro_vae.save(vae, tmp_path / "model.safetensors")
    again = pyro_vae.load(tmp_path / "model.safetensors", vae=by_hand(8))
    assert torch.equal(vae.decoder[0].weight, again.decoder[0].weight)
    with pytest.raises(ValueError, match="put together by hand"):
        pyro_vae.load(tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match=r"belongs to another model: for decoder.0.bias expected \(9,\), got \(8,\)"):
        pyro_vae.load(tmp_path / "model.safetensors", vae=by_hand(9))
