"""Program of a decoding process; `edp.data.decoding_processes` runs it by its path.

Imports NumPy, Pillow and the module of `prepare` alone: the package `edp.data` would
import JAX, in the time that decoding 10,000 small images takes.

Reads lines of JSON from standard input: first the `sys.path` of the parent process,
then tasks, each the other arguments of `prepare` and the image files, of which each
is a path or the size of its content, which follows. Writes `READY`, then for each
task `DONE` and the pixels, or `FAILED` if one of its images cannot be prepared. Ends
with its input, so also with its parent.
"""

import importlib.util
import io
import json
import pathlib
import sys

READY, DONE, FAILED = b"r", b"d", b"f"


def main() -> None:
    """Answers tasks until the input ends."""
    tasks, answers = sys.stdin.buffer, sys.stdout.buffer.raw
    sys.stdout = sys.stderr  # anything printed would mix with the pixels
    sys.path[:] = json.loads(tasks.readline())
    import numpy as np

    prepare = _load("image_preparation").prepare
    try:
        answers.write(READY)
        for line in tasks:
            image_shape, resize, files = json.loads(line)
            opened = [
                io.BytesIO(tasks.read(file)) if isinstance(file, int) else file
                for file in files
            ]
            pixels = np.empty((len(files), *image_shape), np.uint8)
            try:
                for i, file in enumerate(opened):
                    pixels[i] = prepare(file, "", tuple(image_shape), resize)
            except Exception:  # the parent prepares them again, and raises the error
                answers.write(FAILED)
                continue
            answers.write(DONE)
            rest = memoryview(pixels).cast("B")
            while rest:
                rest = rest[answers.write(rest) :]
    except BrokenPipeError:  # the parent has ended, or needs no more
        pass


def _load(name: str):
    """Loads a module of this directory without its package."""
    path = pathlib.Path(__file__).with_name(f"{name}.py")
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


if __name__ == "__main__":
    main()
