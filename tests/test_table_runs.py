"""A table of any columns: what training and all commands make of it, also when its file is gone."""

import json
import shutil

import numpy as np
import pandas
import pytest
import torch

import pyro_vae
from pyro_vae.data import from_frame, load
from tests.commands import call, refused

RNG = np.random.default_rng(0)
N = 200


def people():
    """A table with a column of each kind, as people have them."""
    age = RNG.integers(18, 90, N)
    income = np.round(np.exp(7 + 0.02 * age + 0.3 * RNG.normal(size=N)), 2)
    day = pandas.to_datetime("2020-01-01") + pandas.to_timedelta(RNG.integers(0, 900, N), unit="D")
    frame = pandas.DataFrame(
        {
            "id": [f"P{row:04}" for row in range(N)],
            "age": age,
            "income": [f"{value:.2f}".replace(".", ",") for value in income],
            "sex": np.where(RNG.random(N) < 0.5, "male", "female"),
            "city": RNG.choice(["Oslo", "Rome", "Bern", "Graz"], N, p=[0.5, 0.3, 0.1, 0.1]),
            "day": day.strftime("%d/%m/%Y"),
            "unit": "kg",
        }
    )
    frame.loc[RNG.random(N) < 0.1, "income"] = "?"
    frame.loc[RNG.random(N) < 0.1, "city"] = "?"
    return frame


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tables")
    people().to_csv(folder / "people.csv", sep=";", index=False)
    call("train", "--data", folder / "people.csv", "--epochs", 3, "--latent_dim", 2, "--run", folder / "run")
    return folder


@pytest.fixture
def folder(trained, tmp_path, monkeypatch):
    """The run and its table, which may be moved away."""
    folder = shutil.copytree(trained, tmp_path / "tables")
    config = folder / "run" / "config.yaml"
    config.write_text(config.read_text().replace(str(trained), str(folder)))
    monkeypatch.chdir(folder)
    return folder


def read(path):
    return pandas.read_csv(path, sep=";", dtype=str, keep_default_na=False)


KEPT = ["age", "income", "sex", "city", "day", "unit"]  # all but the identifier


def like_people(frame, blanks=False):
    """Whether cells are written as in the table."""
    assert frame["age"].str.fullmatch(r"\d{1,3}").all()
    assert frame["income"].str.fullmatch(r"\d+,\d\d" + r"|\?" * blanks).all()
    assert set(frame["sex"]) <= {"male", "female"}
    assert set(frame["city"]) <= {"Oslo", "Rome", "Bern", "Graz", *(["?"] * blanks)}
    assert pandas.to_datetime(frame["day"], format="%d/%m/%Y").notna().all()
    assert set(frame["unit"]) == {"kg"}


def test_what_the_columns_are_is_shown_and_kept(trained, tmp_path, capsys):
    call("train", "--data", trained / "people.csv", "--epochs", 1, "--run", tmp_path / "run")
    out = capsys.readouterr().out
    lines = {line.removeprefix("columns").split()[0]: line for line in out.splitlines()[1:8]}
    assert "identifier" in lines["id"]
    assert "category" in lines["city"]
    assert "4: Bern, Graz, Oslo, Rome" in lines["city"]
    table = pyro_vae.load(tmp_path / "run").config.table
    assert [column.kind for column in table.columns] == [
        "identifier", "count", "number", "yes/no", "category", "date", "constant"
    ]  # fmt: skip


# Some versions of torch import it for any layer.
OPENED_WITHOUT_COMPILER = """
import sys, torch, pyro_vae
with pyro_vae.machine.memory.at_most(2**20):
    torch.nn.Linear(2, 2)
if "sympy" not in sys.modules:
    pyro_vae.load("plain")
    assert "sympy" not in sys.modules
"""


def test_opening_a_table_does_not_import_the_compiler_of_torch(folder, run_code):
    """Counting the memory of a model would, by some operations on tensors, and take a second for it."""
    own = ["--prior", "StandardNormal", "--epochs", 1, "--latent_dim", 2]  # flows can't do without
    call("train", "--data", "people.csv", *own, "--run", "plain")
    ended = run_code(OPENED_WITHOUT_COMPILER, folder)
    assert ended.returncode == 0, ended.stderr


