"""Broken files, as the fuzz campaign makes them: each function spoils a file at random, and says how."""

import contextlib
import gzip
import json
import math
import random
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from safetensors.torch import load as read_tensors
from safetensors.torch import save as as_safetensors

# What stands in the place of a value.
NASTY: list[Any] = [
    None, True, False, 0, 1, -1, 2, 0.5, -0.5, 1e308, 1e-320, math.nan, math.inf, -math.inf,
    2**31, 2**63, 2**70, 10**30, "", "x", "0", "-1", "nan", "null", "true", "1e999", "../..", "/", "~nouser", "~",
    "a b", "é", "💥", "\ud800", "\x00", "\n", "%s", "{}", "{0}", "[1, 2", "{a: b}", "[[1, x]]", "x" * 5000,
    "auto", "cpu",
    "digits", "label", "raw", "levels", "Nope", "StudentT", "Bernoulli", "Columns", "json.JSONDecoder", "antigravity.X",
    "pyro_vae.vae.VAE", ".", "..", "a.", ".a", [], {}, [0], [-1], [1, 2, 3], ["x"], [[]], [None], [[2, "Gaussian"]],
    [1e30], {"x": 1}, {"class_path": None}, {"class_path": "StudentT"}, {"class_path": "StudentT", "init_args": None},
    {"class_path": "StudentT", "init_args": {"df": "x"}}, {"init_args": {"df": 3}},
    {"class_path": "GaussianMixture", "init_args": {"components": -1}},
]  # fmt: skip


def nest(depth: int, opening: str = "[", closing: str = "]") -> str:
    """Return text that is nested deeper than a parser can follow."""
    return opening * depth + closing * depth


def spoil_bytes(content: bytes, rng: random.Random) -> tuple[bytes, str]:
    """Change bytes, wherever and whatever they are."""
    how = rng.choice(("cut", "flip", "insert", "remove", "repeat", "empty", "noise", "start", "zeros"))
    at, to = sorted(rng.randrange(len(content) + 1) for _ in range(2)) if content else (0, 0)
    changed = bytearray(content)
    if how == "cut":
        del changed[at:]
    elif how == "flip":
        for _ in range(rng.choice((1, 3, 30))):
            if changed:
                changed[rng.randrange(len(changed))] = rng.randrange(256)
    elif how == "insert":
        changed[at:at] = rng.randbytes(rng.choice((1, 8, 100)))
    elif how == "remove":
        del changed[at:to]
    elif how == "repeat":
        changed[at:at] = changed[at:to]
    elif how == "start":
        changed[: rng.randrange(1, 64)] = rng.randbytes(rng.randrange(64))
    elif how == "zeros":
        changed[at:to] = bytes(to - at)
    else:
        changed = bytearray() if how == "empty" else bytearray(rng.randbytes(rng.choice((1, 50, 5000))))
    return bytes(changed), f"{how} {at}:{to}"


def places(value: Any, path: tuple = ()) -> Iterator[tuple]:
    """Yield the way to each value in a tree of dictionaries and lists."""
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield from places(item, (*path, key))


def spoil_tree(tree: Any, rng: random.Random) -> tuple[Any, str]:
    """Replace, remove, add or rename one or two values in a tree."""
    tree, said = json.loads(json.dumps(tree)), []
    for _ in range(rng.choice((1, 1, 2))):
        path = rng.choice([*places(tree)])
        value = rng.choice(NASTY)
        if not path:
            if rng.random() < 0.9:
                continue
            return value, f"all = {value!r:.60}"
        holder = tree
        for key in path[:-1]:
            holder = holder[key]
        how = rng.choice(("replace", "replace", "replace", "remove", "add", "wrap"))
        said.append(f"{how} {'.'.join(map(str, path))}: {value!r:.60}")
        if how == "replace":
            holder[path[-1]] = value
        elif how == "remove":
            del holder[path[-1]]
        elif how == "wrap":
            holder[path[-1]] = [holder[path[-1]]]
        elif isinstance(holder, dict):
            holder[rng.choice(("x", "prior", "run", "overwrite", "config", "__path__", "", "a.b"))] = value
        else:
            holder.append(value)
    return tree, "; ".join(said) or "nothing"


def spoil_text(path: Path, rng: random.Random) -> str:
    """Spoil a YAML or a JSON file, mostly by what it says."""
    content = path.read_bytes()
    if rng.random() < 0.25:
        content, said = spoil_bytes(content, rng)
    elif rng.random() < 0.05:
        content, said = rng.choice((nest(5000), nest(5000, "{a: "), nest(100_000), '{"a":' * 5000)).encode(), "nested"
    else:
        dump = yaml.safe_dump if path.suffix == ".yaml" else json.dumps
        tree, said = spoil_tree(yaml.safe_load(content), rng)
        content = dump(tree).encode("utf-8", "surrogatepass")
    path.write_bytes(content)
    return f"{path.name}: {said}"


def spoil_csv(path: Path, rng: random.Random) -> str:
    """Spoil a table, by its bytes or its cells."""
    if rng.random() < 0.4:
        return spoil_any(path, rng)
    rows = [line.split(",") for line in path.read_text().splitlines()]
    row = rng.randrange(len(rows))
    cell = str(rng.choice([*NASTY, '"', '"a\nb"', "1,2", "1;2", "0x10", "1_000", "١", "-0", "inf", "\ufeff"]))
    how = rng.choice(("cell", "cell", "cell", "row", "column", "names", "short"))
    if how == "cell":
        rows[row][rng.randrange(len(rows[row]))] = cell
    elif how == "row":
        rows[row] = [cell]
    elif how == "column":
        for line in rows:
            line[0] = cell
    elif how == "names":
        rows[0] = [cell] * len(rows[0])
    else:
        rows = rows[: rng.randrange(3)]
    path.write_text("\n".join(map(",".join, rows)), errors="surrogatepass")
    return f"{path.name}: {how} {row}: {cell!r:.60}"


