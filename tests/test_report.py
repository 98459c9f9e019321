"""The report: what its page says, what it refuses, and that a stranger's run folder can put nothing into it."""

import base64
import json
import re
import shutil
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest
import torch
from torch import nn

import pyro_vae
from pyro_vae import likelihoods
from pyro_vae.commands.report import main
from pyro_vae.commands.train import main as train
from pyro_vae.inference.latent import encode
from pyro_vae.networks import ACTIVATIONS
from pyro_vae.runs.page import content, explorer, report
from pyro_vae.runs.page.facts import MAX_SETTINGS, settings
from tests.commands import refused

HOSTILE = "</script><script>alert(1)</script>\"'><img src=x onerror=alert(2)>"


@pytest.fixture(scope="module")
def trained_run(tmp_path_factory):
    run = tmp_path_factory.mktemp("runs") / "digits"
    train(["--epochs", "3", "--hidden_dims", "[16]", "--latent_dim", "3", "--run", str(run)])
    return run


@pytest.fixture
def run(trained_run, tmp_path):
    """A copy, so that each test begins with a folder without a page."""
    return shutil.copytree(trained_run, tmp_path / "run")


class Page(HTMLParser):
    """The tags of a page with their attributes, and its text."""

    def __init__(self, html):
        super().__init__()
        self.tags, self.text = [], ""
        self.feed(html)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_data(self, text):
        self.text += text

    def attributes(self, tag):
        return [attributes for name, attributes in self.tags if name == tag]


def test_the_page_says_what_the_run_is(run, capsys):
    (run / "evaluation.json").write_text(
        json.dumps({"log_evidence": -20.5, "log_evidence_se": 0.25, "num_samples": 77, "khat": {"threshold": 0.5,
                    "median": 0.1, "max": 0.9, "fraction_above_threshold": 0.125}, "protocol": "as it was done"})
    )  # fmt: skip
    (run / "evaluation.csv").write_text("index,log_evidence,khat,elbo\n0,-20,0.1,-21\n1,-21,0.9,-22\n")
    main([str(run), "--no_check"])
    html = (run / "report.html").read_text()
    text = Page(html).text
    summary = json.loads((run / "summary.json").read_text())
    minus = f"{summary['test_elbo']:.2f} ± {summary['test_elbo_se']:.2f}".replace("-", "−")
    for expected in (minus, "−20.50 ± 0.25", "K = 77", "12.5 %", "as it was done", "DiagonalNormal", "torch", "epochs"):
        assert expected in text, expected
    assert str(run / "report.html") in capsys.readouterr().out
    assert len(html) < 2**20
    assert html.count("<svg") >= 8


def test_the_check_of_the_equations(run, monkeypatch):
    row = pyro_vae.equations.Row("a = b < c", 1.0, 1.5, -0.5, 0.25, "FAIL", "a note")
    monkeypatch.setattr("pyro_vae.runs.page.check_equations", lambda vae, x, num_gradients: [row])
    html = report(run)
    assert "a = b &lt; c" in html
    assert '<td class="fail">FAIL</td>' in html
    assert "<li>a note</li>" in html


def test_nothing_is_asked_for_and_nothing_else_may_run(run):
    html = report(run, check=False)
    page = Page(html)
    policy = next(a["content"] for a in page.attributes("meta") if a.get("http-equiv") == "Content-Security-Policy")
    assert "pyro-vae evaluate RUN" in page.text  # there is no evaluation
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    for tag in ("link", "iframe", "object", "embed", "form", "base"):
        assert not page.attributes(tag)
    assert all(a["src"].startswith("data:image/png;base64,") for a in page.attributes("img"))
    assert all(a["href"].startswith("#") for a in page.attributes("a"))
    assert not any(name.startswith("on") or name == "style" for _, attributes in page.tags for name in attributes)
    namespace = "http://www.w3.org/2000/svg"  # a name, which nobody looks up
    assert re.findall(r"\w+://|[\"'(]//|url\(|@import|fetch\(|XMLHttp", html.replace(namespace, "")) == []


