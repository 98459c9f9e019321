"""Data sets: known facts, the forms of pixels, a user's own files, and everything that is refused."""

import io
import math
import os
import sys
import time
import types
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import EpsImagePlugin, Image

from pyro_vae import data
from pyro_vae.data import known, pixels
from pyro_vae.data.images import SUFFIXES
from pyro_vae.machine import memory

RNG = np.random.default_rng(0)
GREY = RNG.integers(0, 256, size=(40, 3, 5)).astype(np.uint8)
TABLE = RNG.normal(size=(40, 3))


def refused(call, *mentions: str, error: type[Exception] = ValueError) -> str:
    """Assert that a call is refused in one line that mentions all of ``mentions``."""
    with pytest.raises(error) as caught:
        call()
    message = str(caught.value)
    assert type(caught.value) is error
    assert "\n" not in message
    for mention in mentions:
        assert mention in message
    return message


def save_npz(path: Path, **arrays: np.ndarray) -> str:
    np.savez(path, **arrays)
    return str(path)


def save_npy(path: Path, array: np.ndarray) -> str:
    np.save(path, array, allow_pickle=True)
    return str(path)


def save_text(path: Path, text: str) -> str:
    path.write_text(text, encoding="utf-8")
    return str(path)


def everything(loaded: data.Data) -> torch.Tensor:
    return torch.cat([loaded.train, loaded.validation, loaded.test])


def as_sorted_rows(x) -> list:
    return sorted(np.asarray(x, dtype=np.float32).reshape(len(x), -1).tolist())


# Known sets


def test_digits_are_the_default():
    digits = data.load(pixels="levels")
    assert digits.name == "digits"
    assert digits.shape == (1, 8, 8)
    assert digits.levels == 17
    assert digits.columns is None
    assert [len(x) for x in (digits.train, digits.validation, digits.test)] == [1000, 350, 447]
    assert all(x.dtype == torch.float32 for x in (digits.train, digits.validation, digits.test))
    assert everything(digits).unique().tolist() == list(range(17))

    from sklearn.datasets import load_digits

    original = load_digits()
    assert torch.equal(everything(digits), torch.tensor(original.data, dtype=torch.float32))
    labels = [digits.labels[split] for split in ("train", "validation", "test")]
    assert torch.equal(torch.cat(labels), torch.tensor(original.target))
    assert labels[0].dtype == torch.int64


@pytest.mark.parametrize(("validation", "count"), [(0, 0), (10, 10), (0.5, 675)])
def test_validation_is_the_last_part_of_the_training_set(validation, count):
    whole = data.load("digits", pixels="levels", validation=0)
    digits = data.load("digits", pixels="levels", validation=validation)
    assert len(digits.validation) == len(digits.labels["validation"]) == count
    assert torch.equal(torch.cat([digits.train, digits.validation]), whole.train)
    assert torch.equal(digits.test, whole.test)


def test_real_mnist(monkeypatch):
    if not os.environ.get("PYRO_VAE_DATA"):
        pytest.skip("PYRO_VAE_DATA names no folder with MNIST")
    module = working_torchvision().datasets.mnist
    monkeypatch.delattr(module, "download_and_extract_archive")  # what is there is not downloaded
    mnist = data.load("mnist", pixels="levels")
    assert [len(x) for x in (mnist.train, mnist.validation, mnist.test)] == [55000, 5000, 10000]
    assert mnist.shape == (1, 28, 28)
    assert mnist.levels == 256
    # Facts published about MNIST: mean grey value 0.1307 of the training set, and its first labels.
    total = mnist.train.sum(dtype=torch.float64) + mnist.validation.sum(dtype=torch.float64)
    assert total.item() / (60000 * 784 * 255) == pytest.approx(0.1307, abs=5e-5)
    assert mnist.labels["train"][:5].tolist() == [5, 0, 4, 1, 9]
    assert mnist.labels["test"][:5].tolist() == [7, 2, 1, 0, 4]


