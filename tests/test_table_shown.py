"""What is shown of a table: in the columns' own units, and of categories one of them."""

import re

import numpy as np
import pandas
import pytest
import torch

import pyro_vae
from pyro_vae import inference
from pyro_vae.commands import unusual
from pyro_vae.data import from_frame
from pyro_vae.data.tables import find_schema
from pyro_vae.distributions import location
from pyro_vae.likelihoods import Bernoulli, Categorical, Columns
from pyro_vae.runs.page import columns as page_columns
from pyro_vae.runs.page import explorer
from tests.commands import call, refused

N = 120
COUNTS = {"ash": 60, "beech": 6, "cedar": 54}  # the mean of their numbers is next to that of beech


def trees():
    generator = np.random.default_rng(0)
    kind = generator.permutation(np.repeat(list(COUNTS), list(COUNTS.values())))
    return pandas.DataFrame(
        {
            "height": np.round(generator.normal(1200, 300, N), 1),
            "planted": pandas.Timestamp("1990-01-01") + pandas.to_timedelta(generator.integers(0, 9000, N), unit="D"),
            "kind": kind,
            "ill": generator.choice(["no", "yes"], N, p=[0.6, 0.4]),
        }
    )


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shown")
    trees().to_csv(folder / "trees.csv", index=False)
    call("train", "--data", folder / "trees.csv", "--epochs", 1, "--latent_dim", 2, "--run", folder / "run")
    return folder / "run"


@pytest.fixture
def vae(run):
    return pyro_vae.load(run)


def test_the_mean_of_names_is_none_and_the_likeliest_stands_for_all():
    raw = torch.tensor([[0.5, 0.0, 0.4], [0.0, 0.1, 0.9]])
    p = Categorical(3, ordered=False)(raw)
    assert p.mean.isnan().all()
    torch.testing.assert_close(p.log_prob(torch.ones(2)), Categorical(3)(raw).log_prob(torch.ones(2)))
    joint = Columns([(1, Bernoulli()), (2, Categorical(3, ordered=False))], packed=True)
    outputs = torch.cat([torch.zeros(1), raw.flatten(), torch.zeros(2)]).reshape(3, 3)
    assert location.middle(joint(outputs)).tolist() == [0.5, 0, 2]
    assert location.middle(joint.observed_part(joint(outputs), torch.ones(3).bool())).tolist() == [0.5, 0, 2]
    assert location.middle(Categorical(3)(torch.zeros(1, 3))).tolist() == [1]


