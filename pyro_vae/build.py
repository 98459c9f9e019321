"""Building a VAE from names and options, as the command line does."""

import importlib
import inspect
import itertools
import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Literal

from torch import nn

from pyro_vae.base import Config, Encoder, Likelihood, Prior
from pyro_vae.conditional import ConditionalVAE
from pyro_vae.data.labels import MAX_CLASSES
from pyro_vae.data.pixels import FORMS
from pyro_vae.data.tables import Column, Schema
from pyro_vae.networks import (
    ACTIVATIONS,
    BesideLabel,
    Standardize,
    TableInput,
    WithMask,
    conv_decoder,
    conv_encoder,
    mlp,
)
from pyro_vae.priors.given_label import PriorGivenLabel, Shifted, bring_together
from pyro_vae.vae import VAE

PartSpec = str | Mapping[str, Any]

# What a part's constructor is given when it asks for it by name; everything else in it is an option.
FILLED_IN = {"x_dim", "z_dim", "network", "encoder", "levels", "grey", "max_plate_nesting", "steps_per_epoch"}


def build(
    x_shape: Sequence[int],
    *,
    prior: PartSpec | None = None,
    encoder: PartSpec | None = None,
    likelihood: PartSpec | None = None,
    latent_dim: int = 20,
    network: Literal["mlp", "skip", "conv"] | None = None,
    hidden_dims: Sequence[int] = (400,),
    activation: Literal["relu", "gelu", "silu", "tanh", "softplus"] | None = None,
    levels: int | None = None,
    pixels: str = "binarized",
    missing: bool = False,
    num_classes: int | None = None,
    classes: Sequence[str] | None = None,
    label_in: Sequence[Literal["encoder", "decoder", "prior"]] | None = None,
    table: Schema | Mapping[str, Any] | None = None,
) -> VAE:
    """Build a VAE; each part is a class by name, alone or with its options.

    A part is found in this package by its bare name, anywhere else by its dotted one. Its
    constructor's parameters ``z_dim``, ``x_dim``, ``network``, ``encoder``, ``levels``,
    ``grey`` are filled in; the others are the options.

    Args:
        x_shape: Shape of one datum: (channels, height, width), or (columns,).
        prior: p(z). Default: StandardNormal, or of a table FlowPrior with the flow "coupling".
        encoder: q(z|x). Default: DiagonalNormal, or of a table FullRankNormal.
        likelihood: p(x|z). Default: Bernoulli, or of a table for each column what suits its kind.
        latent_dim: Number of latent dimensions.
        network: Kind of the encoder's and the decoder's networks: "mlp" has layers alone, "skip" a linear map beside
            them, and "conv" is for images. Default: "mlp", or of a table "skip".
        hidden_dims: Width of each hidden layer of the encoder, and in reverse of the decoder; for "conv" the channels.
        activation: Between the layers. Default: "relu", or of a table "silu".
        levels: Number of grey levels of the data, where they have any.
        pixels: The form of the data, as in :func:`pyro_vae.data.load`.
        missing: The data have blanks (NaN): train on what is observed; the encoder is told what that is.
        table: What the columns of the data are, as :func:`pyro_vae.data.load` finds it.
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
    table = Schema.from_dict(table) if isinstance(table, Mapping) else table
    if table is not None and tuple(x_shape) != (len(table.modelled),):
        raise ValueError(f"table: expected {x_shape[0]} columns, as a datum has, got {len(table.modelled)}")
    default = defaults(table)
    network, activation = network or default["network"], activation or default["activation"]
    for name, value, choices in (
        ("network", network, ("mlp", "skip", "conv")),
        ("activation", activation, tuple(ACTIVATIONS)),
        ("pixels", pixels, FORMS),
    ):
        if value not in choices:
            raise ValueError(f"{name}: expected one of {', '.join(choices)}, got {value!r}")
    if network == "conv" and not hidden_dims:
        raise ValueError('hidden_dims: "conv" needs the channels of at least one layer, got none')
    if network == "conv" and len(x_shape) != 3:
        raise ValueError(f'network: "conv" needs images, but a datum has the shape {tuple(x_shape)}; use "mlp"')

    chosen = {"prior": prior, "encoder": encoder, "likelihood": likelihood}
    parts = {kind: _spec(default[kind] if part is None else part) for kind, part in chosen.items()}
    x_dim = math.prod(x_shape)
    known: dict[str, Any] = {"x_dim": x_dim, "z_dim": latent_dim, "levels": levels, "grey": pixels == "grey"}

    encoder_class = find_class(parts["encoder"]["class_path"], Encoder)
    scaling = {"levels": levels, "raw": None}.get(pixels, 2)  # all other pixels are in [0, 1], as of two levels
    inputs = 2 if missing else 1  # x, and where it is blank
    categories = None if table is None else [len(c.categories) if c.kind == "category" else 0 for c in table.modelled]
    label_width = dict.fromkeys(label_in or (), num_classes or 0)
    dense = partial(mlp, skip=network == "skip")

    def from_data(num_outputs: int, labels: int = 0) -> nn.Module:
        """Build a network that sees the data, and the label behind them where there is one."""
        first: nn.Module | None = None
        if categories is not None:
            first = TableInput(categories, likelihood_part.as_input)
            layers: nn.Module = dense(first.width + labels, hidden_dims, num_outputs, activation)
        elif network == "conv":
            shape = (inputs * x_shape[0] + labels, *x_shape[1:])
            layers = conv_encoder(shape, hidden_dims, num_outputs, activation)
        else:
            layers = dense(inputs * x_dim + labels, hidden_dims, num_outputs, activation)
        if categories is None and (missing or pixels in ("levels", "raw")):
            first = WithMask(x_dim, scaling) if missing else Standardize(x_dim, scaling)
        if labels and (first is not None or network == "conv"):
            first = BesideLabel(first or nn.Identity(), labels, math.prod(x_shape[1:]) if network == "conv" else 1)
        return layers if first is None else nn.Sequential(first, layers)

    likelihood_part: Likelihood = make_part(parts["likelihood"], Likelihood, known)
    known["network"] = from_data(encoder_class.num_outputs(latent_dim), label_width.get("encoder", 0))
    made_encoder = make_part(parts["encoder"], Encoder, known)
    if "encoder" not in label_width:
        known["encoder"] = made_encoder
    elif "encoder" in inspect.signature(prior_class := find_class(parts["prior"]["class_path"], Prior)).parameters:
        raise ValueError(
            f"prior: {prior_class.__name__} is made from the encoder q(z|x), but here that is q(z|x, y); choose "
            "another prior, or leave the label out of the encoder by label_in"
        )
    params, decoder_inputs = likelihood_part.params_per_element, latent_dim + label_width.get("decoder", 0)
    if network == "conv":
        decoder: nn.Module = conv_decoder(
            latent_dim + label_width.get("decoder", 0), hidden_dims[::-1], x_shape, params, activation
        )
    else:
        decoder = dense(decoder_inputs, hidden_dims[::-1], (x_dim, params), activation)
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
        table=table,
    )
    return vae


def defaults(table: Schema | None) -> dict[str, Any]:
    """Return the parts and the networks that are taken where none is named: the article's, or a table's.

    Example:
        >>> defaults(None)["prior"]
        'StandardNormal'
    """
    if table is None:
        parts = {"prior": "StandardNormal", "encoder": "DiagonalNormal", "likelihood": "Bernoulli"}
        return {**parts, "network": "mlp", "activation": "relu"}
    # Of the flows one that is as fast to draw from as to score, and on small tables the best of them.
    prior = {"class_path": "pyro_vae.priors.FlowPrior", "init_args": {"flow": "coupling"}}
    own = {"prior": prior, "encoder": "FullRankNormal", "likelihood": of_columns(table)}
    return {**own, "network": "skip", "activation": "silu"}


def of_columns(table: Schema) -> dict[str, Any]:
    """Return the likelihood of a table, which has one that suits its kind for each column.

    Example:
        >>> from pyro_vae.data.tables import Column
        >>> columns = (Column("a", "yes/no", "str", categories=("no", "yes")),)
        >>> of_columns(Schema(columns))["init_args"]
        {'groups': [[1, {'class_path': 'Bernoulli', 'init_args': {}}]], 'packed': True}
    """

    def kind(column: Column) -> tuple[str, int]:
        names = {"category": "Categorical", "yes/no": "Bernoulli"}
        return names.get(column.kind, "WarpedLogistic"), len(column.categories) if column.kind == "category" else 0

    groups = []
    for (name, levels), columns in itertools.groupby(table.modelled, kind):
        own = list(columns)
        options: dict[str, Any] = {}
        if name == "Categorical":
            options = {"levels": levels, "ordered": False}
        elif name == "WarpedLogistic":
            options = {
                "units": [c.scale for c in own],
                "steps": [None if c.step is None else c.step / c.scale for c in own],
                "lows": [None if c.low is None else (c.low - c.loc) / c.scale for c in own],
                "highs": [None if c.high is None else (c.high - c.loc) / c.scale for c in own],
            }
            if any(c.coarse for c in own):
                options["heaps"] = [_heap(c) for c in own]
        groups.append([len(own), {"class_path": name, "init_args": options}])
    return {"class_path": "pyro_vae.likelihoods.Columns", "init_args": {"groups": groups, "packed": True}}


def _heap(column: Column) -> tuple[int, int, float] | None:
    """Return how many steps the coarser grid of a column has, at which of them from ``loc`` it is, and its share."""
    if column.coarse is None or column.step is None:
        return None
    ratio = round(column.coarse / column.step)
    return ratio, round(-column.loc / column.step) % ratio, column.heaped


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