def working_torchvision():
    """The real one, where it fits this torch."""
    try:
        import torchvision
    except Exception as error:
        pytest.skip(f"torchvision does not import: {error}")
    return torchvision


class FakeSet:
    """What torchvision's classes give: uint8 images and their targets."""

    def __init__(self, root, train, download, **options):
        n = 6000 if train else 1000
        self.data = torch.arange(12, dtype=torch.uint8).reshape(1, 3, 4).expand(n, 3, 4)
        self.targets = torch.arange(n)
        type(self).seen = (str(root), options)


@pytest.fixture
def datasets(monkeypatch):
    """A stand-in for torchvision's data sets: it need not fit this torch, nor be there."""
    torchvision = types.ModuleType("torchvision")
    torchvision.datasets = types.SimpleNamespace(MNIST=FakeSet, FashionMNIST=FakeSet, KMNIST=FakeSet, EMNIST=FakeSet)
    monkeypatch.setitem(sys.modules, "torchvision", torchvision)
    return torchvision.datasets


def test_torchvision_sets_and_their_folder(datasets, monkeypatch, tmp_path):
    for name in ("mnist", "fashion-mnist", "kmnist"):
        loaded = data.load(name, data_dir=str(tmp_path), pixels="raw")
        assert FakeSet.seen == (str(tmp_path), {})
        assert [len(x) for x in (loaded.train, loaded.validation, loaded.test)] == [1000, 5000, 1000]
        assert loaded.train[0].tolist() == list(range(12))

    monkeypatch.setenv("PYRO_VAE_DATA", str(tmp_path / "env"))
    data.load("mnist")
    assert FakeSet.seen[0] == str(tmp_path / "env")
    monkeypatch.delenv("PYRO_VAE_DATA")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    data.load("mnist")
    assert FakeSet.seen[0] == str(tmp_path / "home/.cache/pyro_vae")


def test_emnist_is_turned_upright(datasets):
    emnist = data.load("emnist", pixels="raw", validation=0)
    assert FakeSet.seen[1] == {"split": "balanced"}
    assert emnist.shape == (1, 4, 3)
    assert emnist.train[0].reshape(4, 3).tolist() == torch.arange(12).reshape(3, 4).T.tolist()


def test_qmnist_labels_are_the_first_of_its_columns(datasets):
    class FakeQMNIST(FakeSet):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            self.targets = torch.stack([self.targets, -self.targets], dim=1)

    datasets.QMNIST = FakeQMNIST
    assert data.load("qmnist", validation=0).labels["test"].tolist() == list(range(1000))


def test_failing_download(datasets, tmp_path):
    def fail(*args, **kwargs):
        raise RuntimeError("Error downloading train-images:\nTried http://x, got:\n<urlopen error no route>\n")

    datasets.MNIST = fail
    refused(
        lambda: data.load("mnist", data_dir=str(tmp_path)),
        *("mnist", str(tmp_path), "no route", "--data FILE", "--data_dir", "--data digits"),
        error=FileNotFoundError,
    )


def test_truncated_download_names_its_folder(tmp_path):
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for url, _ in working_torchvision().datasets.MNIST.resources:
        (raw / url.removesuffix(".gz")).write_bytes(bytes([0, 0, 8, 3, 0, 0, 0, 9, 0, 0, 0, 9, 0, 0, 0, 9, 1]))
    refused(lambda: data.load("mnist", data_dir=str(tmp_path)), str(tmp_path), error=FileNotFoundError)


