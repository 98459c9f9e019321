"""Building a VAE from names and options, as the command line does."""

import importlib
import inspect
import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from torch import nn

from pyro_vae.base import Config, Encoder, Likelihood, Prior
from pyro_vae.conditional import ConditionalVAE
from pyro_vae.data.labels import MAX_CLASSES
from pyro_vae.data.pixels import FORMS
from pyro_vae.networks import ACTIVATIONS, BesideLabel, Standardize, WithMask, conv_decoder, conv_encoder, mlp
from pyro_vae.priors.given_label import PriorGivenLabel, Shifted, bring_together
from pyro_vae.vae import VAE

PartSpec = str | Mapping[str, Any]

# What a part's constructor is given when it asks for it by name; everything else in it is an option.
FILLED_IN = {"x_dim", "z_dim", "network", "encoder", "levels", "grey", "max_plate_nesting", "steps_per_epoch"}


def build(
    x_shape: Sequence[int],
    *,
    prior: PartSpec = "StandardNormal",
    encoder: PartSpec = "DiagonalNormal",
    likelihood: PartSpec = "Bernoulli",
    latent_dim: int = 20,
    network: Literal["mlp", "conv"] = "mlp",
    hidden_dims: Sequence[int] = (400,),
    activation: Literal["relu", "gelu", "silu", "tanh", "softplus"] = "relu",
    levels: int | None = None,
    pixels: str = "binarized",
    missing: bool = False,
    num_classes: int | None = None,
    classes: Sequence[str] | None = None,
    label_in: Sequence[Literal["encoder", "decoder", "prior"]] | None = None,
) -> VAE:
    """Build a VAE; each part is a class by name, alone or with its options.

    A part is found in this package by its bare name, anywhere else by its dotted one. Its
    constructor's parameters ``z_dim``, ``x_dim``, ``network``, ``encoder``, ``levels``,
    ``grey`` are filled in; the others are the options.

    Args:
        x_shape: Shape of one datum: (channels, height, width), or (columns,).
        prior: p(z).
        encoder: q(z|x).
        likelihood: p(x|z).
        latent_dim: Number of latent dimensions.
        network: Kind of the encoder's and the decoder's networks. "conv" is for images.
        hidden_dims: Width of each hidden layer of the encoder, and in reverse of the decoder; for "conv" the channels.
        activation: Between the layers.
        levels: Number of grey levels of the data, where they have any.
        pixels: The form of the data, as in :func:`pyro_vae.data.load`.
        missing: The data have blanks (NaN): train on what is observed; the encoder is told what that is.
        num_classes: Build a :class:`pyro_vae.ConditionalVAE` for so many classes.
        classes: The names of the classes, in the order of their numbers. Default: these numbers.
        label_in: What looks at the label: some of encoder, decoder and prior. A prior that does is one of its kind for
            each class. Default: encoder and decoder; in pyro-vae train the prior alone where labels are unknown.

    Returns:
        The VAE; :func:`pyro_vae.save` and :func:`pyro_vae.load` know how to build it again.

    Raises:
        ValueError: For a part that can't be found or built, or sizes that make no sense.

    Example:
        >>> vae = build((1, 28, 28), prior="StandardNormal", latent_dim=2)
        >>> vae.sample(3).shape
        torch.Size([3, 784])
    """
    if num_classes is not None:
        label_in = ("encoder", "decoder") if label_in is None else label_in
    elif label_in is not None:
        raise ValueError(f"label_in={list(label_in)}: there are no labels; condition on them, or leave it out")
    if num_classes is not None and not 1 <= num_classes <= MAX_CLASSES:
        raise ValueError(f"num_classes: expected from 1 to {MAX_CLASSES}, got {num_classes}")
    if classes is not None and len(set(classes)) != num_classes:
        raise ValueError(f"classes: expected {num_classes} different names, one for each class, got {list(classes)}")
    if latent_dim < 1:
        raise ValueError(f"latent_dim: expected at least 1, got {latent_dim}")
    if any(width < 1 for width in hidden_dims):
        raise ValueError(f"hidden_dims: expected widths of at least 1, got {list(hidden_dims)}")
    for name, value, choices in (
        ("network", network, ("mlp", "conv")),
        ("activation", activation, tuple(ACTIVATIONS)),
        ("pixels", pixels, FORMS),
    ):
        if value not in choices:
            raise ValueError(f"{name}: expected one of {', '.join(choices)}, got {value!r}")
    if network == "conv" and not hidden_dims:
        raise ValueError('hidden_dims: "conv" needs the channels of at least one layer, got none')
    if network == "conv" and len(x_shape) != 3:
        raise ValueError(f'network: "conv" needs images, but a datum has the shape {tuple(x_shape)}; use "mlp"')

    parts = {"prior": _spec(prior), "encoder": _spec(encoder), "likelihood": _spec(likelihood)}
    x_dim = math.prod(x_shape)
    known: dict[str, Any] = {"x_dim": x_dim, "z_dim": latent_dim, "levels": levels, "grey": pixels == "grey"}

    encoder_class = find_class(parts["encoder"]["class_path"], Encoder)
    scaling = {"levels": levels, "raw": None}.get(pixels, 2)  # all other pixels are in [0, 1], as of two levels
    inputs = 2 if missing else 1  # x, and where it is blank
    label_width = dict.fromkeys(label_in or (), num_classes or 0)

    def from_data(num_outputs: int, labels: int = 0) -> nn.Module:
        """Build a network that sees the data, and the label behind them where there is one."""
        if network == "conv":
            shape = (inputs * x_shape[0] + labels, *x_shape[1:])
            layers: nn.Module = conv_encoder(shape, hidden_dims, num_outputs, activation)
        else:
            layers = mlp(inputs * x_dim + labels, hidden_dims, num_outputs, activation)
        first: nn.Module | None = None
        if missing or pixels in ("levels", "raw"):
            first = WithMask(x_dim, scaling) if missing else Standardize(x_dim, scaling)
        if labels and (first is not None or network == "conv"):
            first = BesideLabel(first or nn.Identity(), labels, math.prod(x_shape[1:]) if network == "conv" else 1)
        return layers if first is None else nn.Sequential(first, layers)

    known["network"] = from_data(encoder_class.num_outputs(latent_dim), label_width.get("encoder", 0))
    made_encoder = make_part(parts["encoder"], Encoder, known)
    if "encoder" not in label_width:
        known["encoder"] = made_encoder
    elif "encoder" in inspect.signature(prior_class := find_class(parts["prior"]["class_path"], Prior)).parameters:
        raise ValueError(
            f"prior: {prior_class.__name__} is made from the encoder q(z|x), but here that is q(z|x, y); choose "
            "another prior, or leave the label out of the encoder by label_in"
        )
    likelihood_part = make_part(parts["likelihood"], Likelihood, known)

    params, decoder_inputs = likelihood_part.params_per_element, latent_dim + label_width.get("decoder", 0)
    if network == "conv":
        decoder = conv_decoder(
            latent_dim + label_width.get("decoder", 0), hidden_dims[::-1], x_shape, params, activation
        )
    else:
        decoder = mlp(decoder_inputs, hidden_dims[::-1], (x_dim, params), activation)
    made_prior = make_part(parts["prior"], Prior, known)
    made: dict[str, Any] = {"encoder": made_encoder, "decoder": decoder, "likelihood": likelihood_part}
    if num_classes is None:
        vae = VAE(prior=made_prior, **made, missing=missing)
    else:
        if "prior" in label_width:
            priors = [made_prior, *(make_part(parts["prior"], Prior, known) for _ in range(num_classes - 1))]
            learned = any(True for _ in made_prior.parameters())
            made_prior = PriorGivenLabel(priors if learned else (Shifted(prior, latent_dim) for prior in priors))
            bring_together(priors)
        classifier = None if set(label_width) == {"prior"} else from_data(num_classes)
        options: dict[str, Any] = {"num_classes": num_classes, "label_in": label_width, "classifier": classifier}
        vae = ConditionalVAE(prior=made_prior, **made, **options, missing=missing)
    vae.config = Config(
        x_shape=tuple(x_shape),
        parts=parts,
        latent_dim=latent_dim,
        network=network,
        hidden_dims=tuple(hidden_dims),
        activation=activation,
        levels=levels,
        pixels=pixels,
        missing=missing,
        num_classes=num_classes,
        classes=None if classes is None else tuple(classes),
        label_in=None if label_in is None else tuple(label_in),
    )
    return vae


