"""Headless Chromium, driven through its debugging pipe."""

import base64
import json
import os
import pathlib
import shutil
import subprocess
import tempfile
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
EXECUTABLE = next(filter(None, map(shutil.which, NAMES)), None)


class Page:
    """Page of a browser; a context manager that ends the browser on exit.

    Attributes:
      requests: the addresses that pages requested.
    """

    def __init__(self, width: int, height: int = 800, dark: bool = False):
        self.requests: list[str] = []
        self._width, self._height, self._dark = width, height, dark
        self._count, self._session = 0, None

    def __enter__(self) -> "Page":
        self._home = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        theirs_in, self._out = os.pipe()
        self._in, theirs_out = os.pipe()
        # The browser reads commands from 3 and writes answers to 4.
        shell = f'exec "$@" 3<&{theirs_in} 4>&{theirs_out}'
        options = (
            "--headless --remote-debugging-pipe --no-sandbox --disable-gpu "
            "--disable-dev-shm-usage --no-first-run --disable-background-networking"
        )
        profile = f"--user-data-dir={self._home.name}"
        self._process = subprocess.Popen(
            ["bash", "-c", shell, "bash", EXECUTABLE, *options.split(), profile],
            pass_fds=(theirs_in, theirs_out),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(theirs_in)
        os.close(theirs_out)
        self._answers = os.fdopen(self._in, "rb")
        self._buffer = b""
        target = self._ask("Target.createTarget", url="about:blank")["targetId"]
        attached = self._ask("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Network", "Runtime"):
            self._ask(f"{domain}.enable")
        self._ask(
            "Emulation.setDeviceMetricsOverride",
            width=self._width,
            height=self._height,
            deviceScaleFactor=1,
            mobile=self._width < 600,
        )
        scheme = "dark" if self._dark else "light"
        feature = {"name": "prefers-color-scheme", "value": scheme}
        self._ask("Emulation.setEmulatedMedia", features=[feature])
        return self

    def __exit__(self, *error) -> None:
        self._process.terminate()
        self._process.wait()
        os.close(self._out)
        self._answers.close()
        self._home.cleanup()

    def open(self, file: pathlib.Path) -> None:
        """Loads a file completely."""
        self.go_to(file.absolute().as_uri())

    def go_to(self, address: str) -> None:
        """Loads a page completely."""
        self._ask("Page.navigate", url=address)
        while self._read().get("method") != "Page.loadEventFired":
            pass

    def evaluate(self, expression: str) -> Any:
        """Returns the value of a JavaScript expression on the page."""
        answer = self._ask(
            "Runtime.evaluate", expression=expression, returnByValue=True
        )
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def screenshot(self, file: pathlib.Path, whole: bool = True) -> None:
        """Writes a PNG of the window, or of the whole page."""
        clip = {}
        if whole:
            size = self._ask("Page.getLayoutMetrics")["cssContentSize"]
            clip = {"clip": {**size, "x": 0, "y": 0, "scale": 1}}
        answer = self._ask(
            "Page.captureScreenshot", captureBeyondViewport=whole, **clip
        )
        file.write_bytes(base64.b64decode(answer["data"]))

    def pdf(self, file: pathlib.Path) -> None:
        """Prints the page."""
        answer = self._ask("Page.printToPDF", preferCSSPageSize=True)
        file.write_bytes(base64.b64decode(answer["data"]))

    def _ask(self, method: str, **params) -> dict[str, Any]:
        self._count += 1
        message = {"id": self._count, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._out, json.dumps(message).encode() + b"\0")
        while (answer := self._read()).get("id") != self._count:
            pass
        assert "error" not in answer, (method, answer["error"])
        return answer["result"]

    def _read(self) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            data = self._answers.read1(1 << 20)
            assert data, "the browser has ended"
            self._buffer += data
        text, self._buffer = self._buffer.split(b"\0", 1)
        message = json.loads(text)
        if message.get("method") == "Network.requestWillBeSent":
            self.requests.append(message["params"]["request"]["url"])
        return message
