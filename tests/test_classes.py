"""Classes are those that were seen, by the names that the data give them, in every command."""

import csv
import json

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from matplotlib.text import Text
from PIL import Image

import pyro_vae
from pyro_vae import data
from pyro_vae.data import SPLIT_SEED
from pyro_vae.data.labels import named, to_classes
from pyro_vae.runs.checkpoint import save
from pyro_vae.runs.opening import load_run, run_data
from tests.commands import call as command
from tests.commands import refused

QUICK = ["--epochs", "40", "--hidden_dims", "[8]", "--latent_dim", "2", "--lr", "0.02", "--batch_size", "32"]
QUICK += ["--device", "cpu"]


def columns_of(path):
    with open(path, newline="") as file:
        rows = list(csv.DictReader(file))
    return {name: [row[name] for row in rows] for name in rows[0]}


def write_table(path, kinds, shuffled=True):
    """A table whose column a lies near four times the kind."""
    rng = np.random.default_rng(0)
    if shuffled:
        kinds = rng.permutation(kinds)
    rows = [[f"{4 * k + 0.1 * rng.normal():.4f}", k, f"{rng.normal():.4f}"] for k in kinds]
    with open(path, "w", newline="") as file:
        csv.writer(file).writerows([["a", "kind", "b"], *rows])
    return path


@pytest.fixture(scope="module")
def table_run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("classes")
    path = write_table(folder / "kinds.csv", np.arange(200) % 4 + 3)
    command("train", "--data", path, "--condition", "kind", "--likelihood", "Gaussian", *QUICK, "--run", folder / "run")
    return folder / "run"


@pytest.fixture(scope="module")
def folder_run(tmp_path_factory):
    """Images of two classes: cats are bright above, dogs below."""
    folder = tmp_path_factory.mktemp("classes")
    rng = np.random.default_rng(0)
    for name, half in (("cat", slice(0, 2)), ("dog", slice(2, 4))):
        (folder / "pets" / name).mkdir(parents=True)
        for i in range(40):
            pixels = rng.integers(0, 40, (4, 4), dtype=np.uint8)
            pixels[half] += 200
            Image.fromarray(pixels).save(folder / "pets" / name / f"{i:02}.png")
    command("train", "--data", folder / "pets", "--condition", "label", *QUICK, "--run", folder / "run")
    return folder / "run"


def test_four_labels_are_four_classes(table_run):
    summary = json.loads((table_run / "summary.json").read_text())
    assert (summary["num_classes"], summary["classes"]) == (4, ["3", "4", "5", "6"])
    vae = pyro_vae.load(table_run)
    assert vae.num_classes == 4
    assert vae.config.class_names == ("3", "4", "5", "6")
    assert set(run_data(table_run).labels["train"].tolist()) == {0, 1, 2, 3}


def test_the_label_of_the_user_is_what_every_command_takes(table_run, tmp_path, capsys):
    for label in (3, 6):
        command("sample", table_run, "--label", label, "--num", "20", "--out", tmp_path / f"{label}")
        made = columns_of(tmp_path / f"{label}/samples.csv")
        assert set(made["kind"]) == {str(label)}
        assert np.mean([float(a) for a in made["a"]]) == pytest.approx(4 * label, abs=1)
        assert np.load(tmp_path / f"{label}/samples.npz")["y"].tolist() == [label] * 20
    assert "--label 2: expected one of the classes 3, 4, 5, 6" in refused(capsys, "sample", table_run, "--label", 2)
    assert "--label 3, 4, 5, 6, for P(X | Y)" in refused(capsys, "encode", table_run)
    command("encode", table_run, "--label", 5, "--out", tmp_path / "latents")
    assert set(columns_of(tmp_path / "latents/latents.csv")["label"]) == {"5"}
    command("evaluate", table_run, "--label", 4, "--num_samples", 20)
    assert set(columns_of(table_run / "evaluation-label-4.csv")["label"]) == {"4"}
    command("sample", table_run, "--out", tmp_path / "all")
    assert sorted(set(columns_of(tmp_path / "all/samples.csv")["kind"])) == ["3", "4", "5", "6"]
    assert "classes 3, 4, 5, 6" in capsys.readouterr().out


