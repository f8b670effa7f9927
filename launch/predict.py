"""Classifies image files with an exported artifact, or with a student of a run.

    python -m launch.predict --artifact=runs/deployed --out=predictions.csv \\
        photo.jpg folder_of_images
    python -m launch.predict --workdir=runs/digits --student=best photo.jpg

The second form uses exported/STUDENT in the workdir, which it exports first if it is
not there.

Unreadable files are named and skipped; if no file is readable, the exit code is 2.
"""

import pathlib
import sys

from absl import app, flags

from .cli import arguments, devices

_ARTIFACT = flags.DEFINE_string("artifact", None, "Directory that launch.export wrote.")
_WORKDIR = flags.DEFINE_string("workdir", None, "Directory of a run, for --student.")
_STUDENT = flags.DEFINE_string(
    "student",
    None,
    "Instead of --artifact: a student of the run; best: that with the lowest "
    "validation cNLL; teachers: the ensemble.",
)
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
        from edp.errors import InputError

        _check_flags()
        from edp.export import classify_files

        devices.check()
        skipped: list[str] = []
        paths = classify_files.find_images(argv[1:])
        out = pathlib.Path(_OUT.value).expanduser()
        classify_files.check_out(out)  # before a student is exported
        artifact = _find_artifact()
        number = classify_files.predict_files(
            artifact,
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


def _check_flags() -> None:
    """Raises an InputError if the flags do not name one artifact."""
    from edp.errors import InputError

    if _STUDENT.value is None:
        if _WORKDIR.value is not None:
            raise InputError("--workdir needs --student, and no --artifact")
        arguments.require(_ARTIFACT)
    elif _ARTIFACT.value is not None:
        raise InputError("--student does not go with --artifact")
    else:
        arguments.require(_WORKDIR)


def _find_artifact() -> pathlib.Path:
    """Returns the artifact of `--artifact`, or of `--student`, exported if missing."""
    if _STUDENT.value is None:
        return pathlib.Path(_ARTIFACT.value).expanduser()
    from edp.export import from_run
    from edp.runtime import storage

    workdir = storage.as_path(_WORKDIR.value)
    name, directory, _ = from_run.export_student(workdir, _STUDENT.value, None)
    print(f"{name}: {directory}")
    return directory


if __name__ == "__main__":
    app.run(main)
