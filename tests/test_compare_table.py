"""Tables are compared by figures that are known where it is known how the tables differ."""

import json
import re
from html.parser import HTMLParser

import numpy as np
import pandas
import pytest
from scipy.stats import norm

from pyro_vae.commands import compare_table
from pyro_vae.inference import compare_tables
from pyro_vae.inference.tables.associations import associations
from pyro_vae.inference.tables.cells import to_cells
from pyro_vae.inference.tables.copies import find_copies
from pyro_vae.inference.tables.learners import two_sample
from tests.commands import call

LEARNERS = ("logistic regression", "gradient boosting")


def people(count, seed, *, shift=0.0, independent=False):
    """Rows of a Gaussian copula: age and income go together, and with them who smokes; some incomes are blank."""
    rng = np.random.default_rng(seed)
    z = rng.multivariate_normal([0, 0, 0], [[1, 0.8, 0.5], [0.8, 1, 0.3], [0.5, 0.3, 1]], count)
    if independent:
        z = np.stack([rng.permutation(column) for column in z.T], 1)
    income = np.exp(10 + z[:, 1])
    return pandas.DataFrame(
        {
            "age": (40 + 12 * z[:, 0] + shift).round(),
            "income": np.where(rng.random(count) < 0.1, np.nan, income),
            "smokes": np.where(z[:, 2] > 0.7, "yes", "no"),
            "town": rng.choice(["A", "B", "C"], count, p=[0.6, 0.3, 0.1]),
        }
    )


@pytest.fixture(scope="module")
def alike():
    return compare_tables(people(600, 0), people(600, 1), held_out=people(600, 2), target="age")


def test_draws_from_the_same_distribution_are_not_told_apart(alike):
    for figures in (alike.two_sample, alike.real_against_real):
        assert set(figures) == set(LEARNERS)
        for value, se in figures.values():
            assert abs(value - 0.5) < 3 * se < 0.15
    assert alike.columns.error.max() < 1.95 * (2 / 600) ** 0.5  # the KS distance at a level of 0.001
    assert alike.pairs.error.max() < 0.2
    nearest, se = alike.copies.nearest_is_real
    assert abs(nearest - alike.copies.chance) < 3 * se < 0.15


def test_standard_errors_of_two_sample_tests_are_not_too_small():
    rng, deviations = np.random.default_rng(0), []
    for seed in range(25):
        tables = {name: pandas.DataFrame(rng.normal(size=(60, 4))) for name in "ab"}
        found = two_sample(*to_cells(tables)[1].values(), seed=seed)
        deviations += [(value - 0.5) / se for value, se in found.values()]
    assert 0.6 < np.sqrt(np.mean(np.square(deviations))) < 1.2


def test_a_shifted_column_is_told_apart_by_all_and_named():
    shifted = compare_tables(people(400, 0), people(400, 1, shift=60))
    for value, se in shifted.two_sample.values():
        assert value > 0.97
        assert se < 0.02
    assert shifted.columns.error.idxmax() == "age"
    expected = 2 * norm.cdf(30 / 12) - 1
    assert shifted.columns.error["age"] == pytest.approx(expected, abs=0.03)
    assert shifted.real_against_real is None


def test_columns_drawn_each_by_itself_differ_in_pairs_alone():
    found = compare_tables(people(900, 0), people(900, 1, independent=True), held_out=people(900, 2), target="smokes")
    assert found.columns.error.max() < 1.95 * (2 / 900) ** 0.5
    worst = found.pairs.set_index(["first", "second"]).loc[("age", "income")]
    assert worst["error"] == pytest.approx(6 / np.pi * np.arcsin(0.4), abs=0.1)  # Spearman's of Pearson's 0.8
    assert worst["error_held_out"] < 0.1
    assert found.two_sample["logistic regression"].value < 0.6 < found.two_sample["gradient boosting"].value
    assert found.learned.from_synthetic.value + 0.1 < found.learned.from_real.value


@pytest.mark.parametrize("part", [1.0, 0.3])
def test_copies_of_training_rows_are_found(part):
    real, fresh, held_out = (people(600, seed).dropna()[:500] for seed in range(3))
    copied = round(part * 500)
    synthetic = pandas.concat([real[:copied], fresh[copied:]])
    found = compare_tables(real, synthetic, held_out=held_out).copies
    assert found.identical == part
    assert found.identical_by_chance == 0
    value, se = found.memorised
    assert abs(value - part) < 3 * se
    assert found.nearest_is_real.value > found.chance + 3 * found.nearest_is_real.se
    assert (found.distance == 0).mean() == part
    assert compare_tables(real, synthetic).copies.identical == part