def test_classify_speaks_of_the_users_labels(table_run, tmp_path, capsys):
    path = write_table(tmp_path / "new.csv", np.array([6, 3, 4, 9, 5, 6]), shuffled=False)  # nothing is known of 9
    command("classify", table_run, "--data", path, "--num_samples", "50", "--out", tmp_path / "out")
    columns = columns_of(tmp_path / "out/classes.csv")
    assert [label for i, label in enumerate(columns["predicted"]) if i != 3] == ["6", "3", "4", "5", "6"]
    assert columns["label"] == ["6", "3", "4", "-1", "5", "6"]
    assert {"p_3", "p_4", "p_5", "p_6"} < columns.keys()
    assert "p_0" not in columns
    found = json.loads((tmp_path / "out/classes.json").read_text())
    assert found["classes"] == ["3", "4", "5", "6"]
    assert found["classification"]["num_examples"] == 5
    assert "4 classes (3, 4, 5, 6)" in capsys.readouterr().out


def test_training_names_the_classes_and_their_column(tmp_path, capsys):
    path = write_table(tmp_path / "kinds.csv", np.arange(60) % 4 + 3)
    command("train", "--data", path, "--condition", "kind", "--likelihood", "Gaussian", *QUICK[2:], "--epochs", "1",
            "--run", tmp_path / "run")  # fmt: skip
    assert "labels      4 classes of kind (3, 4, 5, 6), in the" in capsys.readouterr().out


@pytest.mark.pictures
def test_folders_give_their_names(folder_run, tmp_path, capsys, monkeypatch):
    written = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, path, **_: written.append(figure) or path.write(b"\x89PNG"))
    assert json.loads((folder_run / "summary.json").read_text())["classes"] == ["cat", "dog"]
    command("sample", folder_run, "--label", "dog", "--num", "30", "--mean", "--out", tmp_path / "dogs")
    made = np.load(tmp_path / "dogs/samples.npz")
    assert made["y"].tolist() == ["dog"] * 30
    assert made["x"][:, 2:].mean() > made["x"][:, :2].mean()
    command("sample", folder_run, "--out", tmp_path / "both")
    assert {"cat", "dog"} <= {text.get_text() for text in written[-1].findobj(Text)}
    command("classify", folder_run, "--num_samples", "20", "--out", tmp_path / "classes")
    columns = columns_of(tmp_path / "classes/classes.csv")
    assert {"p_cat", "p_dog"} < columns.keys()
    assert set(columns["predicted"]) <= {"cat", "dog"}
    assert columns["predicted"] == columns["label"]
    assert "cat, dog" in refused(capsys, "encode", folder_run, "--label", "bird")
    command("report", folder_run, "--label", "cat", "--no_check", "--out", tmp_path / "page.html")
    assert "</svg>cat</span>" in (tmp_path / "page.html").read_text()


@pytest.mark.pictures
def test_names_are_shown_where_a_run_has_no_condition(folder_run, tmp_path, monkeypatch):
    written = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, path, **_: written.append(figure) or path.write(b"\x89PNG"))
    command("train", "--data", folder_run.parent / "pets", *QUICK[2:], "--epochs", "1", "--run", tmp_path / "run")
    command("encode", tmp_path / "run")
    assert set(columns_of(tmp_path / "run/encode/latents.csv")["label"]) == {"cat", "dog"}
    assert set(np.load(tmp_path / "run/encode/latents.npz")["y"]) == {"cat", "dog"}
    assert {"cat", "dog"} <= {text.get_text() for text in written[-1].findobj(Text)}
    command("score", tmp_path / "run", "--anomalies", "cat", "--num_samples", "20", "--level", "0.2")
    found = columns_of(tmp_path / "run/score/scores.csv")
    assert [label == "cat" for label in found["label"]] == [value == "1" for value in found["anomaly"]]