def test_torchvision_that_does_not_import(monkeypatch):
    import builtins

    original = builtins.__import__

    def failing(name, *args, **kwargs):
        if name == "torchvision":
            raise RuntimeError("operator torchvision::nms does not exist")
        return original(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", failing)
    refused(lambda: data.load("mnist"), "mnist", "torchvision::nms", "--data FILE", "--data digits")


# The forms of pixels


def test_binarized_is_drawn_afresh_with_the_grey_value_as_probability():
    digits = data.load("digits", pixels="binarized")
    grey = data.load("digits", pixels="grey")
    assert torch.equal(digits.train, grey.train)
    torch.manual_seed(0)
    first, second = digits.draw(digits.train), digits.draw(digits.train)
    assert not torch.equal(first, second)
    for drawn, mean in ((first, grey.train), (digits.validation, grey.validation), (digits.test, grey.test)):
        assert set(drawn.unique().tolist()) == {0.0, 1.0}
        standard_error = (mean * (1 - mean)).sum().sqrt() / mean.numel()
        assert (drawn.mean() - mean.mean()).abs() < 5 * standard_error
        assert torch.equal(drawn[(mean == 0) | (mean == 1)], mean[(mean == 0) | (mean == 1)])


@pytest.mark.parametrize("form", ["binarized", "dequantized"])
def test_validation_and_test_noise_is_fixed_and_private(form):
    torch.manual_seed(1)
    state = torch.get_rng_state()
    first = data.load("digits", pixels=form)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(2)
    second = data.load("digits", pixels=form)
    assert torch.equal(first.validation, second.validation)
    assert torch.equal(first.test, second.test)


def test_published_binarization():
    # The figures of others are for this very test set: a change here is a change of the protocol.
    digits = data.load("digits", pixels="binarized")
    assert (digits.validation.sum().item(), digits.test.sum().item()) == (6809, 8705)


def test_the_default_dtype_changes_nothing():
    torch.set_default_dtype(torch.float64)
    try:
        double = data.load("digits", pixels="dequantized")
    finally:
        torch.set_default_dtype(torch.float32)
    assert double.train.dtype == double.test.dtype == double.draw(double.train).dtype == torch.float32
    assert torch.equal(double.test, data.load("digits", pixels="dequantized").test)


def test_threshold_grey_levels_and_raw():
    level = data.load("digits", pixels="levels")
    grey = data.load("digits", pixels="grey")
    threshold = data.load("digits", pixels="threshold")
    raw = data.load("digits", pixels="raw")
    assert level.draw is grey.draw is threshold.draw is raw.draw is None
    assert torch.equal(raw.train, level.train)
    assert torch.equal(grey.test, level.test / 16)
    assert torch.equal(threshold.train, (level.train > 8).float())


def test_dequantized_fills_each_level_evenly():
    digits = data.load("digits", pixels="dequantized")
    level = data.load("digits", pixels="levels")
    torch.manual_seed(0)
    assert not torch.equal(digits.draw(digits.train), digits.draw(digits.train))
    for drawn, k in ((digits.draw(digits.train), level.train), (digits.validation, level.validation)):
        assert torch.equal((drawn * 17).floor(), k)
        u = drawn.double() * 17 - k.double()
        # Moments of the uniform distribution, within 5 standard errors.
        assert abs(u.mean() - 1 / 2) < 5 * math.sqrt(1 / 12 / u.numel())
        assert abs((u - 1 / 2).square().mean() - 1 / 12) < 5 * math.sqrt(1 / 180 / u.numel())
    kept = digits.train.clone()
    digits.draw(digits.train)
    assert torch.equal(digits.train, kept)


@pytest.mark.parametrize("levels", [2, 3, 17, 255, 256, 1000, 65536])
@pytest.mark.parametrize("u", [0.0, 1 - 2.0**-24])
def test_dequantized_stays_in_its_cell_at_the_edges(levels, u):
    k = torch.arange(levels, dtype=torch.float32)
    x = pixels.dequantize(k, levels, torch.full_like(k, u))
    assert torch.equal((x * levels).floor(), k)
    assert torch.equal((x.double() * levels).floor(), k.double())
    assert x.max() < 1


# A user's own data


def test_own_data_are_split_into_disjoint_and_complete_parts(tmp_path):
    path = save_npy(tmp_path / "x.npy", np.arange(100.0).reshape(50, 2))
    loaded = data.load(path)
    assert loaded.name == path
    assert loaded.pixels == "raw"
    assert loaded.shape == (2,)
    assert loaded.levels is loaded.draw is loaded.labels is None
    assert [len(x) for x in (loaded.train, loaded.validation, loaded.test)] == [40, 5, 5]
    assert as_sorted_rows(everything(loaded)) == as_sorted_rows(np.arange(100.0).reshape(50, 2))
    assert loaded.test[:, 0].tolist() != list(range(90, 100, 2))
    again = data.load(path)
    assert torch.equal(again.test, loaded.test)
    larger = data.load(path, validation=0, test=20)
    assert [len(x) for x in (larger.train, larger.validation, larger.test)] == [30, 0, 20]


def test_labels_follow_their_examples(tmp_path):
    x = np.arange(30.0).reshape(30, 1) * [[1, 2]]
    loaded = data.load(save_npz(tmp_path / "d.npz", x=x, y=np.arange(30)))
    for split in ("train", "validation", "test"):
        assert getattr(loaded, split)[:, 0].tolist() == loaded.labels[split].tolist()
    targets = save_npz(tmp_path / "e.npz", x=x, y=np.linspace(0, 1, 30))
    assert data.load(targets).labels is None
    words = save_npz(tmp_path / "f.npz", x=x, y=np.array(["cat", "dog", "cow"] * 10))
    refused(lambda: data.load(words), words, "y holds text; number the classes")


def test_keras_like_npz(tmp_path):
    path = save_npz(
        tmp_path / "mnist.npz",
        x_train=GREY[:30],
        y_train=np.arange(30, dtype=np.uint8),
        x_test=GREY[30:],
        y_test=np.arange(10, dtype=np.uint8),
    )
    loaded = data.load(path, levels=256, pixels="levels", validation=10)
    assert loaded.shape == (1, 3, 5)
    assert torch.equal(loaded.test, torch.tensor(GREY[30:]).reshape(10, 15).float())
    assert loaded.labels["test"].tolist() == list(range(10))
    assert as_sorted_rows(torch.cat([loaded.train, loaded.validation])) == as_sorted_rows(GREY[:30])
    assert torch.equal(loaded.validation, torch.tensor(GREY).reshape(40, 15)[loaded.labels["validation"]].float())
    refused(lambda: data.load(path, levels=256, test=0.2), "test=0.2", path, "leave it out")


@pytest.mark.parametrize("name", ["x", "anything"])
@pytest.mark.parametrize("compress", [np.savez, np.savez_compressed])
def test_npz_with_one_array(tmp_path, name, compress):
    compress(tmp_path / "d.npz", **{name: TABLE})
    assert as_sorted_rows(everything(data.load(str(tmp_path / "d.npz")))) == as_sorted_rows(TABLE)


@pytest.mark.parametrize(
    ("array", "shape"),
    [
        (GREY, (1, 3, 5)),
        (GREY[:, None], (1, 3, 5)),
        (GREY[..., None], (1, 3, 5)),
        (np.asfortranarray(GREY), (1, 3, 5)),
        (GREY.astype(">i4"), (1, 3, 5)),
        (GREY.astype(np.float64), (1, 3, 5)),
        (GREY.reshape(40, 15), (15,)),
    ],
)
def test_arrays_are_tables_or_images(tmp_path, array, shape):
    loaded = data.load(save_npy(tmp_path / "x.npy", array), levels=256, pixels="levels")
    assert loaded.shape == shape
    assert as_sorted_rows(everything(loaded)) == as_sorted_rows(GREY)


def test_default_form_of_own_data(tmp_path):
    assert data.load(save_npy(tmp_path / "a.npy", GREY / 255)).pixels == "binarized"
    assert data.load(save_npy(tmp_path / "b.npy", GREY > 100)).pixels == "binarized"
    assert data.load(save_npy(tmp_path / "c.npy", TABLE)).pixels == "raw"
    assert data.load(save_npy(tmp_path / "d.npy", GREY), levels=256).pixels == "binarized"
    for form in ("binarized", "grey", "threshold"):
        assert data.load(str(tmp_path / "a.npy"), pixels=form).levels is None


@pytest.mark.parametrize(
    ("text", "columns"),
    [
        ("{rows}", None),
        ("height,weight,age\n{rows}", ("height", "weight", "age")),
        ('\ufeff"height","weight, kg",age\n{rows}\n\n', ("height", "weight, kg", "age")),
    ],
)
def test_csv(tmp_path, text, columns):
    rows = "\n".join(",".join(f"{value:.17g}" for value in row) for row in TABLE)
    loaded = data.load(save_text(tmp_path / "t.csv", text.format(rows=rows)))
    assert loaded.columns == columns
    assert loaded.shape == (3,)
    assert as_sorted_rows(everything(loaded)) == as_sorted_rows(TABLE)


def save_images(root: Path, images=GREY, folders=("a", "b")) -> str:
    for i, image in enumerate(images):
        folder = root / folders[i % len(folders)]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(folder / f"{i:03}.png")
    return str(root)


def test_folder_of_images(tmp_path):
    path = save_images(tmp_path)
    (tmp_path / "notes.txt").write_text("not an image")
    (tmp_path / "a" / "._000.png").write_text("not an image either")
    loaded = data.load(path, pixels="levels")
    assert loaded.levels == 256
    assert loaded.shape == (1, 3, 5)
    assert as_sorted_rows(everything(loaded)) == as_sorted_rows(GREY)
    label_of = {tuple(image.ravel().tolist()): i % 2 for i, image in enumerate(GREY)}
    assert [label_of[tuple(x)] for x in loaded.train.int().tolist()] == loaded.labels["train"].tolist()


def test_folder_with_test_set_and_folder_without_labels(tmp_path):
    save_images(tmp_path / "own" / "train", GREY[:30])
    save_images(tmp_path / "own" / "test", GREY[30:], folders=("b",))
    own = data.load(str(tmp_path / "own"), pixels="levels")
    assert torch.equal(own.test, torch.tensor(GREY[30:]).reshape(10, 15).float())
    assert own.labels["test"].tolist() == [1] * 10
    assert len(own.train) == 27
    assert data.load(save_images(tmp_path / "flat", folders=(".",))).labels is None


@pytest.mark.parametrize("names", [("train", "val", "test"), ("Train", "valid", "TEST"), ("train", "validation")])
def test_folders_that_are_sets_are_no_classes(tmp_path, names):
    parts = [GREY[:20], GREY[20:30], GREY[30:]][: len(names)]
    for name, images in zip(names, parts, strict=True):
        save_images(tmp_path / name, images)
    loaded = data.load(str(tmp_path), pixels="levels")
    sets = [loaded.train, loaded.validation, loaded.test]
    if len(names) == 2:  # the test set is split off from what is there to train on
        sets = [torch.cat([loaded.train, loaded.test]), loaded.validation]
        assert len(loaded.test) == 2
    for x, images in zip(sets, parts, strict=True):
        assert as_sorted_rows(x) == as_sorted_rows(images)
    in_order = np.concatenate([GREY[20:30:2], GREY[21:30:2]])  # a and b
    assert torch.equal(loaded.validation, torch.tensor(in_order).reshape(10, 15).float())
    assert loaded.labels["validation"].tolist() == [0] * 5 + [1] * 5
    assert as_sorted_rows(data.read(str(tmp_path), pixels="levels", levels=256).x) == as_sorted_rows(
        np.concatenate(parts)
    )
    refused(lambda: data.load(str(tmp_path), validation=0.5), "validation=0.5", "validation set of its own")


def test_folders_that_may_be_sets_or_classes(tmp_path):
    for names in (("train", "car"), ("val", "test"), ("train",)):
        folder = tmp_path / "-".join(names)
        save_images(folder, folders=names)
        loaded = data.load(str(folder), pixels="levels")
        assert len(loaded.train) + len(loaded.validation) + len(loaded.test) == len(GREY)
        assert set(loaded.labels["train"].tolist()) == set(range(len(names)))
    path = save_images(tmp_path / "mixed", folders=("train", "test", "car"))
    refused(lambda: data.load(path), path, "train, test", "car", "rename them if they are classes")
    path = save_images(tmp_path / "beside", folders=("train", "test", "."))
    refused(lambda: data.load(path), path, "beside them")


@pytest.mark.parametrize("orientation", range(1, 9))
def test_photographs_are_read_as_they_were_taken(tmp_path, orientation):
    (tmp_path / "a").mkdir()
    upright = np.arange(15, dtype=np.uint8).reshape(3, 5)
    turns = {2: np.fliplr, 3: lambda x: np.rot90(x, 2), 4: np.flipud, 5: np.transpose, 6: np.rot90,
             7: lambda x: np.rot90(x, 2).T, 8: lambda x: np.rot90(x, 3)}  # fmt: skip
    held = Image.fromarray(np.ascontiguousarray(turns.get(orientation, np.array)(upright)))
    exif = Image.Exif()
    exif[0x0112] = orientation
    for i in range(4):
        held.save(tmp_path / "a" / f"{i}.png", exif=exif)
    Image.fromarray(upright).save(tmp_path / "a" / "upright.png")  # of the same size only when the others are turned
    x = data.read(str(tmp_path), pixels="levels", levels=256)
    assert x.shape == (1, 3, 5)
    assert (x.x == torch.tensor(upright).reshape(1, -1)).all()


def test_images_in_colour_become_grey(tmp_path):
    save_images(tmp_path, np.repeat(GREY[..., None], 3, axis=-1))
    assert as_sorted_rows(everything(data.load(str(tmp_path), pixels="levels"))) == as_sorted_rows(GREY)


# What is refused


@pytest.mark.parametrize(
    ("arguments", "mentions"),
    [
        ({"pixels": "gray"}, ["pixels='gray'", "grey"]),
        ({"levels": 1}, ["levels=1"]),
        ({"levels": 100_000}, ["levels=100000", "--pixels raw"]),
        ({"levels": 16}, ["levels=16", "17", "digits"]),
        ({"validation": -1}, ["validation=-1"]),
        ({"validation": 1.5}, ["validation=1.5"]),
        ({"validation": math.nan}, ["validation=nan"]),
        ({"validation": math.inf}, ["validation=inf"]),
        ({"validation": 1349}, ["digits", "1349 for validation", "--validation"]),
        ({"test": 100}, ["test=100", "digits", "leave it out"]),
    ],
)
def test_refused_arguments(arguments, mentions):
    refused(lambda: data.load("digits", **arguments), *mentions)


def test_names_that_are_nothing(tmp_path):
    refused(lambda: data.load("mnits"), "mnits", "fashion-mnist", ".npz", error=FileNotFoundError)
    path = save_text(tmp_path / "x.txt", "1,2")
    refused(lambda: data.load(path), path, ".txt", ".csv")


@pytest.mark.parametrize("form", ["binarized", "threshold", "grey"])
def test_values_outside_the_unit_interval(tmp_path, form):
    path = save_npy(tmp_path / "x.npy", GREY)
    refused(lambda: data.load(path, pixels=form), path, form, "--levels 256", "--pixels raw", "255")
    if form == "binarized":
        refused(lambda: data.load(path), path, "--levels 256", "--pixels raw")


@pytest.mark.parametrize("form", ["levels", "dequantized"])
def test_forms_that_need_levels(tmp_path, form):
    path = save_npy(tmp_path / "x.npy", GREY / 255)
    refused(lambda: data.load(path, pixels=form), path, form, "--levels 256", "--pixels raw")


@pytest.mark.parametrize("array", [GREY, GREY - 1.0, GREY / 2])
def test_values_that_are_not_levels(tmp_path, array):
    path = save_npy(tmp_path / "x.npy", array)
    refused(lambda: data.load(path, levels=200 if array is GREY else 256), path, "levels=2", "whole numbers from 0 to")


@pytest.mark.parametrize(
    ("arrays", "mentions"),
    [
        ({"x": np.zeros(5)}, ["(5,)", "(N, D)"]),
        ({"x": np.zeros((5, 3, 4, 4))}, ["(5, 3, 4, 4)", "one channel"]),
        ({"x": np.zeros((0, 3))}, ["(0, 3)", "empty"]),
        ({"x": np.zeros((5, 0))}, ["(5, 0)", "empty"]),
        ({"x": np.zeros((5, 2), dtype=complex)}, ["complex128"]),
        ({"x": np.full((5, 2), "a")}, ["<U1"]),
        ({"x": np.full((5, 2), None)}, ["object"]),
        ({"x": np.zeros((9, 2)), "y": np.zeros(8)}, ["(8,)", "(9, 2)"]),
        ({"a": TABLE, "b": TABLE}, ["a, b", "name the data x"]),
        ({}, ["nothing"]),
        ({"x_train": TABLE, "x_test": TABLE[:, :2]}, ["(40, 3)", "(40, 2)"]),
        ({"x_train": TABLE, "y_test": np.zeros(40)}, ["missing"]),
        ({"x": np.where(TABLE > 0, TABLE, np.nan)}, ["blank", "remove the rows"]),
        ({"x": np.where(TABLE > 0, TABLE, np.inf)}, ["infinite"]),
        ({"x": TABLE * 1e300}, ["too large for float32"]),
        ({"x": TABLE[:2]}, ["at least 2", "--test"]),
    ],
)
def test_refused_arrays(tmp_path, arrays, mentions):
    path = save_npz(tmp_path / "d.npz", **arrays)
    refused(lambda: data.load(path), path, *mentions)
    if list(arrays) == ["x"]:
        path = save_npy(tmp_path / "d.npy", arrays["x"])
        refused(lambda: data.load(path), path, *mentions)


def test_test_set_is_needed(tmp_path):
    path = save_npy(tmp_path / "x.npy", TABLE)
    refused(lambda: data.load(path, test=0), path, "test=0")


@pytest.mark.parametrize(
    ("text", "mentions"),
    [
        ("1,2\n3\n", ["line 2", "1 cells, not 2"]),
        ("a,b\n1,2\n3,4,5\n", ["line 3", "3 cells, not 2"]),
        ("a,b\n1,\n3,4\n", ["blank", "line 2, column 2"]),
        ("1,\n3,4\n", ["blank", "line 1, column 2"]),
        ("a,b\n1,2\n3,red\n", ["line 3, column 2", "'red'"]),
        ("a,1\n1,2\n", ["line 1, column 1", "'a'"]),
        ("a;b\n1;2\n", ["commas", "'1;2'"]),
        ("a,b,c\n1,2\n3,4\n", ["first line has 3", "2 cells"]),
        ("a,b\n", ["none"]),
        ("\n\n", ["none"]),
        ("1,2\nnan,4\n", ["blank", "row 2"]),
        ("1,2\n1e99,4\n", ["too large", "row 2"]),
        ("", ["empty"]),
    ],
)
def test_refused_tables(tmp_path, text, mentions):
    path = save_text(tmp_path / "t.csv", text)
    refused(lambda: data.load(path), path, *mentions)


@pytest.mark.parametrize("suffix", [".npz", ".npy", ".csv"])
@pytest.mark.parametrize("content", [b"", b"\x00\xff\xfe garbage \x80", b"\x93NUMPY", b"PK\x03\x04"])
def test_files_that_are_not_what_their_name_says(tmp_path, suffix, content):
    path = tmp_path / f"x{suffix}"
    path.write_bytes(content)
    refused(lambda: data.load(str(path)), str(path))


@pytest.mark.parametrize("suffix", [".npz", ".npy"])
@pytest.mark.parametrize("part", [0.1, 0.5, 0.95])
def test_truncated_files(tmp_path, suffix, part):
    path = tmp_path / f"x{suffix}"
    (np.savez if suffix == ".npz" else np.save)(path, TABLE)
    content = path.read_bytes()
    path.write_bytes(content[: int(part * len(content))])
    refused(lambda: data.load(str(path)), str(path), f"expected a {suffix} file")


def test_damaged_npz(tmp_path):
    path = tmp_path / "x.npz"
    np.savez(path, x=TABLE)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))
    refused(lambda: data.load(str(path)), str(path), "CRC")


