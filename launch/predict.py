"""Classifies image files with an exported artifact.

    python -m launch.predict --artifact=runs/deployed --out=predictions.csv \\
        photo.jpg folder_of_images

Unreadable files are named and skipped; if no file is readable, the exit code is 2.
"""

import pathlib
import sys

from absl import app, flags

from .cli import arguments

_ARTIFACT = flags.DEFINE_string("artifact", None, "Directory that launch.export wrote.")
_OUT = flags.DEFINE_string(
    "out", "predictions.csv", "CSV file to write; never overwritten."
)
_COVERAGE = flags.DEFINE_float(
    "coverage",
    None,
    "Also write sets that contain the class with this probability, such as 0.9; one "
    "of evaluation.set_coverages of a run with data.calibration_size.",
)
_BATCH_SIZE = flags.DEFINE_integer("batch_size", 256, "Images per forward pass.", 1)


def main(argv: list[str]) -> None:
    with arguments.bad_input_in_a_line():
        arguments.require(_ARTIFACT)
        from edp.errors import InputError
        from edp.export import classify_files

        skipped: list[str] = []
        paths = classify_files.find_images(argv[1:])
        out = pathlib.Path(_OUT.value).expanduser()
        number = classify_files.predict_files(
            pathlib.Path(_ARTIFACT.value).expanduser(),
            paths,
            out,
            batch_size=_BATCH_SIZE.value,
            skip=skipped.append,
            coverage=_COVERAGE.value,
        )
        for line in skipped:
            print(f"skipped: {line}", file=sys.stderr)
        if not number:
            raise InputError(f"none of {len(paths)} images could be read")
    left = f", {len(skipped)} skipped" if skipped else ""
    print(f"{number} of {len(paths)} images classified{left}: {out}")


if __name__ == "__main__":
    app.run(main)
