"""Rows of a table given some of their cells, or where something holds, are draws from the exact conditional."""

import itertools
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas
import pytest
import torch
from scipy import stats

import pyro_vae
from pyro_vae.data import from_frame
from pyro_vae.data.tables import Column, Form, Schema, find_schema
from pyro_vae.data.tables.conditions import as_row, given_cells, read_conditions, terms
from pyro_vae.inference import sample, sample_given
from tests.commands import call, refused
from tests.test_impute import conditional, linear_vae
from tests.test_table_runs import KEPT, people, read

FAST = ["--num_samples", 100, "--num_starts", 1, "--steps", 5]


def gaussian_table():
    """A linear-Gaussian VAE of a table of five numbers, each in a unit of its own; its closed forms; its schema."""
    vae, exact = linear_vae("poor")
    columns = [Column(name, "number", "float64", loc=10.0 * d, scale=0.5 + d) for d, name in enumerate("abcde")]
    table = Schema(tuple(columns))
    vae.config = replace(vae.config, table=table)
    return vae, exact, table


def standard_errors(made):
    """The standard error of a mean of these rows, in standard deviations: several may share the latents of a weight."""
    weights = 0.0 if made.evidence is None else 1 / (made.evidence.ess.item() * made.tried / 10_000)
    return (1 / len(made.x) + made.tried / made.met * weights) ** 0.5


def test_rows_given_cells_are_draws_from_the_exact_conditional():
    vae, exact, table = gaussian_table()
    made = sample_given(vae, 20_000, {"a": 1.3, "d": "26.5"}, seed=0)
    assert (table.decode(made.x)[["a", "d"]] == [1.3, 26.5]).all(axis=None)
    row = as_row({"a": 1.3, "d": "26.5"}, table)
    mean, covariance = conditional(exact, row)
    drawn, variance, se = made.x[:, row.isnan()], covariance.diagonal(), standard_errors(made)
    assert ((drawn.mean(0) - mean).abs() < 4 * se * variance.sqrt()).all()
    spread = (covariance.square() + variance[:, None] * variance).sqrt()  # of a Gaussian sample covariance
    assert ((drawn.T.cov() - covariance).abs() < 4 * se * spread).all()
    seen = ~row.isnan()
    observed = torch.distributions.MultivariateNormal(
        exact.bias[seen], (exact.weight @ exact.weight.T + exact.scale.square().diag())[seen][:, seen]
    )
    assert made.evidence.log_evidence.item() == pytest.approx(observed.log_prob(row[seen]).item(), abs=0.01)


@pytest.mark.parametrize("cells", [{}, {"a": 1.3}], ids=["all", "given"])
def test_rows_where_something_holds_are_draws_from_the_exact_conditional(cells):
    vae, exact, table = gaussian_table()
    made = sample_given(vae, 5000, cells, "c>=21.5", seed=1)
    assert (table.in_units(made.x)[:, 2] >= 21.5).all()
    row = as_row(cells, table)
    mean, covariance = conditional(exact, row)
    c = 2 - len(cells)  # among the columns that are not given
    sd = covariance[c, c].sqrt()
    low = ((21.5 - 20) / 2.5 - mean[c]) / sd
    p = stats.norm.sf(low)
    found, error = made.probability
    assert abs(found - p) < 4 * max(error, standard_errors(made) * p)
    truncated = stats.truncnorm(low, np.inf)
    shift = covariance[:, c] / sd * truncated.mean()  # of the others, by regression on c
    left = covariance.diagonal() - (covariance[:, c] / sd).square() * (1 - truncated.var())
    error = 4 * standard_errors(made) * left.sqrt()
    assert ((made.x[:, row.isnan()].mean(0) - mean - shift).abs() < error).all()


