"""Program of a decoding process; `edp.data.decoding_processes` runs it by its path.

Imports NumPy, Pillow and the module of `prepare` alone: the package `edp.data` would
import JAX, in the time that decoding 10,000 small images takes.

Reads pickled values from standard input: first the `sys.path` of the parent process,
then tasks, each the image files (paths or contents) and the other arguments of
`prepare`. Writes `READY`, then for each task `DONE` and the pixels, or `FAILED` if
one of its images cannot be prepared. Ends with its input, so also with its parent.
"""

import importlib.util
import io
import pathlib
import pickle
import sys

READY, DONE, FAILED = b"r", b"d", b"f"


def main() -> None:
    """Answers tasks until the input ends."""
    tasks, answers = sys.stdin.buffer, sys.stdout.buffer.raw
    sys.stdout = sys.stderr  # anything printed would mix with the pixels
    try:
        sys.path[:] = pickle.load(tasks)
        import numpy as np

        prepare = _load("image_preparation").prepare
        answers.write(READY)
        while True:
            files, image_shape, resize, seeds = pickle.load(tasks)
            pixels = np.empty((len(files), *image_shape), np.uint8)
            try:
                for i, file in enumerate(files):
                    file = io.BytesIO(file) if isinstance(file, bytes) else file
                    seed = None if seeds is None else seeds[i]
                    pixels[i] = prepare(file, "", image_shape, resize, seed)
            except Exception:  # the parent prepares them again, and raises the error
                answers.write(FAILED)
                continue
            answers.write(DONE)
            rest = memoryview(pixels).cast("B")
            while rest:
                rest = rest[answers.write(rest) :]
    except (EOFError, BrokenPipeError):  # the parent has ended, or needs no more
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