@pytest.mark.parametrize(
    ("command", "file"),
    [
        (("reconstruct",), "reconstructions"),
        (("manifold", "--num", 3), "manifold"),
        (("manifold", "--dims", 2), "traversals"),
        (("interpolate", "--between", 0, 1), "interpolation"),
        (("sample", "--num", 20, "--mean"), "samples"),
        (("augment", "--data", "trees.csv", "--mean"), "augmented"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_of_categories_the_likeliest_is_written(command, file, run, tmp_path, monkeypatch):
    monkeypatch.chdir(run.parent)
    call(command[0], run, *command[1:], "--out", tmp_path / "out")
    written = pandas.read_csv(tmp_path / f"out/{file}.csv")[-9:]
    assert set(written["kind"]) <= {"ash", "cedar"}
    own = np.load(tmp_path / f"out/{file}.npz")["reconstruction" if command[0] == "reconstruct" else "x"]
    codes = own.reshape(-1, 4)[-9:, 2:]
    assert np.array_equal(codes, codes.round())
    assert [(["no", "yes"][int(ill)], [*COUNTS][int(kind)]) for ill, kind in codes] == [
        *zip(written["ill"], written["kind"], strict=True)
    ]


def test_blanks_are_filled_with_the_most_frequent_of_all_draws(vae):
    x = torch.full((3, 4), torch.nan)
    for filled in (
        inference.impute(vae, x, num_completions=1, num_samples=50, num_starts=1, steps=2, seed=3),
        inference.gibbs(vae, x, num_completions=300, num_steps=300, seed=0),
    ):
        assert set(filled.mean[:, 3].tolist()) <= {0.0, 2.0}
        assert filled.sd[:, 3].isnan().all()
        assert filled.sd[:, :3].isfinite().all()
        assert not filled.implausible[:, 2:].any()  # as numbers may be, where nothing is known of them


@pytest.mark.pictures
def test_the_page_shows_categories_by_their_names(run, vae):
    page = pyro_vae.runs.page.report(run, check=False)
    row = re.search(r'<th scope="row">kind</th>(.*?)</tr>', page).group(1)
    assert re.fullmatch(
        r"<td>(ash|cedar) \(\d+%\)</td><td>(ash|cedar) \(\d+%\)</td><td></td><td></td><td>[\d.]+% wrong</td>", row
    )
    row = re.search(r'<th scope="row">planted</th>(.*?)</tr>', page).group(1)
    assert re.fullmatch(r"(<td>(199|20[01])\d-\d\d-\d\d</td>){2}(<td>[\d.e+]+ days</td>){3}", row)
    assert '"categories":["ash","beech","cedar"]' in page


def test_the_page_decodes_to_categories(run, vae):
    codes = torch.randn(50, 2, generator=torch.Generator().manual_seed(0))
    plane = explorer.Plane(codes.mean(0), (0, 1), torch.full((2,), -3.0), torch.full((2,), 3.0))
    grid, errors = explorer.explore(vae, plane, codes, torch.ones(4))
    assert grid.nearest.tolist() == [False, False, False, True]
    assert set(grid(torch.rand(200, 2))[:, 3].round(decimals=3).tolist()) <= {0.0, 2.0}
    assert errors["largest"] < 0.2
    dataset = from_frame(trees())
    shown = page_columns.in_explorer(vae, dataset)
    assert [facts["name"] for facts in shown] == ["height", "planted", "ill", "kind"]
    assert shown[1]["seconds"] == 86400


FEW = ["--num_samples", 20, "--num_starts", 1, "--steps", 2]


def test_errors_are_in_own_units_and_of_categories_the_share_that_is_wrong(run, tmp_path, capsys):
    call("reconstruct", run, "--out", tmp_path / "out")
    words = capsys.readouterr().out
    rms = re.search(r"error       root mean square .*:\n +height (\d+) \((\d+)\), planted \S+ \(\S+\)\n", words)
    assert all(100 < float(figure) < 1000 for figure in rms.groups())  # sd 300
    assert re.search(
        r"            wrong of each column .*:\n +ill [\d.]+% \([\d.]+%\), kind [\d.]+% \([\d.]+%\)\n", words
    )
    table = pandas.read_csv(tmp_path / "out/columns.csv", index_col="column")
    arrays = np.load(tmp_path / "out/reconstructions.npz")
    off = arrays["reconstruction"] - arrays["x"]
    np.testing.assert_allclose(table["rms_error"][:2], np.sqrt((off**2).mean(0))[:2], rtol=1e-6)
    np.testing.assert_allclose(table["wrong"][2:], (off != 0).mean(0)[2:], rtol=1e-6)
    assert table["not_commonest"]["kind"] == pytest.approx(
        1 - pandas.Series(arrays["x"][:, 3]).value_counts(True).max()
    )
    assert table[["rms_error", "sd"]][2:].isna().all(axis=None)
    assert table[["wrong", "not_commonest"]][:2].isna().all(axis=None)


@pytest.fixture
def with_blanks(tmp_path):
    """The table with blanks in two columns, as a file."""
    frame = trees()
    frame.loc[:40, "height"] = np.nan
    frame.loc[30:60, "kind"] = None
    frame.to_csv(tmp_path / "blanks.csv", index=False)
    return tmp_path / "blanks.csv"


@pytest.mark.parametrize("part", ["height", "height,kind", "0.5"])
@pytest.mark.pictures
def test_what_is_known_of_a_table_with_blanks_is_hidden(part, run, with_blanks, tmp_path, capsys):
    call("impute", run, "--data", with_blanks, "--hide", part, *FEW, "--out", tmp_path / "out")
    output = capsys.readouterr()
    assert output.err == ""
    before = pandas.read_csv(with_blanks)
    table = pandas.read_csv(tmp_path / "out/columns.csv", index_col="column")
    assert 50 < table["rms_error"]["height"] < 1000
    after = pandas.read_csv(tmp_path / "out/completed-1.csv")
    assert not after.isna().any(axis=None)
    changed = (after != before) & before.notna()
    assert changed["height"].sum() > 30
    scores = pandas.read_csv(tmp_path / "out/diagnostics.csv").set_index("row")
    if part == "height":
        assert not changed.drop(columns="height").any(axis=None)
        assert table["wrong"].isna().all()
        assert (scores["log_p_missing"].reindex(range(41)) == 0).all()  # where nothing is hidden
        assert scores["squared_error"].reindex(range(41)).isna().all()
        own = np.load(tmp_path / "out/completed.npz")
        off = own["mean"][41:, 0] - before["height"].to_numpy()[41:]
        assert table["rms_error"]["height"] == pytest.approx(np.sqrt((off**2).mean()), rel=1e-4)
    else:
        assert 0 < table["wrong"]["kind"] <= 1
    assert scores["log_p_missing"].notna().all()
    assert "log P(x_missing|x_observed) -" in output.out


def test_columns_that_are_not_there_can_not_be_hidden(run, capsys):
    line = refused(capsys, "impute", run, "--hide", "size")
    assert (
        "--hide: expected a fraction between 0 and 1, or columns, some of height, planted, ill, kind, got 'size'"
        in line
    )


def test_units_have_all_their_digits():
    schema = find_schema(pandas.DataFrame({"a": 2**40 + 3 * np.arange(50), "b": np.linspace(0, 1, 50)}))
    assert schema.in_units(torch.zeros(2))[0] == schema.columns[0].loc


def test_scores_say_what_is_unusual_as_the_user_writes_it(run, tmp_path, capsys):
    frame = trees()[:10]
    frame.loc[4, "height"] = 9000.5
    frame.to_csv(tmp_path / "own.csv", index=False)
    how = ["--num_samples", 20, "--level", 0.5, "--out", tmp_path / "out"]
    call("score", run, "--data", tmp_path / "own.csv", *how)
    said = re.search(r"index 4: height 9000\.5 rather than (\d+\.\d) ± ([\d.e+]+), given", capsys.readouterr().out)
    assert 600 < float(said[1]) < 1800
    assert 100 < float(said[2]) < 1000
    table = pandas.read_csv(tmp_path / "out/columns.csv", dtype=str, keep_default_na=False).set_index(
        ["index", "column"]
    )
    assert table.loc[("4", "height"), "value"] == "9000.5"
    assert float(table.loc[("4", "height"), "sd"]) == pytest.approx(float(said[2]), rel=0.1)
    of_kind = table.xs("kind", level="column")
    assert set(of_kind["expected"]) <= {"ash", "cedar"}
    assert set(of_kind["sd"]) == {"nan"}
    assert pandas.to_datetime(table.xs("planted", level="column")["expected"], format="%Y-%m-%d").notna().all()


def test_what_is_unusual_has_names_dates_and_days():
    schema = find_schema(trees())
    x = schema.encode(trees()[:1])
    none = torch.zeros(1, 4)
    expected = torch.tensor([[0.0, 0.0, 0.7, 2.0]])
    scores = inference.ColumnScores(none, none, expected, torch.full((1, 4), 0.1), none + 9, none == 0)
    row, names = trees().iloc[0], [column.name for column in schema.modelled]
    (line,) = unusual.words(unusual.Unusual(torch.tensor([7]), x, names, scores, schema))
    assert re.search(rf"index 7: height {row.height} rather than 1\d\d\d\.\d ± \d\d(\.\d)?, ", line)
    assert re.search(rf"planted {row.planted:%Y-%m-%d} rather than \d{{4}}-\d\d-\d\d ± \d+ days, ", line)
    assert f"ill {row.ill!r} rather than 'yes'" in line
    scores = inference.ColumnScores(none, none, expected, none, torch.tensor([[0.0, 0.0, 0.0, 9.0]]), none == 0)
    (line,) = unusual.words(unusual.Unusual(torch.tensor([7]), x, names, scores, schema))
    assert line.endswith(f"index 7: kind {row.kind!r} rather than 'cedar', given its other columns")


@pytest.mark.parametrize("factor", [1e-6, 1e6])
def test_another_unit_makes_no_value_more_surprising(factor):
    generator = np.random.default_rng(0)
    free, grid = generator.normal(size=100), generator.poisson(3, 100)
    found = []
    for unit in (1.0, factor):
        data = from_frame(pandas.DataFrame({"free": unit * free, "grid": grid * (1 if unit == 1 else 1000)}))
        torch.manual_seed(0)
        vae = pyro_vae.build(data.shape, table=data.table, latent_dim=1)
        vae.initialize(data.train)
        found.append(inference.score_columns(vae, data.test, num_samples=20, steps=2, seed=0).surprise)
    torch.testing.assert_close(*found, atol=0.01, rtol=0)
    assert found[0].max() < 10