def test_a_hostile_run_folder_puts_nothing_into_the_page(run, monkeypatch):
    clean = Page(report(run, check=False))
    for name in ("summary.json", "evaluation.json"):
        facts = json.loads((run / "summary.json").read_text()) | {"versions": {HOSTILE: HOSTILE}, "khat": HOSTILE}
        facts |= {"warnings": [HOSTILE]}
        facts |= dict.fromkeys(("protocol", "device", "objective", "epochs", "log_evidence", "estimator"), HOSTILE)
        (run / name).write_text(json.dumps(facts))
    (run / "config.yaml").write_text(
        (run / "config.yaml").read_text() + f"\n? {json.dumps(HOSTILE)}\n: {json.dumps(HOSTILE)}\n"
    )
    hostile = run.with_name("<script>alert(3)<")
    run.rename(hostile)
    original = pyro_vae.data.load
    monkeypatch.setattr("pyro_vae.data.load", lambda **options: replace(original(**options), name=HOSTILE))
    html = report(hostile, check=False)
    page = Page(html)
    for tag in ("script", "img", "style"):
        assert len(page.attributes(tag)) == len(clean.attributes(tag)), tag
    assert not any(name.startswith("on") for _, attributes in page.tags for name in attributes)
    assert page.text.count("alert(1)") >= 8  # it is there, as text


def test_names_of_columns_are_escaped(tmp_path):
    table = np.random.default_rng(0).normal(size=(60, 2)).round(4)
    names = HOSTILE.replace('"', "").replace(",", "")
    rows = [f"{names},b", *(f"{a},{b}" for a, b in table)]
    (tmp_path / "t.csv").write_text("\n".join(rows))
    options = [
        "--likelihood",
        "Gaussian",
        "--hidden_dims",
        "[4]",
        "--latent_dim",
        "1",
        "--epochs",
        "2",
        "--batch_size",
        "16",
    ]
    train(["--data", str(tmp_path / "t.csv"), *options, "--run", str(tmp_path / "run")])
    page = Page(report(tmp_path / "run", check=False))
    assert len(page.attributes("script")) == 2
    assert not page.attributes("img")
    assert names[:60] in page.text


def test_yaml_is_not_grown_and_is_cut(tmp_path):
    bomb = "a0: &a0 [x, {}]\n" + "".join(f"a{i}: &a{i} [" + f"*a{i - 1}, " * 9 + "{}]\n" for i in range(1, 60))
    (tmp_path / "config.yaml").write_text(bomb)
    with pytest.raises(ValueError, match=r"config.yaml: expected a YAML mapping \(expected no aliases, got \*a0"):
        settings(tmp_path / "config.yaml")
    (tmp_path / "config.yaml").write_text("\n".join(f"{'a' * 500}{i}: {'b' * 500}" for i in range(220)))
    rows = settings(tmp_path / "config.yaml")
    assert len(rows) == MAX_SETTINGS
    assert all(len(text) <= 300 for row in rows for text in row)


def test_bad_input(run, capsys, tmp_path):
    assert "doesn't exist" in refused(capsys, "report", tmp_path / "nothing")
    (tmp_path / "page.html").write_text("mine")
    for overwrite in ([], ["--overwrite"]):
        for out in (tmp_path / "page.html", "/dev/null"):
            assert "is no page of this program" in refused(capsys, "report", run, "--out", out, *overwrite)
    assert (tmp_path / "page.html").read_text() == "mine"
    assert "name a file" in refused(capsys, "report", run, "--out", tmp_path)
    for name, broken in (
        ("metrics.csv", "epoch,loss,elbo,reconstruction,kl\n1,2,x,4,5\n"),
        ("metrics.csv", "epoch,loss\n1,2\n"),
        ("evaluation.json", "[1]"),
        ("evaluation.json", "[" * 10**5),
    ):
        kept = (run / name).read_text() if (run / name).exists() else None
        (run / name).write_text(broken)
        assert name in refused(capsys, "report", run, "--no_check")
        (run / name).unlink() if kept is None else (run / name).write_text(kept)
    assert not (run / "report.html").exists()
    (run / "metrics.csv").unlink()
    assert "metrics.csv" in refused(capsys, "report", run, "--no_check")


def test_overwriting(run, capsys):
    main([str(run), "--no_check"])
    before = (run / "report.html").read_text()
    assert "--overwrite" in refused(capsys, "report", run)
    main([str(run), "--no_check", "--overwrite", "--seed", "1"])
    assert (run / "report.html").read_text() != before


def plane_of(vae, dims):
    z = torch.randn(50, dims)
    return z, explorer.Plane(z.mean(0), (0, 1), torch.full((dims,), -3.0), torch.full((dims,), 3.0))


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("name", ["Bernoulli", "Binomial", "Gaussian", "Laplace", "Poisson", "NegativeBinomial"])
def test_rounded_decoders(name, activation):
    levels = 17 if name == "Binomial" else None
    torch.manual_seed(0)
    vae = pyro_vae.build(
        (1, 3, 3), likelihood=name, levels=levels, latent_dim=3, hidden_dims=[8, 6], activation=activation
    )
    z, plane = plane_of(vae, 3)
    decoder, errors = explorer.explore(vae, plane, z, torch.tensor(1.0))
    assert isinstance(decoder, explorer.Network)
    with torch.no_grad():
        exact = vae.likelihood(vae.decoder(z)).mean
    torch.testing.assert_close(decoder(z), exact, atol=3e-3, rtol=3e-4)
    assert 0 < errors["largest"] < 0.01