def discrete():
    """A VAE of a yes/no, an ordinal and a category with one latent, and the probability of each row by quadrature."""
    frame = pandas.DataFrame(
        itertools.product(["no", "yes"], ["a", "b", "c"], ["1", "2", "3"]), columns=["b", "c", "g"]
    )
    table = find_schema(frame, wanted={"g": "ordinal:1<2<3", "c": "category"})
    torch.manual_seed(2)
    vae = pyro_vae.build((3,), table=table, latent_dim=1, network="mlp", hidden_dims=[], missing=True).double()
    x = table.encode(frame, dtype=torch.float64)
    vae.initialize(x)
    vae.decoder[0].weight.data.normal_()
    z, weights = np.polynomial.hermite_e.hermegauss(60)
    with torch.no_grad():
        raw = vae.decoder(torch.from_numpy(z)[:, None])
        log_probs = vae.likelihood(raw[:, None]).log_prob(x)
    frame["p"] = (log_probs.exp().T @ torch.from_numpy(weights / weights.sum())).numpy()
    assert frame["p"].sum() == pytest.approx(1)
    return vae, table, frame


@pytest.mark.parametrize(
    ("cells", "where", "agrees"),
    [
        ({"b": "yes"}, "", lambda f: f.b == "yes"),
        ({"g": "3", "b": "no"}, "", lambda f: (f.g == "3") & (f.b == "no")),
        ({}, "c in {a,c}, g>=2", lambda f: f.c.isin(["a", "c"]) & (f.g >= "2")),
        ({"c": "b"}, "g!=2", lambda f: (f.c == "b") & (f.g != "2")),
    ],
    ids=["given", "two", "where", "both"],
)
def test_categories_come_as_often_as_their_conditional_probability_says(cells, where, agrees):
    vae, table, frame = discrete()
    made = sample_given(vae, 8000, cells, where, seed=3)
    counts = table.decode(made.x).value_counts()
    wanted = frame.p.where(agrees(frame), 0) / frame.p[agrees(frame)].sum()
    for row, p in zip(frame[["b", "c", "g"]].itertuples(index=False, name=None), wanted, strict=True):
        share = counts.get(tuple(dict(zip("bcg", row, strict=True))[name] for name in counts.index.names), 0) / 8000
        assert abs(share - p) <= 4 * standard_errors(made) * np.sqrt(p * (1 - p)), row
    assert made.probability[0] == pytest.approx(_met(frame, cells, agrees), abs=0.02)


def _met(frame, cells, agrees):
    of_given = (frame[list(cells)] == pandas.Series(cells)).all(axis=1)
    return frame.p[agrees(frame)].sum() / frame.p[of_given].sum()


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("given")
    people().to_csv(folder / "people.csv", sep=";", index=False)
    call("train", "--data", folder / "people.csv", "--epochs", 5, "--latent_dim", 2, "--run", folder / "run")
    return folder


@pytest.fixture
def run(trained, tmp_path, monkeypatch):
    """The run, in a folder where results may go."""
    monkeypatch.chdir(tmp_path)
    return trained / "run"


def test_rows_where_something_holds_are_those_of_all_rows_for_which_it_does(run):
    vae = pyro_vae.load(run)
    table = vae.config.table
    every = table.decode(sample(vae, 60_000, seed=1).x)
    wanted = every[(every.age.astype(int) >= 60) & (every.city != "Oslo")]
    made = table.decode(sample_given(vae, 8000, where="age>=60, city!=Oslo", seed=2).x)
    for column, number in {
        "age": lambda cells: cells.astype(float),
        "income": lambda cells: cells.str.replace(",", ".").astype(float) > 3000,
        "sex": lambda cells: cells == "male",
        "city": lambda cells: cells == "Rome",
        "day": lambda cells: pandas.to_datetime(cells, format="%d/%m/%Y").map(pandas.Timestamp.toordinal),
    }.items():
        a, b = (number(frame[column]) for frame in (wanted, made))
        assert abs(a.mean() - b.mean()) < 4 * np.sqrt(a.var() / len(a) + b.var() / len(b)), column


CELLS = {"age": "40", "income": "1234,50", "sex": "female", "city": "Rome", "day": "01/02/2021"}


@pytest.mark.parametrize("name", CELLS)
def test_a_cell_that_is_given_comes_back_to_the_letter(name, run):
    call("sample", run, "--given", f"{name}={CELLS[name]}", "--num", 30, "--out", "made", *FAST)
    made = read("made/samples.csv")
    assert list(made) == KEPT
    assert made.income.str.fullmatch(r"-?\d+,\d\d").all()
    assert set(made[name]) == {CELLS[name]}
    assert len(made.drop(columns=name).drop_duplicates()) > 20
    assert len(np.load("made/samples.npz")["x"]) == 30