def test_samples_are_rows_like_those_of_the_table(folder):
    (folder / "people.csv").unlink()
    call("sample", "run", "--num", 500)
    made = read("run/sample/samples.csv")
    assert list(made) == KEPT
    like_people(made)
    own = np.load("run/sample/samples.npz")["x"]
    assert own[:, 0].round(3).tolist() == made["age"].astype(float).tolist()  # in the table's own units


def test_blanks_are_filled_and_all_else_stays_to_the_letter(folder):
    before = read("people.csv")
    call("impute", "run", "--data", "people.csv", "--num_samples", 20, "--num_starts", 1, "--steps", 2)
    for name in ("completed-1", "completed-2", "mean"):
        after = read(f"run/impute/{name}.csv")
        assert list(after) == list(before)
        like_people(after)
        blank = before == "?"
        assert blank.to_numpy().sum() > 20
        assert (after.where(~blank, "?") == before).all(axis=None)


def test_variations_are_rows_like_those_of_the_table(folder):
    before = read("people.csv")
    call("augment", "run", "--data", "people.csv", "--times", 2)
    after = read("run/augment/augmented.csv")
    assert (after[:N] == before).all(axis=None)
    assert len(after) == 3 * N
    like_people(after[N:], blanks=True)


def test_scores_stand_beside_the_users_own_columns(folder):
    call("score", "run", "--data", "people.csv", "--num_samples", 20, "--max_examples", 30)
    scores = pandas.read_csv("run/score/scores.csv", dtype=str, keep_default_na=False)
    before = read("people.csv")[:30]
    assert (scores[list(before)] == before).all(axis=None)
    assert json.loads((folder / "run/score/scores.json").read_text())["num_trained_on"] > 10


@pytest.mark.parametrize(
    "command",
    [
        ("reconstruct",), ("encode",), ("interpolate", "--between", 0, 1), ("manifold",), ("manifold", "--dims", 2),
        ("evaluate", "--num_samples", 20), ("score", "--num_samples", 20), ("report",), ("check",),
        ("impute", "--num_samples", 20, "--num_starts", 1, "--steps", 2),
    ],
    ids=lambda command: " ".join(map(str, command)),
)  # fmt: skip
@pytest.mark.pictures
def test_commands_work_when_the_table_is_gone(command, folder, capsys):
    (folder / "people.csv").unlink()
    if command[0] == "score":
        command = (*command, "--level", "0.5")
    call(command[0], "run", *command[1:])
    assert "error" not in capsys.readouterr().err


def test_a_run_goes_on(folder):
    call("train", "--resume", "run", "--epochs", 4)


def test_columns_may_be_said_to_be_something_else(trained, tmp_path):
    data = load(str(trained / "people.csv"), as_numbers=False, schema={"age": "category", "city": "text"})
    kinds = {column.name: column.kind for column in data.table.columns}
    assert kinds["age"] == "category"
    assert kinds["city"] == "text"
    with pytest.raises(ValueError, match="schema: expected the name of a column"):
        load(str(trained / "people.csv"), as_numbers=False, schema={"ages": "category"})
    with pytest.raises(ValueError, match="schema: expected a table"):
        load("digits", as_numbers=False, schema={"age": "count"})


