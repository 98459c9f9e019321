"""Tables with many rows: how much memory a cell takes, and that long work is seen to go on."""

import tracemalloc

import pytest

from pyro_vae.commands import outputs, prepare, sample, train
from pyro_vae.commands.progress import progress_bar
from pyro_vae.data import load
from pyro_vae.data.tables import as_bytes, find_schema, read_frame
from tests.benchmarks.large_table import rows, write_table
from tests.commands import call

ROWS, COLUMNS = 20_000, 20


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    path = tmp_path_factory.mktemp("large") / "table.csv"
    write_table(path, ROWS)
    return path


def peak(work):
    """Return what some work returns, and the most bytes that it took for each cell of the table."""
    tracemalloc.start()
    try:
        return work(), tracemalloc.get_traced_memory()[1] / (ROWS * COLUMNS)
    finally:
        tracemalloc.stop()


def test_a_cell_takes_little_memory_on_the_way_to_a_tensor_and_back(path):
    """About twice of what they take: with a million rows each copy of all cells as Python has them is a gigabyte."""
    (frame, form), reading = peak(lambda: read_frame("table", path))
    schema, finding = peak(lambda: find_schema(frame, form=form))
    x, encoding = peak(lambda: schema.encode(frame))
    back, decoding = peak(lambda: schema.decode(x))
    content, writing = peak(lambda: as_bytes(back, schema))
    assert content.count(b"\n") == ROWS + 1
    assert reading < 80
    assert finding < 15
    assert encoding < 10
    assert decoding < 100
    assert writing < 40


def test_a_packed_table_takes_no_more_than_what_is_in_it(tmp_path):
    path = tmp_path / "table.csv.gz"
    rows(ROWS, seed=0).to_csv(path, index=False)
    assert peak(lambda: read_frame("table", path))[1] < 80


def test_reading_reports_each_column_twice(path):
    """As it finds what it is, and as it becomes numbers."""
    reports = []
    load(str(path), as_numbers=False, progress=lambda done, total: reports.append((done, total)))
    assert reports == [(done, 2 * COLUMNS) for done in range(1, 2 * COLUMNS + 1)]


def test_what_takes_long_shows_how_far_it_is(path, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for module in (prepare, train, sample, outputs):
        monkeypatch.setattr(module, "SOON", 0.0)
    options = ["--epochs", 1, "--hidden_dims", "[8]", "--latent_dim", 2, "--run", "run"]
    call("train", "--data", path, *options)
    call("sample", "run", "--num", 50_000)
    shown = capsys.readouterr().out
    for what in ("reading", "measuring", "sampling", "writing"):
        assert f"{what:<12}100 %" in shown


def test_what_is_done_soon_shows_nothing(capsys):
    for after in (3600.0, 0.0):
        with progress_bar("working", after) as progress:
            progress(1, 2)
        assert capsys.readouterr().out == ("" if after else "working      40 %\n")
