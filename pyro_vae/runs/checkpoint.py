"""Files of a model and of a training under way: safetensors, never pickle."""

import json
import os
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as to_bytes
from torch import Tensor

from pyro_vae.build import build
from pyro_vae.machine.files import named, subfolder, write_file
from pyro_vae.machine.reading import check_file
from pyro_vae.runs.folder import CONFIG, MODEL, STATE
from pyro_vae.vae import VAE

if TYPE_CHECKING:
    from pyro_vae.training.loop import Training


def save(vae: VAE, path: str | os.PathLike) -> None:
    """Write a VAE's weights, and how it was built, into one file.

    Args:
        vae: The VAE. One put together by hand, rather than by :func:`pyro_vae.build`, is saved with its
            weights alone; ``load`` then needs another one like it to put them into.
        path: The file, or a run folder. The file is replaced as a whole or not at all.

    Example:
        >>> import tempfile, pyro_vae
        >>> vae = pyro_vae.build((1, 4, 4), latent_dim=2)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     save(vae, folder)
        ...     again = load(folder)
        >>> torch.equal(vae.decoder[0].weight, again.decoder[0].weight)
        True
    """
    path = named(path)
    config = vae.config.as_arguments() if vae.config.parts else None
    write_file(path / MODEL if path.is_dir() else path, _as_bytes(vae.state_dict(), config))


def load(path: str | os.PathLike, vae: VAE | None = None) -> VAE:
    """Return the VAE that ``save``, or a training run, has written.

    The file holds no code. It may name parts in modules of others, which are then imported: load such a
    model only where you would import these modules yourself.

    Args:
        path: A run folder, or a file.
        vae: Put the weights into this one, instead of building one.

    Returns:
        The VAE, on the CPU, in evaluation mode, equal to the saved one to the last bit.

    Raises:
        FileNotFoundError: When there is no such file.
        ValueError: When it is not such a file, or doesn't fit.
    """
    path = Path(path)
    if path.is_dir() and not (path / MODEL).exists():
        go_on = f"its training isn't finished; wait for it, or go on with --resume {shlex.quote(str(path))}"
        why = go_on if (path / CONFIG).exists() else "it is no run folder"
        raise FileNotFoundError(f"{path} holds no {MODEL}: {why}")
    path = path / MODEL if path.is_dir() else path
    config, shapes = _read_header(path)
    if vae is None:
        if config is None:
            raise ValueError(f"{path} holds a VAE put together by hand: build one like it, and pass it as vae=...")
        vae = _build(path, config, shapes)
    _check_fit(path, vae.state_dict(), shapes)
    tensors = _read_tensors(path)
    dtypes = {tensor.dtype for tensor in tensors.values() if tensor.is_floating_point()}
    if len(dtypes) == 1:
        vae.to(dtypes.pop())
    vae.load_state_dict(tensors)
    return vae.eval()


def identity(run: Path) -> tuple[int, ...]:
    """Return what tells the model file of a run from any that takes its place; nothing where there is none."""
    try:
        status = (run / MODEL).stat()
    except FileNotFoundError:
        return ()
    return status.st_ino, status.st_mtime_ns, status.st_size


def checkpoint_folder(run: Path) -> Path:
    """Return the folder of the run's checkpoint, to write into.

    Raises:
        ValueError: When it is a link.
    """
    return subfolder(run, Path(STATE).parent.name)


def state_as_bytes(state: tuple[dict[str, Tensor], dict[str, Any]]) -> bytes:
    """Return the content of a checkpoint: what ``state_dict`` of a training gives."""
    return _as_bytes(*state)


def load_training(training: "Training", run: Path) -> None:
    """Go on from the checkpoint in the run folder, which may lie in the middle of an epoch.

    Raises:
        FileNotFoundError: When the run folder holds no checkpoint.
        ValueError: When it is truncated, or belongs to another model.
    """
    path = run / STATE
    facts, shapes = _read_header(path)
    weights = {name.removeprefix("weights/"): shape for name, shape in shapes.items() if name.startswith("weights/")}
    _check_fit(path, training.vae.state_dict(), weights)
    try:
        training.load_state_dict(_read_tensors(path), facts)
    except (KeyError, TypeError) as error:
        raise ValueError(f"{path} is no checkpoint of this training: {error!r} is missing or unknown") from error


def _build(path: Path, config: dict[str, Any], shapes: dict[str, tuple[int, ...]]) -> VAE:
    """Build the VAE that a file describes, taking no more memory than the file's own size explains."""
    try:
        try:
            with torch.device("meta"):
                _check_fit(path, build(**config).state_dict(), shapes)
        except NotImplementedError:
            pass  # a part that computes with values while it is built, as flows do
        with torch.random.fork_rng([]):
            return build(**config)
    except (TypeError, RuntimeError, KeyError, IndexError, AttributeError) as error:
        raise ValueError(f"{path} doesn't describe a VAE: {str(error).splitlines()[0]}") from error


def _check_fit(path: Path, expected: dict[str, Tensor], shapes: dict[str, tuple[int, ...]]) -> None:
    for name in sorted(expected.keys() | shapes.keys()):
        want = tuple(expected[name].shape) if name in expected else "nothing"
        if want != shapes.get(name, "nothing"):
            raise ValueError(
                f"{path} belongs to another model: for {name} expected {want}, got {shapes.get(name, 'nothing')}"
            )


def _as_bytes(tensors: dict[str, Tensor], facts: Any) -> bytes:
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    return to_bytes(tensors, {"pyro_vae": json.dumps(facts)})


def _read_header(path: Path) -> tuple[Any, dict[str, tuple[int, ...]]]:
    """Return what ``_as_bytes`` was given, but of the tensors their shapes alone."""
    check_file(path)
    try:
        with safe_open(path, "pt") as file:
            shapes = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
            facts = (file.metadata() or {})["pyro_vae"]
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{path} is truncated, or no safetensors file ({error})") from error
    except KeyError as error:
        raise ValueError(f"{path} is a safetensors file, but none of pyro_vae's") from error
    try:
        return json.loads(facts), shapes
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} has a broken description ({error})") from error


def _read_tensors(path: Path) -> dict[str, Tensor]:
    with safe_open(path, "pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