def test_a_column_of_names_may_be_the_condition(trained, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    call("train", "--data", trained / "people.csv", "--condition", "sex", "--epochs", 1, "--run", "run")
    call("sample", "run", "--label", "female", "--num", 20)
    made = read("run/sample/samples.csv")
    assert set(made["sex"]) == {"female"}
    call("score", "run", "--label", "male", "--data", trained / "people.csv", "--num_samples", 5, "--level", 0.5)
    scores = pandas.read_csv("run/score/scores.csv", dtype=str)
    assert set(scores["sex"]) == {"male"}


def test_a_data_frame_goes_in_and_comes_out():
    frame = people()
    frame["income"] = pandas.to_numeric(frame["income"].str.replace(",", "."), errors="coerce")
    frame["day"] = pandas.to_datetime(frame["day"], dayfirst=True)
    frame["city"] = frame["city"].astype("category")
    data = from_frame(frame)
    torch.manual_seed(0)
    vae = pyro_vae.build(data.shape, table=data.table, missing=True, latent_dim=2)
    pyro_vae.fit(vae, data, epochs=1, progress=False)
    made = vae.config.table.decode(vae.sample(30))
    assert made.dtypes.to_dict() == frame[KEPT].dtypes.to_dict()
    found = pyro_vae.log_evidence(vae, frame, num_samples=5, seed=0)
    again = pyro_vae.log_evidence(vae, data.table.encode(frame), num_samples=5, seed=0)
    assert torch.equal(found.log_evidence, again.log_evidence)


def test_a_run_is_trained_on_what_it_says(trained):
    """The same table, read again, is the same data."""
    data = load(str(trained / "people.csv"), as_numbers=False)
    summary = json.loads((trained / "run" / "summary.json").read_text())
    assert summary["data_fingerprint"] == data.fingerprints()


def test_a_file_says_what_columns_are_and_others_are_left_out(trained, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copy(trained / "people.csv", "people.csv")
    (tmp_path / "kinds.yaml").write_text("age: category\ncity: text\nsex: yes/no\n")
    asked = ("--columns", "kinds.yaml", "--schema", "city=category", "--drop", "income,unit", "--rows", "20:120")
    call("train", "--data", "people.csv", *asked, "--epochs", 1, "--run", "run")
    (tmp_path / "kinds.yaml").unlink()  # what it said is in the run
    table = pyro_vae.load("run").config.table
    assert [column.kind for column in table.columns] == [
        "identifier", "category", "dropped", "yes/no", "category", "date", "dropped"
    ]  # fmt: skip
    frame = read("people.csv")
    assert set(table.columns[1].categories) == set(frame["age"][20:120])
    call("sample", "run", "--num", 5)
    assert list(read("run/sample/samples.csv")) == ["age", "sex", "city", "day"]
    call("evaluate", "run", "--split", "train", "--num_samples", 5)  # the same rows again
    call("train", "--resume", "run", "--epochs", 2)
    assert json.loads((tmp_path / "run/summary.json").read_text())["num_examples"]["train"] == 80
    known = frame["age"].isin(table.columns[1].categories) & frame.ne("?").all(axis=1)
    frame[known].assign(income=7).replace({"city": {"Oslo": "?"}}).to_csv("blanks.csv", sep=";", index=False)
    call("impute", "run", "--data", "blanks.csv", "--num_samples", 20, "--num_starts", 1, "--steps", 2)
    after = read("run/impute/mean.csv")
    assert set(after["income"]) == {"7"}  # what is dropped is neither looked at nor changed
    assert "?" not in set(after["city"])


def test_what_is_asked_of_a_table_in_python_is_the_same(trained, tmp_path):
    frame = people()
    (tmp_path / "kinds.yaml").write_text("age: category")
    asked = {
        "columns": str(tmp_path / "kinds.yaml"),
        "drop": ["id", "day", "income"],
        "rows": 50,
        "schema": "city=text",
    }
    in_memory = from_frame(frame, **asked)
    in_a_file = load(str(trained / "people.csv"), as_numbers=False, **asked)
    for data in (in_memory, in_a_file):
        assert sum(len(x) for x in (data.train, data.validation, data.test)) == 50
        assert [column.kind for column in data.table.columns] == [
            "dropped", "category", "dropped", "yes/no", "text", "dropped", "constant"
        ]  # fmt: skip


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"drop": "ages"}, "schema: expected the name of a column, one of .*, got 'ages'"),
        ({"schema": "age"}, "schema: expected NAME=KIND, such as age=count,zip=category, got 'age'"),
        (
            {"columns": "kinds.yaml"},
            "columns: kinds.yaml: expected a kind for each name, both text, .*, got True: 'count'",
        ),
        ({"columns": "list.yaml"}, "list.yaml: expected a YAML mapping, got list"),
        ({"rows": "x"}, "rows: expected a number, such as 10000, or START:END, such as 0:5000, got 'x'"),
        ({"rows": "-5:"}, "rows: expected a number"),
        ({"rows": "500:900"}, "rows: expected some of the 200 rows of the table, which are from 0 on, got '500:900'"),
        ({"rows": 0}, "rows: expected some of the 200 rows"),
        ({"rows": True}, "rows: expected a number"),
    ],
)
def test_what_can_not_be_asked_of_a_table_is_one_line(asked, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "kinds.yaml").write_text("yes: count")
    (tmp_path / "list.yaml").write_text("- age")
    with pytest.raises(ValueError, match=message):
        from_frame(people(), **asked)


@pytest.mark.parametrize("asked", [{"drop": "a"}, {"rows": 5}, {"columns": "a.yaml"}])
def test_only_of_tables_columns_and_rows_are_asked(asked):
    with pytest.raises(ValueError, match=f"{next(iter(asked))}: expected a table"):
        load("digits", **asked)