@pytest.mark.parametrize("suffix", [".npz", ".npy"])
@pytest.mark.parametrize("shape", [(10**9, 784), (2**62, 2**62), (10**6, 1000, 1000)])
def test_a_huge_header_is_refused_before_memory_is_taken(tmp_path, suffix, shape):
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(stream, {"descr": "<f8", "fortran_order": False, "shape": shape})
    stream.write(bytes(1000))
    path = tmp_path / f"x{suffix}"
    if suffix == ".npz":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("x.npy", stream.getvalue())
    else:
        path.write_bytes(stream.getvalue())
    start = time.perf_counter()
    refused(lambda: data.load(str(path)), str(path), "memory", "GiB")
    assert time.perf_counter() - start < 1


def test_memory_is_checked_for_tables_and_images(tmp_path, monkeypatch):
    table = save_text(tmp_path / "t.csv", "1,2\n" * 1000)
    folder = save_images(tmp_path / "images")
    array = save_npy(tmp_path / "x.npy", GREY)
    monkeypatch.setattr(memory, "physical_memory", lambda: 4000)
    for path in (table, folder, array):
        refused(lambda path=path: data.load(path), path, "memory")


def test_code_in_a_file_is_never_run(tmp_path):
    class Bomb:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "ran"),)

    bomb = np.empty((2, 2), dtype=object)
    bomb[:] = Bomb()
    for path in (save_npy(tmp_path / "x.npy", bomb), save_npz(tmp_path / "x.npz", x=bomb)):
        refused(lambda path=path: data.load(path), path, "object")
    assert data.load(save_npz(tmp_path / "y.npz", x=TABLE, y=bomb)).labels is None
    assert not (tmp_path / "ran").exists()


