"""The page in a real browser: it loads silently, asks for nothing, and decodes what the model does.

Chromium is driven by its own debugging protocol, over two pipes.
"""

import base64
import itertools
import json
import os
import re
import select
import shutil
import subprocess
import tempfile

import numpy as np
import pytest
import torch

import pyro_vae
from pyro_vae.commands.train import main as train
from pyro_vae.runs.page import report

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-sync",
    "--disable-extensions",
    "--disable-dev-shm-usage",
    "--disable-component-update",
    "--disable-background-networking",
    "--no-first-run",
    "--remote-debugging-pipe",
]
ROUNDING = 1.5  # grey levels of 255
PATIENCE = 120  # seconds for an answer

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium is installed")


class Browser:
    """One page of a headless Chromium; ``trouble`` is all that it complained of, or asked the network for."""

    def __init__(self, profile):
        (read_theirs, write_ours), (read_ours, write_theirs) = os.pipe(), os.pipe()
        # The protocol's pipes have to be 3 and 4, which bash can say and Popen can't.
        command = ["bash", "-c", f'exec "$0" "$@" 3<&{read_theirs} 4>&{write_theirs}', CHROMIUM, *FLAGS]
        self.process = subprocess.Popen(
            [*command, f"--user-data-dir={profile}", "about:blank"],
            pass_fds=(read_theirs, write_theirs),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(read_theirs)
        os.close(write_theirs)
        self.out, self.into = os.fdopen(write_ours, "wb"), os.fdopen(read_ours, "rb")
        self.numbers, self.rest, self.session, self.trouble = itertools.count(1), b"", None, []
        target = self.send("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.send("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.send(f"{domain}.enable")

    def send(self, method, **params):
        number = next(self.numbers)
        message = {"id": number, "method": method, "params": params}
        if self.session:
            message["sessionId"] = self.session
        self.out.write(json.dumps(message).encode() + b"\0")
        self.out.flush()
        while True:
            answer = self.receive()
            if answer.get("id") == number:
                assert "error" not in answer, answer
                return answer["result"]

    def receive(self):
        while b"\0" not in self.rest:
            assert select.select([self.into], [], [], PATIENCE)[0], "the browser says nothing"
            part = os.read(self.into.fileno(), 2**16)
            assert part, "the browser has gone"
            self.rest += part
        line, _, self.rest = self.rest.partition(b"\0")
        message = json.loads(line)
        what, params = message.get("method"), message.get("params", {})
        if what in ("Runtime.exceptionThrown", "Runtime.consoleAPICalled", "Log.entryAdded"):
            self.trouble.append(json.dumps(params)[:500])
        if what == "Network.requestWillBeSent" and not params["request"]["url"].startswith(("data:", "file:")):
            self.trouble.append(params["request"]["url"])
        return message

    def run(self, expression):
        """Evaluate JavaScript, and wait for what it promises."""
        result = self.send("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in result, result
        return result["result"].get("value")

    def open(self, path, width=1100, height=900, dark=False):
        self.send(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 500
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.send("Emulation.setEmulatedMedia", features=[scheme])
        self.trouble.clear()
        self.send("Page.navigate", url=path.as_uri())
        self.run("new Promise(done => document.readyState == 'complete' ? done(0) : addEventListener('load', done))")
        self.settle()

    def settle(self):
        self.run("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(() => done(0))))")

    @property
    def pad(self):
        """Bring the pad into view; return its left, top, width and height."""
        return self.run(
            "(() => { const pad = document.getElementById('pad');"
            " pad.scrollIntoView({block: 'center', behavior: 'instant'});"
            " const b = pad.getBoundingClientRect(); return [b.left, b.top, b.width, b.height]; })()"
        )

    def drag(self, *places):
        """Press the mouse on the pad at (x, y) in [0, 1], move on, and let go."""
        left, top, width, height = self.pad
        for i, (x, y) in enumerate(places):
            at = {"x": left + x * width, "y": top + y * height, "button": "left", "buttons": 1}
            if i == 0:
                self.send("Input.dispatchMouseEvent", type="mousePressed", clickCount=1, **at)
            self.send("Input.dispatchMouseEvent", type="mouseMoved", **at)
        self.send("Input.dispatchMouseEvent", type="mouseReleased", clickCount=1, **at)
        self.settle()

    def press(self, key):
        for kind in ("keyDown", "keyUp"):
            self.send("Input.dispatchKeyEvent", type=kind, key=key, code=key)
        self.settle()

    @property
    def z(self):
        return torch.tensor([[float(v) for v in self.run("document.getElementById('pad').dataset.z").split()]])

    @property
    def picture(self):
        """The canvas, (H, W), 0 to 255."""
        height, width, pixels = self.run(
            "(() => { const c = document.getElementById('picture'), [w, h] = [c.width, c.height];"
            " return [h, w, Array.from(c.getContext('2d').getImageData(0, 0, w, h).data)]; })()"
        )
        return np.array(pixels).reshape(height, width, 4)[..., 0]

    def screenshot(self, path, whole=True):
        data = self.send("Page.captureScreenshot", captureBeyondViewport=whole)["data"]
        path.write_bytes(base64.b64decode(data))

    def close(self):
        self.session = None
        self.send("Browser.close")
        self.process.wait(20)
        self.out.close()
        self.into.close()


@pytest.fixture(scope="module")
def browser():
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        browser = Browser(profile)
        yield browser
        browser.close()


def page_of(folder, *options):
    train(["--epochs", "5", "--run", str(folder / "run"), *options])
    page = folder / "report.html"
    page.write_text(report(folder / "run", check=False), encoding="utf-8")
    return pyro_vae.load(folder / "run"), page


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    return page_of(
        tmp_path_factory.mktemp("digits"), "--latent_dim", "4", "--activation", "gelu", "--hidden_dims", "[32]"
    )


@torch.no_grad()
def decoded(vae, z, side=8):
    return 255 * vae.likelihood(vae.decoder(z)).mean.reshape(side, side).numpy()


def test_dragging_decodes_what_the_model_does(browser, digits):
    vae, page = digits
    browser.open(page)
    pictures = [browser.picture]
    np.testing.assert_allclose(pictures[0], decoded(vae, browser.z), atol=ROUNDING)
    start = browser.z
    for places in ([(0.5, 0.5), (0.1, 0.9)], [(0.1, 0.9), (0.8, 0.15)]):
        browser.drag(*places)
        z, pictures = browser.z, [*pictures, browser.picture]
        np.testing.assert_allclose(pictures[-1], decoded(vae, z), atol=ROUNDING)
        assert (z != start).sum() == 2  # the dimensions that are not shown stay where they were
        assert abs(pictures[-1] - pictures[-2]).max() > 10
    spec = json.loads(browser.run("document.getElementById('explorer-data').textContent"))
    for axis, part in zip(spec["chosen"], (0.8, 0.85), strict=True):
        expected = spec["from"][axis] + part * (spec["to"][axis] - spec["from"][axis])
        assert z[0, axis].item() == pytest.approx(expected, abs=0.02)
    assert browser.trouble == []


def test_keys_sliders_and_buttons(browser, digits):
    vae, page = digits
    browser.open(page)
    browser.run("document.getElementById('pad').focus()")
    before, start = browser.picture, browser.z
    for _ in range(8):
        browser.press("ArrowRight")
    browser.press("ArrowUp")
    assert abs(browser.picture - before).max() > 5
    np.testing.assert_allclose(browser.picture, decoded(vae, browser.z), atol=ROUNDING)
    moved = browser.z - start
    assert (moved > 0).sum() == 2
    assert moved.max() == pytest.approx(8 * moved[moved > 0].min().item(), rel=1e-4)
    assert browser.run("document.activeElement.id") == "pad"
    assert "z" in browser.run("document.getElementById('pad').getAttribute('aria-valuetext')")
    browser.press("Home")
    torch.testing.assert_close(browser.z, start)
    browser.run("document.getElementById('across').focus()")
    browser.press("ArrowLeft")
    assert (browser.z < start).sum() == 1
    # Another dimension, and the code of a test example.
    other = browser.run("(() => { const s = document.getElementById('up-dimension'); s.value = s.options[3].value;"
                        " s.dispatchEvent(new Event('change')); return Number(s.value); })()")  # fmt: skip
    z = browser.z
    browser.drag((0.2, 0.2))
    assert (browser.z != z)[0, other]
    browser.run("document.querySelector('[data-start=\"1\"]').click()")
    browser.settle()
    code = pyro_vae.data.load("digits").test[1:2]
    np.testing.assert_allclose(browser.z, vae.encoder(code).mean.detach(), atol=1e-4)
    np.testing.assert_allclose(browser.picture, decoded(vae, browser.z), atol=ROUNDING)
    assert browser.trouble == []


def test_a_finger_on_a_phone(browser, digits):
    vae, page = digits
    browser.open(page, 360, 740)
    assert browser.run("document.documentElement.scrollWidth") == 360
    left, top, size, _ = browser.pad
    before = browser.picture
    for kind, part in (("touchStart", 0.5), ("touchMove", 0.7), ("touchMove", 0.9)):
        at = [{"x": left + part * size, "y": top + part * size}]
        browser.send("Input.dispatchTouchEvent", type=kind, touchPoints=at)
    browser.send("Input.dispatchTouchEvent", type="touchEnd", touchPoints=[])
    browser.settle()
    assert abs(browser.picture - before).max() > 10
    np.testing.assert_allclose(browser.picture, decoded(vae, browser.z), atol=ROUNDING)
    assert browser.trouble == []


def test_a_grid_where_the_decoder_is_no_chain_of_linear_layers(browser, tmp_path):
    options = ["--network", "conv", "--hidden_dims", "[4,8]", "--likelihood", "DiscretizedLogistic"]
    vae, page = page_of(tmp_path, *options, "--latent_dim", "3")
    browser.open(page)
    stated = float(re.search(r"by ([\d.]+) % of the values' range at most", page.read_text()).group(1))
    for places in ([(0.3, 0.6)], [(0.9, 0.12)]):
        browser.drag(*places)
        expected = decoded(vae, browser.z) / 16
        np.testing.assert_allclose(browser.picture, expected, atol=ROUNDING + 2.55 * stated)
    assert browser.trouble == []


def test_a_table(browser, tmp_path):
    generator = np.random.default_rng(0)
    rows = generator.normal(size=(300, 1)) + 0.3 * generator.normal(size=(300, 4))
    rows[:, 3] = rows[:, 3].round().clip(0)
    np.savetxt(tmp_path / "t.csv", rows, delimiter=",", header="a,b,c,d", comments="", fmt="%.5f")
    options = ["--likelihood", "Columns", "--likelihood.groups", "[[3, Gaussian], [1, Poisson]]"]
    vae, page = page_of(tmp_path, "--data", str(tmp_path / "t.csv"), *options, "--latent_dim", "2")
    browser.open(page, 360, 740)
    assert browser.run("document.documentElement.scrollWidth") == 360
    browser.drag((0.2, 0.3), (0.7, 0.8))
    shown = browser.run("Array.from(document.querySelectorAll('#columns td:last-child'), cell => cell.textContent)")
    with torch.no_grad():
        expected = vae.likelihood(vae.decoder(browser.z)).mean[0]
    np.testing.assert_allclose([float(v.replace("−", "-")) for v in shown], expected, rtol=2e-3, atol=2e-3)
    assert browser.trouble == []
