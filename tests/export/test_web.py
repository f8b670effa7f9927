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
    for name in ("main.js", "prepare.js"):
        assert f"web/{name}" in files
        page += files[f"web/{name}"].decode()
    # Only the runtime comes from elsewhere, from the address in the metadata.
    assert 'src="main.js"' in page and "://" not in page


@pytest.fixture
def server(tmp_path):
    """Serves a directory; yields it and its address."""

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args):
            del args

    handler = functools.partial(Handler, directory=tmp_path)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as served:
        threading.Thread(target=served.serve_forever, daemon=True).start()
        yield tmp_path, f"http://127.0.0.1:{served.server_port}"
        served.shutdown()


def wait(page, expression):
    until = time.time() + 60
    while not page.evaluate(expression):
        error = page.evaluate("document.getElementById('error').textContent")
        assert not error and time.time() < until, error
        time.sleep(0.1)


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
def test_the_page_classifies_an_image(server):
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
    with browser.Page(800) as page:
        page.go_to(f"{address}/out/web/index.html")
        wait(page, "!!(window.classifier)")
        page.evaluate(
            "fetch('image.png').then((r) => r.blob()).then(classifier.show); 0"
        )
        wait(page, "!document.getElementById('result').hidden")

        def text(name):
            return page.evaluate(f"document.getElementById('{name}').textContent")

        best = int(wanted["probs"].argmax())
        assert text("class") == ("one", "two", "three")[best]
        assert float(text("probability")) == pytest.approx(
            wanted["probs"].max(), abs=1e-4
        )
        assert text("uncertainty") == f"energy: {wanted['energy']:.4f}"
        order = np.argsort(-wanted["probs"])
        kept = [
            k
            for k, total in zip(order, wanted["probs"][order].cumsum(), strict=True)
            if total <= 0.8
        ]
        names = ", ".join(("one", "two", "three")[k] for k in kept or order[:1])
        assert text("set") == f"0.9: {names}"
        assert all(
            one.startswith(address) for one in page.requests if "blob" not in one
        )
