"""What holds for each prior, encoder and likelihood as a module: its parameters, saving, moves and copies."""

import copy
import math
from collections.abc import Iterator

import pyro
import safetensors.torch
import torch
from pyro.infer import Trace_ELBO
from torch import Tensor

from pyro_vae.base import Likelihood
from pyro_vae.testing.case import Case, perturb
from pyro_vae.testing.saying import expect, expect_close, expect_gradient, saying
from pyro_vae.vae import VAE


def check_part(case: Case) -> None:
    _check_parameters(case)
    _check_saving(case)
    _check_moves(case)
    _check_copy(case)
    _check_validation(case)


def _check_parameters(case: Case) -> None:
    vae, name = case.build(), case.name
    tensors = [tensor for part in (vae.prior, vae.encoder, vae.likelihood) for tensor in part.parameters()]
    owners = len(tensors), len({id(tensor) for tensor in tensors})
    expect(owners[0] == owners[1], name, "parameters that no other part has", f"{owners[0] - owners[1]} shared ones")
    with saying(name, "in a training step"):
        with torch.no_grad():
            x = vae.likelihood(vae.decoder(torch.randn(5, case.z_dim, dtype=torch.float64))).sample()
        loss = Trace_ELBO(max_plate_nesting=1).differentiable_loss(vae.model, vae.guide, x)
        loss.backward()
    expect(loss.isfinite(), name, "a finite loss", loss.item())
    for parameter_name, parameter in vae.named_parameters():
        expect_gradient(name, parameter_name, parameter.grad)


def _check_saving(case: Case) -> None:
    vae, other = case.build(0), case.build(1)
    with saying(case.name, "when it is saved and loaded"):
        # safetensors refuses what is saved twice under two names.
        other.load_state_dict(safetensors.torch.load(safetensors.torch.save(vae.state_dict())))
        same = all(map(torch.equal, case.outputs(vae), case.outputs(other)))
    expected = "the same densities after it was saved and loaded"
    expect(same, case.name, expected, "others; register its tensors as parameters or buffers")


def _check_moves(case: Case) -> None:
    vae, name = case.build(), case.name
    expected = case.outputs(vae)
    for device in ["cpu"] + ["cuda"] * torch.cuda.is_available():
        for dtype in (torch.float32, torch.float64):
            with saying(
                name, f"as {dtype} on {device} (its tensors have to be parameters, buffers, or made like these)"
            ):
                vae.to(device=device, dtype=dtype)
                at = dtype, next(vae.parameters()).device
                for tensor in _draws_and_densities(case, vae):
                    came = tensor.dtype, tensor.device
                    expect(came == at, name, f"{at[0]} on {at[1]} after a move to it", f"{came[0]} on {came[1]}")
        if device == "cpu":  # elsewhere, the random numbers at which the outputs are compared differ
            for before, after in zip(expected, case.outputs(vae), strict=True):
                expect_close(after, before, name, "about the same densities as float32", 1e-3, 1e-3)

    # "meta" tensors have a shape, but no memory: they are refused beside those of another device, as a GPU's are.
    z, x = (torch.zeros(4, size, dtype=torch.float64, device="meta") for size in (case.z_dim, case.x_dim))
    with (
        saying(name, 'on the device "meta", since a tensor stays behind on the CPU, or its values are looked at'),
        pyro.validation_enabled(False),  # there are no values to validate
    ):
        vae = case.build().to("meta")
        q = vae.encoder(x)
        draw = q.rsample()
        p = vae.likelihood(vae.decoder(z))
        for tensor in (draw, q.log_prob(draw), q.log_prob(z), vae.prior().log_prob(z), p.log_prob(x)):
            expect(tensor.device.type == "meta", name, "no tensor left behind on the CPU", tensor.device)


def _draws_and_densities(case: Case, vae: VAE) -> Iterator[Tensor]:
    """Yield them one by one, since a wrong one may not do as an input of the next."""
    yield (z := vae.prior().sample(torch.Size([4])))
    yield (x := vae.likelihood(vae.decoder(z)).sample())
    yield vae.encoder(x).rsample()
    yield from case.outputs(vae)


def _check_copy(case: Case) -> None:
    vae = case.build()
    with saying(case.name, "when it is copied"):
        x = vae.likelihood(vae.decoder(torch.randn(4, case.z_dim, dtype=torch.float64))).sample()
        Trace_ELBO(max_plate_nesting=1).loss(vae.model, vae.guide, x)  # nothing left behind prevents a copy
        before = case.outputs(vae)
        copied = copy.deepcopy(vae)
        for changed, other in ((vae, copied), (copied, vae)):
            kept = case.outputs(other)
            perturb(changed)
            same = all(map(torch.equal, kept, case.outputs(other)))
            expect(same, case.name, "a deep copy that shares nothing with it", "one that changes with it")
            if other is copied:
                expect(all(map(torch.equal, before, kept)), case.name, "a deep copy that is equal", "another")


def _check_validation(case: Case) -> None:
    try:
        pyro.distributions.Normal(0.0, -1.0)
    except ValueError:
        pass
    else:
        expect(False, case.name, "Pyro's validation left as it was", "validation that is switched off")
    if case.kind is Likelihood:
        p = case.vae.likelihood(case.vae.decoder(torch.zeros(case.z_dim, dtype=torch.float64)))
    else:
        p = case.latent()
    try:
        p.log_prob(torch.full(p.event_shape, math.nan, dtype=torch.float64))
    except ValueError as error:
        came = str(error)
    else:
        came = "no error"
    holds = "within the support" in came
    expect(holds, case.name, "a ValueError, that NaN is not within the support, from its log_prob", came)