def test_cells_and_conditions_may_be_many(run, capsys):
    asked = ["--given", "sex=female, income=1234,5", "--given", "city=Rome", "--where", "age>=60,day<01/02/2021"]
    call("sample", run, *asked, "--where", "age!=70", "--num", 20, "--out", "made", *FAST)
    made = read("made/samples.csv")
    assert set(made.sex + made.city + made.income) == {"femaleRome1234,50"}
    assert (made.age.astype(int) >= 60).all()
    assert "70" not in set(made.age)
    assert (pandas.to_datetime(made.day, format="%d/%m/%Y") < "2021-02-01").all()
    out = capsys.readouterr().out
    assert "20 draws of P(row | sex=female, income=1234,5, city=Rome, age>=60,day<01/02/2021,age!=70)" in out
    assert "given       log P(given) -" in out
    assert " % of 10,000 draws" in out


@pytest.mark.pictures
def test_rows_are_drawn_beside_the_data(run):
    call("sample", run, "--given", "sex=male", "--out", "made", *FAST)
    assert Path("made/samples.png").stat().st_size > 10_000


def test_a_seed_gives_the_same_rows_again(run):
    vae = pyro_vae.load(run)
    one, again, other = (sample_given(vae, 9, {"age": 40}, "sex=male", steps=5, seed=seed).x for seed in (0, 0, 1))
    assert torch.equal(one, again)
    assert not torch.equal(one, other)


def test_all_cells_may_be_given(run):
    vae = pyro_vae.load(run)
    made = sample_given(vae, 3, CELLS, steps=5, seed=0)
    rows = vae.config.table.decode(made.x)
    assert (rows[list(CELLS)] == pandas.Series(CELLS)).all(axis=None)


def test_digits_beyond_those_of_32_bits_come_back():
    values = 1e6 + 1e5 * np.random.default_rng(0).normal(size=200)
    data = from_frame(pandas.DataFrame({"a": [f"{value:.2f}" for value in values], "b": values.round() % 7}))
    torch.manual_seed(0)
    vae = pyro_vae.build(data.shape, table=data.table, latent_dim=1)
    vae.initialize(data.train)
    made = sample_given(vae, 5, {"a": "1234567.89"}, steps=5, seed=0)
    assert set(data.table.decode(made.x).a) == {"1234567.89"}


def test_values_may_be_of_the_types_of_a_data_frame():
    rng = np.random.default_rng(0)
    frame = pandas.DataFrame(
        {
            "age": rng.integers(0, 90, 100),
            "day": pandas.to_datetime("2020-01-01") + pandas.to_timedelta(rng.integers(0, 99, 100), unit="D"),
            "ill": rng.random(100) < 0.5,
            "city": pandas.Categorical(rng.choice(["Oslo", "Rome", "Bern"], 100)),
            "a": rng.normal(size=100),
        }
    )
    data = from_frame(frame)
    torch.manual_seed(0)
    vae = pyro_vae.build(data.shape, table=data.table, latent_dim=1)
    vae.initialize(data.train)
    cells = {"age": np.int64(40), "day": pandas.Timestamp("2020-02-03"), "ill": True, "city": "Rome"}
    for given in (cells, {name: str(value)[:10] for name, value in cells.items()}):
        made = data.table.decode(sample_given(vae, 5, given, "a>0", steps=5, seed=0).x)
        assert made.dtypes.to_dict() == frame.dtypes.to_dict()
        assert (made[list(cells)] == pandas.Series(cells)).all(axis=None)
        assert (made.a > 0).all()


FRAME = people()
TABLE = find_schema(FRAME, form=Form("csv", separator=";", decimal=","))
AGE = FRAME.age.astype(int)
INCOME = pandas.to_numeric(FRAME.income.str.replace(",", "."), errors="coerce")