EPS = "%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 5 3\n%%EndComments\n(ran) print\n%%EOF\n"


def test_no_image_starts_a_program(tmp_path, monkeypatch):
    (tmp_path / "image.png").write_text(EPS)
    started = []
    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", lambda *_, **__: started.append(1) or Image.new("L", (5, 3)))
    refused(lambda: data.load(str(tmp_path)), "image.png", "cannot identify image file")
    assert not started


@pytest.mark.parametrize("suffix", sorted(SUFFIXES))
def test_every_format_that_is_named_is_read(tmp_path, suffix):
    for number, image in enumerate(GREY):
        Image.fromarray(image).save(tmp_path / f"{number:02}{suffix}")
    assert data.read(str(tmp_path), pixels="raw").x.shape == (40, 15)


def test_refused_folders(tmp_path, monkeypatch):
    refused(lambda: data.load(str(tmp_path)), str(tmp_path), "none")

    root = save_images(tmp_path / "sizes", [GREY[0], GREY[1].T])
    refused(lambda: data.load(root), root, "5x3", "3x5", "resize")

    root = save_images(tmp_path / "deep", [GREY[0].astype(np.uint16)])
    refused(lambda: data.load(root), root, "I;16", "8-bit grey")

    root = save_images(tmp_path / "alpha", [np.repeat(GREY[0][..., None], 4, axis=-1)])
    refused(lambda: data.load(root), root, "RGBA")

    root = save_images(tmp_path / "large", [RNG.integers(0, 256, size=(90, 90)).astype(np.uint8)])
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 5000)  # PIL warns
    refused(lambda: data.load(root), root, "decompression bomb")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)  # PIL raises
    refused(lambda: data.load(root), root, "decompression bomb")
    monkeypatch.undo()

    image = tmp_path / "large" / "a" / "000.png"
    content = image.read_bytes()
    for broken in (b"", b"text", content[: len(content) // 2]):
        image.write_bytes(broken)
        refused(lambda: data.load(root), root, str(image))


def test_names_in_the_help_are_the_known_ones():
    assert data.load.__doc__ is not None
    assert all(name in data.load.__doc__ for name in [*known.KNOWN, *pixels.FORMS])