def test_rows_that_are_common_are_no_copies():
    tables = {
        name: people(n, s)[["smokes", "town"]] for name, n, s in (("real", 900, 0), ("made", 400, 1), ("x", 100, 2))
    }
    found = find_copies(*to_cells(tables)[1].values())
    assert (found.identical, found.identical_by_chance) == (1, 1)
    assert found.chance == 0.9
    assert abs(found.nearest_is_real.value - 0.9) < 3 * found.nearest_is_real.se


def test_blurred_rows_are_no_copies_and_the_error_allows_for_neighbours_that_they_share():
    rng, deviations = np.random.default_rng(0), []
    for _ in range(60):
        sizes = {"real": (60, 1.0), "made": (200, 0.3), "held out": (30, 1.0)}
        tables = {name: pandas.DataFrame(scale * rng.normal(size=(n, 2))) for name, (n, scale) in sizes.items()}
        found = find_copies(*to_cells(tables)[1].values())
        deviations.append((found.nearest_is_real.value - found.chance) / found.nearest_is_real.se)
    assert abs(np.mean(deviations)) < 3 / 60**0.5
    assert 0.7 < np.std(deviations) < 1.3


def test_a_table_that_repeats_the_real_one_does_no_better_than_it():
    real, held_out = people(300, 0), people(300, 2)
    found = compare_tables(real, real.sample(frac=1, random_state=0), held_out=held_out)
    for name in LEARNERS:
        assert found.two_sample[name].value == pytest.approx(found.real_against_real[name].value, abs=0.06)
    assert found.columns.error.max() == 0
    assert found.pairs.error.max() == pytest.approx(0)


def test_what_the_target_is_decides_the_measure(alike):
    assert (alike.learned.measure, alike.learned.num_rows) == ("R²", 600)
    real, synthetic = alike.learned.from_real, alike.learned.from_synthetic
    assert abs(real.value - synthetic.value) < 3 * (real.se**2 + synthetic.se**2) ** 0.5
    assert 0.3 < real.value < 0.8**2 + 3 * real.se  # no prediction from z explains more
    three = people(600, 0).assign(kind=lambda table: pandas.cut(table.age, [-999, 30, 45, 999], labels=["x", "y", "z"]))
    found = compare_tables(three[:200], three[200:400], held_out=three[400:], target="kind").learned
    assert found.measure == "AUC"
    assert found.from_real.value > 0.99
    only = three[200:400].query("kind != 'z'")
    assert compare_tables(three[:200], only, held_out=three[400:], target="kind").learned.from_synthetic.value < 0.95


def test_associations_are_what_is_known():
    rng = np.random.default_rng(0)
    group = np.repeat(list("abc"), 2000)
    table = pandas.DataFrame({"x": rng.normal(size=6000), "up": np.arange(6000.0), "down": -np.arange(6000)})
    table["group"], table["same"], table["other"] = group, group, rng.permutation(group)
    table["constant"] = "one"
    layout, cells = to_cells({"table": table})
    found = associations(layout, cells["table"])
    assert found["up", "down", "correlation"] == -1
    assert found["up", "group", "correlation ratio"] == pytest.approx((8 / 9) ** 0.5, abs=1e-3)
    assert found["x", "group", "correlation ratio"] < 0.05
    assert found["group", "same", "Cramér's V"] == pytest.approx(1)
    assert found["group", "other", "Cramér's V"] < 0.05
    assert found.xs("constant", level="second").isna().all()


def test_associations_of_few_rows_are_corrected_for_what_chance_makes_of_them():
    rng = np.random.default_rng(0)
    columns = {f"word {i}": rng.choice(list("abcd"), 60) for i in range(15)} | {"x": rng.normal(size=60)}
    layout, cells = to_cells({"table": pandas.DataFrame(columns)})
    mean = associations(layout, cells["table"]).groupby("measure").mean()
    assert mean["Cramér's V"] < 0.12  # uncorrected 0.21
    assert mean["correlation ratio"] < 0.14  # uncorrected 0.2


def test_rescaling_changes_no_figure_but_the_rounding(alike):
    def scaled(seed):
        table = people(600, seed)
        return table.assign(age=1e9 + 1e6 * table.age, income=1e-9 * table.income)

    found = compare_tables(scaled(0), scaled(1), held_out=scaled(2), target="smokes")
    np.testing.assert_allclose(found.columns.error, alike.columns.error)
    np.testing.assert_allclose(found.pairs.error, alike.pairs.error)
    for name in LEARNERS:
        assert found.two_sample[name].value == pytest.approx(alike.two_sample[name].value, abs=0.01)