def test_the_same_names_are_the_same_classes_in_other_data(folder_run, tmp_path):
    """Folders of other names, in another order, and one that the run does not know."""
    pets = folder_run.parent / "pets"
    for name, file in (("bird", "cat/00.png"), ("dog", "dog/00.png")):
        (tmp_path / "others" / name).mkdir(parents=True)
        (tmp_path / "others" / name / "0.png").write_bytes((pets / file).read_bytes())
    command("classify", folder_run, "--data", tmp_path / "others", "--num_samples", "20", "--out", tmp_path / "out")
    assert columns_of(tmp_path / "out/classes.csv")["label"] == ["-1", "dog"]


def test_a_class_that_no_test_data_have_can_be_drawn(tmp_path, capsys):
    order = torch.randperm(100, generator=torch.Generator().manual_seed(SPLIT_SEED)).tolist()
    kinds = np.arange(100) % 2 + 1
    kinds[order[:2]] = 7  # in the training data alone
    path = write_table(tmp_path / "rare.csv", kinds, shuffled=False)
    options = ["--likelihood", "Gaussian", *QUICK[2:], "--epochs", "2"]
    command("train", "--data", path, "--condition", "kind", *options, "--run", tmp_path / "run")
    command("sample", tmp_path / "run", "--label", "7", "--num", "5")
    assert (tmp_path / "run/sample/samples.png").exists()
    command("encode", tmp_path / "run", "--label", "7", "--split", "train")
    assert len(columns_of(tmp_path / "run/encode/latents.csv")["label"]) == 2
    command("evaluate", tmp_path / "run", "--label", "7", "--data", path, "--num_samples", "5")
    capsys.readouterr()
    assert "--split test: the run has no such data of class 7" in refused(
        capsys, "evaluate", tmp_path / "run", "--label", "7", "--num_samples", "5"
    )
    assert "no test data of this class" in refused(capsys, "report", tmp_path / "run", "--label", "7", "--no_check")


def test_a_run_from_before_classes_had_names_still_opens(table_run, tmp_path):
    """Then there was a class for each number up to the largest label."""
    old = tmp_path / "old"
    old.mkdir()
    for name in ("config.yaml", "summary.json"):
        (old / name).write_bytes((table_run / name).read_bytes())
    torch.manual_seed(0)
    vae = pyro_vae.build((2,), likelihood="Gaussian", pixels="raw", num_classes=7, latent_dim=2, hidden_dims=[8])
    save(vae, old)
    assert b'"classes"' not in (old / "model.safetensors").read_bytes()
    assert pyro_vae.load(old).config.class_names == tuple("0123456")
    assert load_run(old, 3).label == 3
    assert set(run_data(old, pyro_vae.load(old)).labels["train"].tolist()) == {3, 4, 5, 6}
    command("sample", old, "--label", "6", "--num", "4")
    command("classify", old, "--num_samples", "5")
    assert set(columns_of(old / "classify/classes.csv")["label"]) <= {"3", "4", "5", "6"}


def test_names_of_labels():
    y = torch.tensor([2, 0, -1, 1])
    assert named(y, None).tolist() == [2, 0, -1, 1]
    assert named(y, ("3", "4", "10")).tolist() == [10, 3, -1, 4]
    assert named(y, ("3", "a/b", "c")).tolist() == ["c", "3", "-1", "a/b"]
    assert to_classes(y, ("b", "a", "c"), ("a", "b")).tolist() == [-1, 1, -1, 0]
    with pytest.raises(ValueError, match="classes: expected 2 different names"):
        pyro_vae.build((1, 4, 4), num_classes=2, classes=["a", "a"])


def test_python_sees_classes_and_their_names(table_run):
    loaded = data.load(str(table_run.parent / "kinds.csv"), condition="kind")
    assert (loaded.num_classes, loaded.classes, loaded.label_column) == (4, ("3", "4", "5", "6"), "kind")
    assert loaded.columns == ("a", "b")