def spoil_tensors(path: Path, rng: random.Random) -> str:
    """Spoil a safetensors file: its bytes, what its header says, or its tensors."""
    content = path.read_bytes()
    chance = rng.random()
    if chance < 0.25:
        content, said = spoil_bytes(content, rng)
    elif chance < 0.65:
        size = struct.unpack("<Q", content[:8])[0]
        header = json.loads(content[8 : 8 + size])
        if rng.random() < 0.8:
            facts, said = spoil_tree(json.loads(header["__metadata__"]["pyro_vae"]), rng)
            if rng.random() < 0.03:
                header["__metadata__"]["pyro_vae"] = nest(20_000)
            else:
                header["__metadata__"]["pyro_vae"] = json.dumps(facts)
        else:
            header, said = spoil_tree(header, rng)
        text = json.dumps(header).encode("utf-8", "surrogatepass")
        content = struct.pack("<Q", len(text)) + text + content[8 + size :]
    else:
        facts = {
            "pyro_vae": json.loads(content[8 : 8 + struct.unpack("<Q", content[:8])[0]])["__metadata__"]["pyro_vae"]
        }
        tensors = read_tensors(content)
        name = rng.choice(sorted(tensors))
        said = spoil_tensor(tensors, name, rng)
        content = as_safetensors(tensors, facts)
    path.write_bytes(content)
    return f"{path.name}: {said}"


def spoil_tensor(tensors: dict[str, torch.Tensor], name: str, rng: random.Random) -> str:
    """Change a tensor's values, type or shape, or all tensors' types; or remove, rename or add one."""
    tensor = tensors[name]
    types = (torch.float16, torch.bfloat16, torch.float64, torch.int64, torch.bool, torch.uint8, torch.complex64)
    how = rng.choice(("values", "values", "type", "types", "shape", "remove", "rename", "add"))
    value = rng.choice((math.nan, math.inf, -math.inf, 1e38, -1e38, 0.0, 1e-45))
    kind = rng.choice((*types, torch.float8_e4m3fn))
    if how == "values":
        tensors[name] = torch.full_like(tensor, value if tensor.is_floating_point() else 1)
    elif how == "type":
        tensors[name] = tensor.to(kind)
    elif how == "types":
        tensors.update({name: tensor.to(kind) for name, tensor in tensors.items()})
    elif how == "shape":
        tensors[name] = rng.choice((tensor.reshape(-1), tensor[None], tensor.reshape(-1)[:0], tensor.new_zeros(())))
    elif how == "rename":
        tensors[name + "x"] = tensors.pop(name)
    elif how == "remove":
        del tensors[name]
    else:
        tensors[rng.choice(("x", "weights/x", "adam/x/y", "best/x", ""))] = tensor.clone()
    return f"{how} {name}: {value} {kind}"


def spoil_array(path: Path, rng: random.Random) -> str:
    """Spoil a .npy file, by its bytes or its values, type and shape; or a .npz file of one."""
    if rng.random() < 0.4:
        return spoil_any(path, rng)
    array = np.random.default_rng(rng.randrange(2**32)).integers(0, 17, (30, 8, 8))
    kinds = ("f2", "f4", "f8", "i1", "u1", "i8", "u8", "b1", "c8", "S3", "U3", "O", "M8[s]", "f4,i4", ">f4", "f16")
    kind = rng.choice(kinds)
    shapes = (
        (30, 64),
        (30, 8, 8),
        (0, 64),
        (30,),
        (),
        (1, 64),
        (30, 0),
        (30, 1, 8, 8),
        (2, 2, 2, 2, 2, 2),
        (30, 8, 8, 1),
    )
    shape = rng.choice((*shapes, (1920, 1)))
    with np.errstate(invalid="ignore"):
        values = np.resize(array * rng.choice((1, 1, 1 / 16, 255, 1e30, -1, math.nan, math.inf)), shape)
    with contextlib.suppress(TypeError, ValueError), np.errstate(all="ignore"):
        values = np.asfortranarray(values).astype(kind)
    if path.suffix == ".npy":
        np.save(path, values, allow_pickle=True)
    else:
        names = rng.choice(
            (("x", "y"), ("x_train", "y_train"), ("x", "x_test"), ("a", "b"), ("x_train", "x_test"), ("", "y"))
        )
        np.savez(path, **{name: values if rng.random() < 0.7 else array.reshape(30, -1) for name in names})
    return f"{path.name}: {kind} {shape}"


def spoil_any(path: Path, rng: random.Random) -> str:
    """Spoil a file, or one of a folder, by its bytes; of a .gz file what is packed in it."""
    if path.is_dir():
        path = rng.choice(sorted(file for file in path.rglob("*") if file.is_file()))
    content = path.read_bytes()
    if path.suffix == ".gz" and rng.random() < 0.7:
        content, said = spoil_bytes(gzip.decompress(content), rng)
        content = gzip.compress(content)
    else:
        content, said = spoil_bytes(content, rng)
    path.write_bytes(content)
    return f"{path.name}: {said}"