KINDS = {
    "numbers as text": ([" 1.5", "2", "3e4", ""], "number"),
    "dates": (list(pandas.to_datetime(["2021-01-01", "2021-01-02", "2021-02-01", None])), "number"),
    "yes and no as numbers": ([0, 1.0, "1", None], "category"),
    "booleans": ([True, False, True, True], "category"),
    "text with numbers": (["1", "2", "3", "x"], "category"),
    "categories": (list("abca"), "category"),
}


@pytest.mark.parametrize("name", KINDS)
def test_what_a_column_holds_decides_its_kind(name):
    values, kind = KINDS[name]
    real = pandas.DataFrame({"x": values * 5})
    found = compare_tables(real, real.sample(frac=1, random_state=0))
    assert found.columns.kind["x"] == kind
    assert (
        found.columns.blank_real["x"]
        == pandas.Series(values).map(lambda value: value in ("", None) or value is pandas.NaT).mean()
    )
    assert found.columns.error["x"] == 0
    assert found.copies.identical == 1


def test_numbers_that_are_categories_are_the_same_with_and_without_decimals():
    real = pandas.DataFrame({"x": [0, 1] * 10})
    assert compare_tables(real, real.astype(float)).columns.error["x"] == 0


def test_columns_that_only_one_has_and_names_are_left_out_with_a_word():
    real = people(60, 0).assign(name=[f"person {i}" for i in range(60)], extra=1)
    found = compare_tables(real, people(60, 1).assign(name="x")[["town", "name", "age", "smokes", "income"]])
    assert dict(found.layout.left_out) == {"name": "names or free text", "extra": "not in synthetic"}
    assert list(found.columns.index) == ["age", "income", "smokes", "town"]


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        (lambda t: t[:5], {}, "synthetic: expected at least 10 rows, got 5"),
        (lambda t: t[:0], {}, "synthetic: expected rows and columns, got 0 by 4"),
        (lambda t: t.to_numpy(), {}, "synthetic: expected a data frame, got ndarray"),
        (lambda t: t.add_prefix("a "), {}, "expected tables with columns of the same names"),
        (lambda t: t.assign(age=t.age.astype(object).where(t.age < 50, "old")), {}, "column age, got 'old' in row "),
        (lambda t: t.assign(age=np.inf), {}, "synthetic: expected finite numbers in column age, got 'inf' in row 1"),
        (lambda t: t.rename(columns={"town": "age"}), {}, "synthetic: expected columns of different names, got age"),
        (lambda t: t, {"target": "age"}, "target: 'age' can be predicted only in rows of neither table"),
        (
            lambda t: t,
            {"target": "size", "held_out": people(50, 3)},
            "target: expected a column to predict from others",
        ),
        (lambda t: t.assign(smokes="no"), {"target": "smokes", "held_out": people(50, 3)}, "of the synthetic table"),
        (lambda t: t, {"max_rows": 0}, "max_rows"),
    ],
)
def test_what_can_not_be_compared_is_one_line(change, options, message):
    with pytest.raises(ValueError, match=re.escape(message)) as raised:
        compare_tables(people(50, 0), change(people(50, 1)), **options)
    assert "\n" not in str(raised.value)


class Page(HTMLParser):
    """What a page holds: its text, and how many pictures."""

    def __init__(self, text):
        super().__init__()
        self.text, self.pictures = "", 0
        self.feed(text)

    def handle_data(self, data):
        self.text += data

    def handle_starttag(self, tag, attributes):
        self.pictures += tag == "svg"