def test_columns_and_what_has_no_such_form():
    groups = [[2, {"class_path": "pyro_vae.likelihoods.Gaussian", "init_args": {"scale": "predicted"}}],
              [1, {"class_path": "pyro_vae.likelihoods.Bernoulli"}]]  # fmt: skip
    spec = {"class_path": "Columns", "init_args": {"groups": groups}}
    vae = pyro_vae.build((3,), likelihood=spec, latent_dim=2, hidden_dims=[5], pixels="raw")
    z, plane = plane_of(vae, 2)
    decoder, _ = explorer.explore(vae, plane, z, torch.ones(3))
    assert isinstance(decoder, explorer.Network)
    assert decoder.links == [("identity", 2), ("sigmoid", 1)]

    class Doubled(likelihoods.Bernoulli):
        pass

    vae = pyro_vae.build((1, 3, 3), latent_dim=2, hidden_dims=[5])
    vae.likelihood = Doubled()
    assert isinstance(explorer.explore(vae, plane, z, torch.tensor(1.0))[0], explorer.Grid)
    vae.likelihood = likelihoods.Bernoulli()
    vae.decoder = nn.Sequential(*vae.decoder, nn.Identity(), nn.Dropout())
    assert isinstance(explorer.explore(vae, plane, z, torch.tensor(1.0))[0], explorer.Grid)


def test_a_wrong_link_is_found_out(monkeypatch):
    monkeypatch.setitem(explorer.MEANS, likelihoods.Bernoulli, lambda _: ("identity", 1.0))
    vae = pyro_vae.build((1, 3, 3), latent_dim=2, hidden_dims=[5])
    z, plane = plane_of(vae, 2)
    assert isinstance(explorer.explore(vae, plane, z, torch.tensor(1.0))[0], explorer.Grid)


def test_large_decoders_take_eight_bits_then_a_grid_then_nothing(monkeypatch):
    torch.manual_seed(0)
    vae = pyro_vae.build((1, 28, 28), latent_dim=2, hidden_dims=[40])
    z, plane = plane_of(vae, 2)
    bits = {}
    for budget in (2**16, 2**15 + 2**10, 2**10):
        monkeypatch.setattr(explorer, "BUDGET", 2 * budget)
        decoder, errors = explorer.explore(vae, plane, z, torch.tensor(1.0))
        bits[budget] = decoder and (type(decoder).__name__, errors["largest"] < 0.05)
    monkeypatch.setattr(explorer, "BUDGET", 33_000)
    decoder, errors = explorer.explore(vae, plane, z, torch.tensor(1.0))
    assert decoder.layers[0].weight.dtype == np.int8
    assert errors["largest"] < explorer.MAX_ERROR
    assert bits[2**16] == ("Network", True)
    assert bits[2**10] is None
    grid = explorer.decode_grid(vae, plane)
    assert grid is None
    monkeypatch.setattr(explorer, "BUDGET", 2**21)
    grid = explorer.decode_grid(vae, plane)
    nodes = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    with torch.no_grad():
        exact = vae.likelihood(vae.decoder(torch.tensor([[-3.0, -3.0], [3.0, -3.0], [-3.0, 3.0], [3.0, 3.0]]))).mean
    torch.testing.assert_close(grid(nodes), exact, atol=1e-4, rtol=0)


def test_numbers_are_written_the_lowest_byte_first():
    assert base64.b64decode(explorer.encode(np.array([1, -2], dtype=">i2"))) == b"\x01\x00\xfe\xff"


def test_figures_of_the_page_are_those_of_python(run):
    vae, dataset = pyro_vae.load(run), pyro_vae.data.load("digits")
    latents = encode(vae, dataset.test)
    q = vae.encoder(dataset.test)
    kl = torch.distributions.kl_divergence(q.base_dist, vae.prior().base_dist)
    facts = content.latent_space(latents, dataset.labels["test"])
    assert facts["num_active"] == int((q.mean.detach().var(0, correction=0) > 0.01).sum())
    assert f"{kl.sum(1).mean().item():.2f}" in facts["kl"]
