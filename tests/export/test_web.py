"""Tests of the page that classifies images in a browser."""

import functools
import http.server
import json
import os
import pathlib
import shutil
import threading
import time

import browser
import jax
import numpy as np
import pytest
from PIL import Image

from edp import data, export
from edp.data import image_preparation
from edp.export import web

# Directory of the files of onnxruntime-web: `npm pack onnxruntime-web@1.30.0`.
RUNTIME = pathlib.Path(os.environ.get("ONNXRUNTIME_WEB", "onnxruntime-web"))

SETS = {"score": "aps", "thresholds": [{"coverage": 0.9, "threshold": 0.8}]}
PAGE = pathlib.Path(web.__file__).parent / "page"


def test_the_folder_needs_nothing_else(tmp_path):
    metadata = {"classes": ["a"], "input": {}, "outputs": {}, "config": {"seed": 1}}
    files = web.files(b"model", metadata, "ort/")
    assert files["web/model.onnx"] == b"model"
    kept = json.loads(files["web/metadata.json"])
    assert kept == {"classes": ["a"], "input": {}, "outputs": {}, "runtime": "ort/"}
    page = files["web/index.html"].decode()
    for name in ("main.js", "prepare.js", "style.css"):
        assert f"web/{name}" in files
        page += files[f"web/{name}"].decode()
    # Only the runtime comes from elsewhere, from the address in the metadata.
    assert 'src="main.js"' in page and 'href="style.css"' in page
    assert "://" not in page


@pytest.fixture
def network_arrives():
    """An event: while it is not set, the server answers no request for a network."""
    event = threading.Event()
    event.set()
    return event


@pytest.fixture
def server(tmp_path, network_arrives):
    """Serves a directory; yields it and its address."""

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args):
            del args

        def do_GET(self):
            if self.path.endswith(".onnx"):
                network_arrives.wait(60)
            super().do_GET()

    handler = functools.partial(Handler, directory=tmp_path)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as served:
        threading.Thread(target=served.serve_forever, daemon=True).start()
        yield tmp_path, f"http://127.0.0.1:{served.server_port}"
        served.shutdown()


def wait(page, expression):
    until = time.time() + 60
    while not page.evaluate(expression):
        error = text(page, "#error")
        assert not error and time.time() < until, error
        time.sleep(0.1)


def text(page, selector):
    return page.evaluate(f"document.querySelector('{selector}').textContent")


def drop(page, *paths):
    """Drops files on the page."""
    page.evaluate(
        "(async () => { const files = new DataTransfer();"
        f"for (const path of {json.dumps(paths)})"
        " files.items.add(new File([await (await fetch(path)).blob()], path));"
        "document.body.dispatchEvent(new DragEvent('drop',"
        " { dataTransfer: files, bubbles: true })); })(); 0"
    )


@pytest.mark.long
@pytest.mark.skipif(browser.EXECUTABLE is None, reason="needs Chromium")
@pytest.mark.parametrize("channels", [1, 3])
def test_the_page_prepares_images_as_the_evaluation_does(channels, server):
    directory, address = server
    shutil.copytree(PAGE, directory / "page")
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (6, 5, 4), np.uint8)
    images = {
        "rgb.png": Image.fromarray(coarse[..., :3]).resize((50, 37)),
        "alpha.png": Image.fromarray(coarse).resize((40, 61)),
        "grey.png": Image.fromarray(coarse[..., 0]).resize((8, 8)),
    }
    with browser.Page(800) as page:
        page.go_to(f"{address}/page/index.html")
        for name, image in images.items():
            image.save(directory / name)
            for resize, factor in (("whole", 1), ("central_crop", 2)):
                shape = (8, 12, channels)
                metadata = json.dumps(
                    {
                        "input": {"shape": ["batch", *shape]},
                        "preparation": {"resize": resize, "downsample": factor},
                    }
                )
                page.evaluate(
                    "window.found = null; (async () => {"
                    "const { prepare } = await import('/page/prepare.js');"
                    f"const blob = await (await fetch('/{name}')).blob();"
                    f"window.found = Array.from(await prepare(blob, {metadata}));"
                    "})().catch((e) => { window.found = String(e); }); 0"
                )
                while (found := page.evaluate("window.found")) is None:
                    time.sleep(0.05)
                wanted = prepared(directory / name, shape, resize, factor)
                difference = np.reshape(found, shape).astype(int) - wanted
                # The browser rounds transparent pixels otherwise.
                most = 0.2 if name == "alpha.png" else 0.01
                assert np.abs(difference).max() <= 1, (name, resize)
                assert np.abs(difference).mean() < most, (name, resize)