@pytest.mark.parametrize(
    ("where", "holds"),
    [
        ("age>=60", AGE >= 60),
        ("age > 59,5", AGE > 59),
        ("age<=60", AGE <= 60),
        ("age<=59,5", AGE <= 59),
        ("age=60", AGE == 60),
        ("age==60", AGE == 60),
        ("age!=60", AGE != 60),
        ("income<2345,67", INCOME < 2345.67),
        (f"income={FRAME.income.min()}", FRAME.income == FRAME.income.min()),
        ("sex=male", FRAME.sex == "male"),
        ("sex!=male,age>30", (FRAME.sex != "male") & (AGE > 30)),
        ("city in {Rome, Bern}", FRAME.city.isin(["Rome", "Bern"])),
        ("day>=01/12/2021", pandas.to_datetime(FRAME.day, dayfirst=True) >= "2021-12-01"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)  # fmt: skip
def test_a_condition_holds_of_cells_as_they_are_written(where, holds):
    x = TABLE.encode(FRAME)
    found = torch.stack([condition.holds(x) for condition in read_conditions(where, TABLE)]).all(0).numpy()
    assert 0 < holds.sum() < len(holds)
    assert (found == holds).all()


def test_a_condition_looks_at_what_is_written_of_a_number():
    column = Column("a", "number", "str", loc=0.0, scale=1e5, format=".2f")
    (below,) = read_conditions("a<1000", Schema((column,)))
    assert below.holds(torch.tensor([[999.998, 999.99, 1000.004]], dtype=torch.float64).T / 1e5).tolist() == [
        False, True, False
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "split"),
    [
        ("a=1,b>2", ["a = 1", "b > 2"]),
        (" a >= 1 , b in {x,y}, c!=z", ["a >= 1", "b in {x,y}", "c != z"]),
        ("a=12,50,b=Washington, DC,c=3", ["a = 12,50", "b = Washington, DC", "c = 3"]),
        ("a=>50K,b=<=50K", ["a = >50K", "b = <=50K"]),
        ('a=say "yes"', ['a = say "yes"']),
        ("x, y=1,a=2", ["x, y = 1", "a = 2"]),
        ("p<0.05=yes,a<2", ["p<0.05 = yes", "a < 2"]),
        ("min in {1,2}", ["min in {1,2}"]),
    ],
)
def test_commas_are_between_comparisons_where_a_name_and_a_sign_follow(text, split):
    assert [" ".join(term) for term in terms("where", text, ["a", "b", "c", "x, y", "p<0.05"])] == split


def test_names_of_categories_may_have_commas():
    column = Column("city", "category", "str", categories=("Bern", "DC", "Washington, DC"))
    (condition,) = read_conditions("city in {Washington, DC, Bern}", Schema((column,)))
    assert condition.values == (2, 0)


@pytest.mark.parametrize(
    ("option", "asked", "words"),
    [
        ("given", "agee=40", "given: agee=40: expected one of the columns age, income, day, sex, city, got 'agee'"),
        ("where", "sex=male,agee>4", "where: agee>4: expected one of the columns"),
        ("given", "id=P0001", "got 'id' (identifier: "),
        ("given", "unit=kg", "got 'unit' (constant: all values are 'kg')"),
        ("given", "sex=man", "given: sex=man: expected one of female, male, got 'man'"),
        ("where", "city in {Rome,Paris}", "expected one of Bern, Graz, Oslo, Rome, got 'Paris'"),
        ("given", "age=old", "expected numbers of the column's size with decimals after a comma, got 'old'"),
        ("given", "age=1e30", "expected numbers of the column's size with decimals after a comma, got '1e30'"),
        ("given", "age=40,5", "given: age=40,5: expected whole numbers from 0 up"),
        ("given", "age=-1", "given: age=-1: expected whole numbers from 0 up"),
        ("given", "income=?", "got '?'"),
        ("given", "day=2021-02-01", "expected dates written %d/%m/%Y, got '2021-02-01'"),
        ("given", "age>40", "given: age>40: expected age=VALUE; other comparisons belong to where"),
        ("given", "age=40,age=50", "given: age=50: age=40 is given already"),
        ("given", "age", "given: expected a column, a sign and a value, such as age=40,sex=female, got 'age'"),
        ("where", "age>", "where: expected a column, a sign and a value"),
        ("where", "sex>male", "where: sex>male: expected =, != or in {a,b}, since the values of sex have no order"),
        ("where", "age in {1,2}", "where: age in {1,2}: expected {a,b} of categories after in"),
    ],
)
def test_what_no_row_can_be_is_one_clear_line(option, asked, words, run, capsys):
    assert words in refused(capsys, "sample", run, f"--{option}", asked, "--out", "made")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--given", "age=40", "--where", "age>50"], "where: age>50 does not hold where age is as given"),
        (["--given", "age=40", "--temperature", 2], "--temperature: --given and --where draw rows of P(row"),
        (["--where", "age>40", "--near", 2], "--near: --given and --where draw"),
        (["--where", "age>40", "--mean"], "--mean: --given and --where draw"),
        (["--where", "age>40", "--steps", 2], "--steps belongs to --given"),
        (["--given", "age=40", "--max_draws", 9], "--max_draws belongs to --where"),
        (["--given", ""], "--given: expected a column, a sign and a value, such as age=40, got nothing"),
        (["--given", "age=40", "--num_starts", 0], "num_starts must be a whole number of at least 1"),
    ],
)
def test_options_that_do_not_go_together_are_refused(options, words, run, capsys):
    assert words in refused(capsys, "sample", run, *options, "--out", "made")