def test_blanks_of_a_table_of_yes_and_no_stay_blanks(tmp_path):
    rows = RNG.choice(["yes", "no", "?"], (200, 3), p=[0.5, 0.3, 0.2])
    pandas.DataFrame(rows, columns=list("abc")).to_csv(tmp_path / "votes.csv", index=False)
    dataset = pyro_vae.data.load(str(tmp_path / "votes.csv"), as_numbers=False)
    known = torch.cat([dataset.train, dataset.validation, dataset.test])
    assert (dataset.pixels, dataset.draw, int(known.isnan().sum())) == ("raw", None, int((rows == "?").sum()))
    call("train", "--data", tmp_path / "votes.csv", "--epochs", 1, "--latent_dim", 1, "--run", tmp_path / "run")
    assert pyro_vae.load(tmp_path / "run").missing


@pytest.mark.parametrize("option", ["--pixels=levels", "--levels=16"])
def test_a_table_has_no_pixels(option, folder, capsys):
    assert "a table has neither" in refused(capsys, "train", "--data", "people.csv", option)


def test_a_file_that_is_written_in_another_way_is_read_and_written_in_its_own(folder):
    other = read("people.csv")
    other["income"] = other["income"].str.replace(",", ".")
    other.to_csv("other.csv", index=False, encoding="utf-16")
    vae = pyro_vae.load("run")
    x, same = (pyro_vae.data.read_table(name, vae.config.table).x for name in ("people.csv", "other.csv"))
    torch.testing.assert_close(x, same, rtol=0, atol=0, equal_nan=True)
    call("impute", "run", "--data", "other.csv", "--num_samples", 20, "--num_starts", 1, "--steps", 2)
    made = pandas.read_csv("run/impute/completed-1.csv", encoding="utf-16", dtype=str, keep_default_na=False)
    assert made["income"].str.fullmatch(r"\d+\.\d\d").all()
    blank = other == "?"
    assert (made.where(~blank, "?") == other).all(axis=None)


def test_a_mask_is_of_columns_by_their_names(folder):
    names = ["city", "day", "id", "age", "income", "sex", "unit"]
    pandas.DataFrame([[1, 0, 0, 0, 0, 0, 0]], columns=names).to_csv("mask.csv", index=False)
    quick = ["--num_samples", 20, "--num_starts", 1, "--steps", 2, "--max_examples", 20]
    call("impute", "run", "--data", "people.csv", "--mask", "mask.csv", *quick)
    before, after = read("people.csv")[:20], read("run/impute/completed-1.csv")
    assert (before[["age", "sex", "day"]] == after[["age", "sex", "day"]]).all(axis=None)
    assert (before["city"] != after["city"]).any()


def test_a_mask_without_a_column_is_refused(folder, capsys):
    pandas.DataFrame([[1, 0]], columns=["city", "age"]).to_csv("mask.csv", index=False)
    line = refused(capsys, "impute", "run", "--data", "people.csv", "--mask", "mask.csv")
    assert "expected a column for each of the table's, but it has no 'income'" in line


def test_variations_have_the_class_of_their_originals(folder):
    options = ["--condition", "sex", "--epochs", 1, "--latent_dim", 2]
    call("train", "--data", "people.csv", *options, "--run", "labelled")
    call("augment", "labelled", "--data", "people.csv", "--times", 2, "--label", "male")
    made, arrays = read("labelled/augment/augmented.csv"), np.load("labelled/augment/augmented.npz")
    assert set(made["sex"]) == set(arrays["y"]) == {"male"}
    assert len(made) == 3 * (read("people.csv")["sex"] == "male").sum()


def test_the_picture_of_samples_is_beside_all_rows(folder, monkeypatch):
    """Those without any blank may be of a kind of their own, as the nests of penguins with a comment are."""
    shown = {}

    def draw(real, other, path, **options):
        shown.update(options, real=real)
        path.write_bytes(b"")

    monkeypatch.setattr("pyro_vae.plotting.columns_compared", draw)
    call("sample", "run", "--num", 5)
    train = load("people.csv", as_numbers=False).train
    assert train.isnan().any()
    assert (shown["real"].shape, int(shown["real"].isnan().sum())) == (train.shape, int(train.isnan().sum()))
    said = dict(zip(shown["names"], map(shown["words"].get, range(len(shown["names"]))), strict=True))
    assert (said["age"], said["sex"]) == (None, ("female", "male"))
    assert said["day"](18262.0) == "01/01/2020"
