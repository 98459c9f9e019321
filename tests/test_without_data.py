"""A run whose data are gone works for all that needs no more of them than it keeps, and else says what is missing."""

import csv
import json
import shutil
import zipfile

import numpy as np
import pytest
import yaml
from sklearn.datasets import load_digits

from pyro_vae.commands import train
from pyro_vae.runs import kept
from pyro_vae.runs.checkpoint import load
from pyro_vae.runs.folder import KEPT
from pyro_vae.runs.opening import load_run, run_data, some_data
from tests.commands import call, refused

QUICK = ["--epochs", "1", "--hidden_dims", "[8]", "--latent_dim", "2"]
LABELLED = ["--condition", "label"]
KINDS = {
    "images": ["--data", "digits.npz", "--levels", "17"],
    "table": ["--data", "table.csv", "--likelihood", "Gaussian", "--missing"],
    "classes": ["--data", "digits.npz", "--levels", "17", *LABELLED],
    "few labels": ["--data", "digits.npz", "--levels", "17", *LABELLED, "--num_labels", "20"],
}
FILL = ["--num_samples", "20", "--num_starts", "1", "--steps", "2"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with data, and runs on them by kind; `gone/KIND` are the same without their data."""
    folder = tmp_path_factory.mktemp("folder")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        x, y = load_digits(return_X_y=True)
        np.savez("digits.npz", x=x[:400].reshape(-1, 8, 8).astype(np.uint8), y=y[:400])
        rng = np.random.default_rng(0)
        table = rng.normal(size=(200, 3)) @ rng.normal(size=(3, 3))
        table[rng.random(table.shape) < 0.1] = np.nan
        np.savetxt("table.csv", table, delimiter=",", header="height,width,mass", comments="", fmt="%.4f")
        for kind, options in KINDS.items():
            train.main([*options, *QUICK, "--run", f"there/{kind}"])
            without_data(shutil.copytree(f"there/{kind}", folder / "gone" / kind))
    return folder


@pytest.fixture
def runs(folder, tmp_path, monkeypatch):
    """The runs with their data and without, by kind; the current folder holds the data."""
    monkeypatch.chdir(folder)
    return lambda kind: [shutil.copytree(folder / place / kind, tmp_path / place / kind) for place in ("there", "gone")]


def without_data(run):
    """Name others in the configuration of a run, which are not there; return the run."""
    config = yaml.safe_load((run / "config.yaml").read_text())
    (run / "config.yaml").write_text(yaml.safe_dump(config | {"data": f"moved-{config['data']}"}, sort_keys=False))
    return run


# What differs from call to call, and what the training data alone can tell.
OTHERS = {"seconds", "num_trained_on", "trained_on"}


def read_rows(path):
    with path.open(newline="") as file:
        return [{key: value for key, value in row.items() if key not in OTHERS} for row in csv.DictReader(file)]


def results(run):
    """Return what commands have left in a run, but for ``OTHERS``."""
    found = {}
    for path in sorted(run.rglob("*")):
        name = str(path.relative_to(run))
        if path.name == "scores.csv":
            found[name] = read_rows(path)
        elif path.suffix in (".csv", ".png"):
            found[name] = path.read_bytes()
        elif path.suffix == ".npz":
            found |= {f"{name}/{key}": (array.dtype, array.tobytes()) for key, array in np.load(path).items()}
        elif path.suffix == ".json":
            found[name] = {key: v for key, v in json.loads(path.read_text()).items() if key not in OTHERS}
        elif path.suffix == ".html":
            found[name] = path.read_text().replace("moved-", "")
    return found


# Works


OF_ANY = [
    ("sample", "--num", "9"),
    ("sample", "--num", "9", "--near", "3"),
    ("reconstruct", "--max_examples", "9"),
    ("encode",),
    ("interpolate", "--between", "0", "1", "--num", "3"),
    ("manifold", "--num", "3"),
    ("manifold", "--num", "3", "--dims", "2", "--near", "1"),
    ("evaluate", "--num_samples", "5"),
    ("evaluate", "--num_samples", "5", "--split", "validation", "--max_examples", "9"),
    ("score", "--num_samples", "5", "--max_examples", "9", "--level", "0.5"),
    ("report",),
]


def of_a_file(name):
    return [
        ("score", "--data", name, "--num_samples", "5", "--max_examples", "9", "--level", "0.5"),
        ("impute", "--data", name, "--max_examples", "9", *FILL, *([] if name == "table.csv" else ["--hide", "left"])),
        ("encode", "--data", name, "--max_examples", "9"),
        ("augment", "--data", name, "--max_examples", "9", "--times", "1"),
    ]


@pytest.mark.parametrize(
    ("kind", "command"),
    [
        *(("images", command) for command in [*OF_ANY, *of_a_file("digits.npz")]),
        ("images", ("impute", "--hide", "left", "--max_examples", "3", *FILL)),
        *(("table", command) for command in [*OF_ANY, *of_a_file("table.csv")]),
        ("table", ("impute", *FILL)),
        *(("classes", (*command, "--label", "3")) for command in OF_ANY if command[0] != "evaluate"),
        *((kind, ("sample", "--num", "10")) for kind in ("classes", "few labels")),
        *((kind, ("evaluate", "--num_samples", "5")) for kind in ("classes", "few labels")),
        ("few labels", ("score", "--label", "3", "--num_samples", "5", "--max_examples", "9", "--level", "0.5")),
        ("few labels", ("evaluate", "--label", "3", "--num_samples", "5", "--split", "validation")),
        ("classes", ("classify", "--data", "digits.npz", "--num_samples", "5", "--max_examples", "9")),
        ("few labels", ("classify", "--split", "validation", "--num_samples", "5")),
        ("few labels", ("report", "--no_check", "--label", "3")),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else value,
)
def test_commands_do_without_the_data_what_they_do_with_them(kind, command, runs):
    there, gone = runs(kind)
    for run in (there, gone):
        call(command[0], run, *command[1:])
    assert results(gone) == results(there)


def test_equations_are_checked_without_the_data(runs, capsys):
    outputs = []
    for run in runs("classes"):
        capsys.readouterr()
        call("check", run, "--label", "3")
        outputs.append(capsys.readouterr().out)
    assert outputs[0] == outputs[1]


def test_the_page_of_a_class_says_of_how_many_examples_the_figures_are(runs):
    for run in runs("classes"):
        call("report", run, "--label", "3", "--no_check")
        page = (run / "report.html").read_text()
        assert "320 examples of" in page
        assert "each of 40 examples" in page


def test_what_is_kept_is_the_beginning_of_each_split_with_all_its_labels(runs):
    for kind in KINDS:
        there, gone = runs(kind)
        dataset, some = run_data(there), some_data(gone, load(gone))
        for field in ("name", "shape", "levels", "pixels", "columns", "num_classes"):
            assert getattr(some, field) == getattr(dataset, field), field
        assert some.fingerprints() == dataset.fingerprints()


# Does not


@pytest.mark.parametrize("command", ["reconstruct", "encode", "interpolate", "evaluate"])
def test_training_data_are_not_among_what_is_kept(command, runs, capsys):
    _, gone = runs("images")
    more = ["--between", "0", "1"] if command == "interpolate" else []
    line = refused(capsys, command, gone, "--split", "train", "--max_examples", "5", *more)
    assert line == (
        f"error: {gone}: its data are not there: {gone / 'config.yaml'} names 'moved-digits.npz', but there is nothing "
        f"at {gone.cwd() / 'moved-digits.npz'}; bring them there, or correct the path, or ask for held-out data, which "
        "kept_data.npz keeps"
    )


def test_a_run_of_an_earlier_version_keeps_nothing(runs, tmp_path, capsys):
    there, gone = runs("table")
    keeping = shutil.copytree(there, tmp_path / "keeping" / "table")
    for run in (there, gone):
        (run / KEPT).unlink()
    summary = json.loads((there / "summary.json").read_text())
    del summary["num_examples"]
    (there / "summary.json").write_text(json.dumps(summary))
    for name in ("sample", "reconstruct", "report", "evaluate"):
        for run in (there, keeping):
            call(name, run, *(["--num_samples", "5"] if name == "evaluate" else []))
        line = refused(capsys, name, gone)
        assert f"{gone}: its data are not there: {gone / 'config.yaml'} names 'moved-table.csv'" in line
        assert "; bring them there, or correct the path" in line
    found = {name: what for name, what in results(keeping).items() if not name.startswith((KEPT, "summary"))}
    assert found == {name: what for name, what in results(there).items() if name != "summary.json"}


@pytest.fixture
def part(folder, tmp_path, monkeypatch):
    """A run on a table that keeps but the beginning of each split, with its data and without."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(kept, "MOST", 10_000)
    np.save("table.npy", np.random.default_rng(0).random((2000, 5)).astype(np.float32))
    train.main(["--data", "table.npy", "--likelihood", "Gaussian", *QUICK, "--run", "there"])
    assert (tmp_path / "there" / KEPT).stat().st_size <= 10_000
    return tmp_path / "there", without_data(shutil.copytree(tmp_path / "there", tmp_path / "gone"))


def test_no_more_is_kept_than_there_is_room_for(part, capsys):
    there, gone = part
    with np.load(there / KEPT) as arrays:
        count = len(arrays["test"])
    assert 50 < count < 200
    for run in part:
        call("evaluate", run, "--num_samples", "5", "--max_examples", str(count))
        call("sample", run, "--near", str(count - 1))
        call("report", run, "--no_check")
    pages = [results(run).pop("report.html") for run in part]
    assert [f"{n} test examples" in page for n, page in zip((200, count), pages, strict=True)] == [True, True]
    assert all("1,600 examples of" in page and "each of 200 examples" in page for page in pages)
    for name, *options in [
        ("evaluate", "--name", "all"), ("reconstruct",), ("encode", "--max_examples", str(count + 1)),
        ("interpolate", "--between", "0", str(count)), ("manifold", "--near", str(count)),
    ]:  # fmt: skip
        line = refused(capsys, name, gone, *options)
        assert f"bring them there, or correct the path, or ask for no more than the first {count} test examples" in line
        assert str(gone / "config.yaml") in line


def test_scores_are_against_the_held_out_data_that_are_kept(part, capsys):
    there, gone = part
    with np.load(there / KEPT) as arrays:
        count = len(arrays["test"])
    with pytest.warns(UserWarning, match=f"until then it is the first {count} test examples alone"):
        call("score", gone, "--data", "table.npy", "--num_samples", "5", "--max_examples", "9")
    assert json.loads((gone / "score/scores.json").read_text())["num_held_out"] == count
    call("score", there, "--data", "table.npy", "--num_samples", "5", "--max_examples", "9")
    assert json.loads((there / "score/scores.json").read_text())["num_held_out"] == 200


def test_data_too_large_to_keep_are_read_where_they_are(folder, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    run = tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr(kept, "MOST", 100)
        train.main([*KINDS["images"], *QUICK, "--run", str(run)])
    with np.load(run / KEPT) as arrays:
        assert len(arrays["test"]) == 0
    call("report", run, "--no_check")
    call("sample", without_data(run))
    assert "its data are not there" in refused(capsys, "report", run, "--overwrite")


def test_data_of_a_class_that_are_not_among_the_kept_are_read_where_they_are(runs, monkeypatch, capsys):
    there, gone = runs("classes")
    dataset = run_data(there)
    monkeypatch.setattr(kept, "TRAINING", 3)
    label = next(c for c in range(10) if c not in dataset.labels["train"][:3])
    for run in (there, gone):
        (run / KEPT).write_bytes(kept.as_bytes(dataset))
    assert len(some_data(there, load_run(there, label)).train) == (dataset.labels["train"] == label).sum()
    assert "its data are not there" in refused(capsys, "report", gone, "--label", str(label))


# A stranger's


def changed(**arrays):
    """Return a function that replaces arrays of the file, or by None removes them."""

    def change(path):
        with np.load(path) as file:
            new = dict(file) | arrays
        np.savez_compressed(path, **{name: array for name, array in new.items() if array is not None})

    return change


def facts(**changes):
    """Return a function that changes what the file says of itself."""

    def change(path):
        with np.load(path) as file:
            known = json.loads(file["facts"].item())
        changed(facts=np.array(json.dumps(known | changes).encode()))(path)

    return change


def value(name, number):
    """Return a function that puts a number into the first place of an array."""

    def change(path):
        with np.load(path) as file:
            array = file[name].astype(np.float32 if isinstance(number, float) else file[name].dtype)
        array.reshape(-1)[0] = number
        changed(**{name: array})(path)

    return change


def promising(path):
    """Write an array whose header promises more than a machine holds."""
    with zipfile.ZipFile(path, "w") as archive, archive.open("facts.npy", "w") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": (2**48,)})


BROKEN = {
    "nothing": lambda path: path.write_bytes(b""),
    "text": lambda path: path.write_text("mine"),
    "half": lambda path: path.write_bytes(path.read_bytes()[:1000]),
    "large": changed(more=np.random.default_rng(0).bytes(2**22)),
    "a folder": lambda path: (path.unlink(), path.mkdir()),
    "promising": promising,
    "without a split": changed(validation=None),
    "without labels of a split": changed(test_labels=None),
    "without labels": changed(train_labels=None, validation_labels=None, test_labels=None),
    "without facts": changed(facts=None),
    "objects": changed(test=np.array([{}] * 40, dtype=object)),
    "text as data": changed(test=np.full((40, 64), "1")),
    "dates": changed(test=np.zeros((40, 64), "M8[s]")),
    "complex": changed(test=np.zeros((40, 64), np.complex64)),
    "images": changed(test=np.zeros((40, 8, 8), np.uint8)),
    "other columns": changed(test=np.zeros((40, 63), np.uint8)),
    "a number": changed(test=np.array(1, np.uint8)),
    "nan": value("test", float("nan")),
    "nan in training data": value("train", float("nan")),
    "inf": value("train", float("inf")),
    "no pixel": value("validation", 2),
    "a label below": value("test_labels", -2),
    "a label above": value("train_labels", 10),
    "labels of reals": changed(test_labels=np.zeros(40)),
    "fewer labels": changed(test_labels=np.zeros(39, np.int64)),
    "no json": changed(facts=np.array(b"{")),
    "nested": changed(facts=np.array(b"[" * 10**5)),
    "a list": changed(facts=np.array(b"[]")),
    "several": changed(facts=np.array([b"{}", b"{}"])),
    "a long name": facts(name="a" * 2**23),
    "fewer columns": facts(columns=["a"]),
    "numbers as columns": facts(columns=list(range(64))),
    "one text as columns": facts(columns="a" * 64),
    "a number as columns": facts(columns=64),
    "no splits": facts(whole=3),
    "lists of splits": facts(whole=[["test"]]),
}


@pytest.mark.parametrize("how", BROKEN)
def test_what_a_stranger_keeps_is_refused_in_one_line(how, runs, capsys):
    _, gone = runs("classes")
    BROKEN[how](gone / KEPT)
    for name, *options in [("report", "--label", "3"), ("evaluate",), ("check", "--label", "3")]:
        line = refused(capsys, name, gone, *options)
        assert line.startswith(f"error: {gone / KEPT}: expected ")
        assert line.endswith("remove it") or how == "large"


def test_a_small_file_that_unpacks_to_a_large_one_is_not_unpacked(runs, capsys):
    _, gone = runs("images")
    changed(more=np.zeros(2**28, np.uint8))(gone / KEPT)
    assert (gone / KEPT).stat().st_size < kept.MOST
    assert "it unpacks to 268," in refused(capsys, "report", gone)


def test_classes_that_are_unknown_may_be_kept(runs):
    _, gone = runs("classes")
    value("test_labels", -1)(gone / KEPT)
    call("evaluate", gone, "--num_samples", "5")


def test_more_blanks_than_a_model_takes_are_refused(runs, capsys):
    _, table = runs("table")
    value("test", float("nan"))(table / KEPT)
    call("encode", table)
    value("test", float("inf"))(table / KEPT)
    assert "not finite" in refused(capsys, "encode", table, "--overwrite")