def make_part(spec: PartSpec, base: type, known: Mapping[str, Any]) -> Any:
    """Construct a part from its class and options, filling in what its constructor asks for by name."""
    spec = _spec(spec)
    part = find_class(spec["class_path"], base)
    options = {name: _nested(value, base) for name, value in (spec.get("init_args") or {}).items()}
    wanted = inspect.signature(part).parameters
    try:
        return part(**{name: known[name] for name in wanted if name in known}, **options)
    except TypeError as error:
        raise ValueError(f"{part.__name__} can't be built: {error}") from error


def _nested(option: Any, base: type) -> Any:
    """Construct the parts within an option, such as the likelihoods of ``Columns``."""
    if isinstance(option, Mapping) and "class_path" in option:
        return make_part(option, base, {})
    return [_nested(item, base) for item in option] if isinstance(option, list | tuple) else option


def find_class(class_path: str, base: type) -> Any:
    """Return the subclass of ``base`` with this name, bare in this package or dotted in any other.

    Raises:
        ValueError: When there is no such class.
    """
    kind = base.__name__.lower()
    if not isinstance(class_path, str) or not all(part.isidentifier() for part in class_path.split(".")):
        raise ValueError(f"{kind}: expected the name of a class, alone or as module.Class, got {class_path!r}")
    module_name, _, name = class_path.rpartition(".")
    module_name = module_name or f"pyro_vae.{kind}s"
    try:
        found = getattr(importlib.import_module(module_name), name)
    except Exception as error:  # whatever a module raises when it is imported
        what = str(error) if isinstance(error, ImportError | AttributeError) else f"{type(error).__name__}: {error}"
        raise ValueError(
            f"{kind}: expected the name of a class, got {class_path!r}: {what}; a part of your own is named "
            "as module.Class, with the module's file in the current folder or installed"
        ) from error
    if not (isinstance(found, type) and issubclass(found, base)):
        raise ValueError(f"{kind}: expected a subclass of pyro_vae.{base.__name__}, got {class_path!r}")
    return found


def _spec(part: PartSpec) -> dict[str, Any]:
    return {"class_path": part} if isinstance(part, str) else dict(part)