def test_the_command_leaves_figures_and_a_page(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for name, seed in (("real", 0), ("made", 1), ("held", 2)):
        people(200, seed).rename(columns={"town": "<b>town"}).astype(object).to_csv(f"{name}.csv", index=False)
    arguments = ["real.csv", "made.csv", "--held_out", "held.csv", "--target", "smokes", "--seed", str(2**40)]
    compare_table.main(arguments)
    printed = capsys.readouterr().out
    for line in (
        r"synthetic   made\.csv: 200 rows",
        r"AUC gradient boosting   0\.\d+ ± 0\.\d+    0\.\d+ ± 0\.\d+    real rows",
        r"AUC of smokes           0\.\d+ ± 0\.\d+    0\.\d+ ± 0\.\d+    learned from real rows",
        r"results     compare-table  \(columns\.csv, pairs\.csv, comparison\.json, comparison\.html\)",
    ):
        assert re.search(line, printed), line
    out = tmp_path / "compare-table"
    found = json.loads((out / "comparison.json").read_text())
    assert found["num_rows"] == {"real": 200, "synthetic": 200, "held_out": 200}
    assert found["target"]["measure"] == "AUC"
    assert list(pandas.read_csv(out / "columns.csv").column) == ["age", "income", "smokes", "<b>town"]
    assert len(pandas.read_csv(out / "pairs.csv")) == 6
    text = (out / "comparison.html").read_text()
    page = Page(text)
    assert page.pictures == 4 + 1 + 1  # columns, pairs and distances
    assert "<b>" not in text
    assert "<b>town" in page.text
    for name in LEARNERS:
        assert f"{found['two_sample_auc'][name]['value']:.3f}" in page.text
    with pytest.raises(SystemExit):
        compare_table.main(arguments)
    assert "holds results already; replace them with --overwrite" in capsys.readouterr().err
    compare_table.main([*arguments[:2], "--overwrite"])
    assert json.loads((out / "comparison.json").read_text())["real_against_real_auc"] is None
    assert Page((out / "comparison.html").read_text()).pictures == 5


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["none.csv", "real.csv"], "none.csv doesn't exist"),
        (["real.csv", "broken.csv"], "data='broken.csv': expected as many cells in each row"),
        (
            ["real.csv", "words.csv"],
            "words.csv: column 'b': expected numbers of the column's size, but in row 2 stands",
        ),
        (["real.csv", "real.csv", "--run", "none"], "none doesn't exist"),
        (["real.csv", "real.csv", "--target", "a"], "target: 'a' can be predicted only"),
        (["real.csv", "real.csv", "--out", "."], "--out: . holds other files, and no results of compare-table"),
    ],
)
def test_a_mistake_is_one_line(arguments, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "real.csv").write_text("a,b\n" + "\n".join(f"{i},{i % 3}" for i in range(20)))
    (tmp_path / "broken.csv").write_text('a,b\n1,2\n3,"4')
    (tmp_path / "words.csv").write_text("a,b\n" + "1,2\n3,x\n" * 9)
    with pytest.raises(SystemExit) as ended:
        compare_table.main(arguments)
    (line,) = capsys.readouterr().err.splitlines()
    assert ended.value.code == 2
    assert message in line


def as_semicolons(frame, path):
    """A table with all that a CSV file may be written with."""
    frame = frame.assign(
        id=[f"P{row}" for row in range(len(frame))],
        day=(pandas.Timestamp("2020-01-01") + pandas.to_timedelta(frame["age"].astype(int), "D")).dt.strftime(
            "%d.%m.%Y"
        ),
        zip=frame["town"].map({"A": "01234", "B": "02345", "C": "11111"}),
        grade=frame["town"].map({"A": "?", "B": "2", "C": "1"}),
        unit="kg",
    )
    frame.to_csv(path, sep=";", decimal=",", na_rep="?", index=False)


def test_files_are_read_as_for_training(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    as_semicolons(people(150, 0), "real.csv.gz")
    as_semicolons(people(150, 1).assign(town=lambda t: t["town"].replace("C", "D"), extra=1), "made.csv")
    compare_table.main(["real.csv.gz", "made.csv"])
    printed = capsys.readouterr().out
    assert "columns     7; not compared: id (identifier), unit (constant), extra (not in real)" in printed
    columns = pandas.read_csv("compare-table/columns.csv", index_col="column")
    assert columns["kind"].to_dict() == {
        "age": "number", "income": "number", "smokes": "category", "town": "category", "day": "number",
        "zip": "category", "grade": "category",
    }  # fmt: skip
    assert columns["blank_real"]["grade"] == pytest.approx((people(150, 0)["town"] == "A").mean())
    assert 0 < columns["blank_real"]["income"] < 0.3
    assert columns["error"]["town"] >= 0.05  # there is no D in the real one


def test_kinds_may_be_those_of_a_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    grades = {"real": np.arange(100) % 5 * 0.5, "made": np.arange(100) % 5 * 0.47}
    for seed, (name, grade) in enumerate(grades.items()):
        people(100, seed).assign(grade=grade).to_csv(f"{name}.csv", index=False)
    call("train", "--data", "real.csv", "--schema.grade", "category", "--epochs", 1, "--run", "run")
    for options, kind in (([], "number"), (["--run", "run"], "category")):
        compare_table.main(["real.csv", "made.csv", *options, "--overwrite"])
        assert pandas.read_csv("compare-table/columns.csv", index_col="column")["kind"]["grade"] == kind
    call("train", "--data", "digits", "--epochs", 1, "--run", "digits")
    with pytest.raises(SystemExit):
        compare_table.main(["real.csv", "made.csv", "--run", "digits", "--overwrite"])