def prepared(path, shape, resize, factor):
    height, width, channels = shape
    large = image_preparation.prepare(
        path,
        path.name,
        (factor * height, factor * width, channels),
        {"whole": image_preparation.WHOLE, "central_crop": "random_crop"}[resize],
    )
    return data.downsample(large[None], factor)[0].astype(int)


@pytest.mark.long
@pytest.mark.skipif(browser.EXECUTABLE is None, reason="needs Chromium")
@pytest.mark.skipif(not RUNTIME.exists(), reason="needs ONNXRUNTIME_WEB=DIRECTORY")
def test_the_page_classifies_images(server, network_arrives):
    pytest.importorskip("jax2onnx")
    pytest.importorskip("onnxruntime")
    directory, address = server
    weights = np.random.default_rng(1).normal(0, 3, (64, 3)).astype(np.float32)
    program = export.create_program(
        lambda w, x: jax.nn.softmax(x.reshape(x.shape[0], -1) @ w)[None],
        lambda w, x: {"energy": -(x.reshape(x.shape[0], -1) @ w).max(-1)},
        weights,
        20.0,
    )
    export.write_artifact(
        program,
        (8, 8, 1),
        directory / "out",
        classes=["one", "two", "three"],
        details={"prediction_sets": SETS},
        targets=["web"],
        web_runtime="ort/",
    )
    folder = directory / "out/web"
    (folder / "ort").mkdir()
    for path in RUNTIME.glob("ort-wasm-simd-threaded.*m*"):
        shutil.copy(path, folder / "ort")
    shutil.copy(RUNTIME / "ort.wasm.min.mjs", folder / "ort")
    pixels = np.random.default_rng(2).integers(0, 256, (1, 8, 8, 1), np.uint8)
    Image.fromarray(pixels[0, ..., 0]).save(folder / "image.png")
    wanted = {k: np.asarray(v)[0] for k, v in jax.jit(program)(pixels).items()}
    (folder / "notes.txt").write_text("no image")
    network_arrives.clear()
    with browser.Page(800) as page:
        page.go_to(f"{address}/out/web/index.html")
        drop(page, "image.png")
        wait(page, "document.getElementById('state').textContent.includes('then')")
        assert not page.evaluate("!!document.querySelector('article')")
        network_arrives.set()
        wait(page, "!!document.querySelector('article')")
        best = int(wanted["probs"].argmax())
        assert text(page, ".class") == ("one", "two", "three")[best]
        shown = text(page, ".probability").removesuffix(" %")
        assert float(shown) == pytest.approx(100 * wanted["probs"].max(), abs=0.01)
        assert text(page, ".scores dd") == f"{wanted['energy']:.4f}"
        order = np.argsort(-wanted["probs"])
        kept = [
            k
            for k, total in zip(order, wanted["probs"][order].cumsum(), strict=True)
            if total <= 0.8
        ]
        names = ", ".join(("one", "two", "three")[k] for k in kept or order[:1])
        assert text(page, ".sets dt") == "Prediction set with 90 % coverage"
        assert text(page, ".sets dd") == names
        assert all(
            one.startswith(address) for one in page.requests if "blob" not in one
        )
        check_batches(page, pixels, wanted["probs"])

        # The second file of three is no image; the others have cards, the last on top.
        shutil.copy(folder / "image.png", folder / "last.png")
        drop(page, "image.png", "notes.txt", "last.png")
        while page.evaluate("document.querySelectorAll('article').length") < 3:
            time.sleep(0.05)
        assert text(page, ".file") == "last.png"
        assert text(page, "#error").startswith("notes.txt cannot be classified: ")

        (folder / "model.onnx").unlink()
        page.go_to(f"{address}/out/web/index.html?again")
        drop(page, "image.png")
        while not (error := text(page, "#error")):
            time.sleep(0.05)
        assert error.startswith("The network cannot be loaded: ")


def check_batches(page, pixels, probs):
    """Runs batches of several sizes in the browser's runtime."""
    for size in (0, 1, 7, 256):
        page.evaluate(
            "window.found = null;"
            f"classifier.run(Uint8Array.from(Array({size}).fill("
            f"{pixels.ravel().tolist()}).flat()), {size})"
            ".then((o) => { window.found = o; }, (e) => { window.found = `${e}`; }); 0"
        )
        while (found := page.evaluate("window.found")) is None:
            time.sleep(0.05)
        if size:
            rows = np.reshape(found["probs"], (size, 3))
            np.testing.assert_allclose(rows, np.tile(probs, (size, 1)), atol=1e-4)
        else:
            assert "accepted: at least one" in found