def test_a_condition_that_is_hardly_ever_met_is_given_up(run, capsys):
    options = ["--num", 500, "--max_draws", 10_000, "--out", "made"]
    line = refused(capsys, "sample", run, "--where", "age=40,sex=male,city=Graz", *options)
    assert "where: expected 500 rows, but of 10,000 draws" in line
    assert "whose probability is about 0.0" in line
    assert "raise max_draws to " in line
    line = refused(capsys, "sample", run, "--where", "income=1234,56", *options)
    assert "of 10,000 draws 0 met income=1234,56, whose probability is below 0.0003 (at 95 %)" in line


def test_how_far_it_is_is_told(run):
    seen = []
    vae = pyro_vae.load(run)
    sample_given(vae, 3000, where="age>85", progress=lambda done, total: seen.append(done / total), seed=0)
    assert len(seen) > 2
    assert seen == sorted(seen)
    assert seen[-1] == 1


def test_what_is_far_out_is_said(run, capsys):
    call("sample", run, "--given", "age=50000", "--num", 20, "--out", "made", *FAST)
    out = capsys.readouterr().out
    assert "            too high: the rows may be too alike; try more --num_samples, or more --num_starts" in out
    assert "implausible age: far beyond draws from the model" in out
    call("sample", run, "--given", "age=50", "--num", 20, "--out", "made", "--overwrite", "--num_samples", 4000)
    out = capsys.readouterr().out
    assert "too high" not in out
    assert "implausible" not in out


def test_a_cell_may_name_the_class_of_a_conditional_run(trained, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    call("train", "--data", trained / "people.csv", "--condition", "sex", "--epochs", 1, "--run", "run")
    call("sample", "run", "--label", "female", "--given", "age=40", "--num", 20, *FAST)
    by_label = read("run/sample/samples.csv")
    assert set(by_label.sex + by_label.age) == {"female40"}
    call("sample", "run", "--given", "sex=female,age=40", "--num", 20, "--overwrite", *FAST)
    assert by_label.equals(read("run/sample/samples.csv"))
    call("sample", "run", "--given", "sex=male", "--num", 20, "--overwrite")
    assert set(read("run/sample/samples.csv").sex) == {"male"}
    for options, words in (
        (["--given", "age=40"], "say which class, --label female, male"),
        (["--where", "age>40"], "say which class, --label female, male"),
        (["--given", "sex=man"], "--given sex=man: expected one of the classes female, male"),
        (["--given", "sex=male", "--label", "male"], "--given sex=male: --label male says the class already"),
    ):
        assert words in refused(capsys, "sample", "run", *options, "--overwrite")


def test_a_run_of_no_table_has_no_columns(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    np.save("own.npy", np.random.default_rng(0).normal(size=(50, 3)).astype(np.float32))
    call("train", "--data", "own.npy", "--likelihood", "Gaussian", "--epochs", 1, "--run", "run")
    for option in (["--given", "age=40"], ["--where", "age>40"]):
        assert "given and where speak of the columns of a table" in refused(capsys, "sample", "run", *option)


def test_cells_are_read_as_they_are_written():
    cells = given_cells("day=1/2/2021,income=1234,5", [column.name for column in TABLE.columns])
    back = TABLE.decode(as_row(cells, TABLE)[None])
    assert back.loc[0, ["day", "income"]].tolist() == ["01/02/2021", "1234,50"]
