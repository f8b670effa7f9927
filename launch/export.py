"""Exports a student, or the ensemble, as one artifact that runs without edp.

    python -m launch.export --workdir=runs/digits --student=single_conf_ods

writes runs/digits/exported/single_conf_ods, or the directory given by --out.
--student=best exports the student with the lowest validation cNLL, --student=teachers
the ensemble. The run must be evaluated; its data and its
configuration file are not needed. The artifact's `load.py` shows how to use it.
"""

import os

from absl import app, flags

from .cli import arguments

os.environ.setdefault("JAX_PLATFORMS", "cpu")  # exports a program, runs none

_WORKDIR = flags.DEFINE_string("workdir", None, "Directory of the run.")
_STUDENT = flags.DEFINE_string(
    "student",
    None,
    "Name of the student; best: that with the lowest validation cNLL; teachers: the "
    "ensemble.",
)
_ONNX = flags.DEFINE_bool("onnx", False, "Also write model.onnx; needs the extra onnx.")
_OUT = flags.DEFINE_string(
    "out",
    None,
    "Directory to create; nothing is overwritten. Default: exported/STUDENT in the "
    "workdir.",
)


def main(argv: list[str]) -> None:
    with arguments.bad_input_in_a_line():
        arguments.refuse_arguments(argv[1:])
        arguments.require(_WORKDIR, _STUDENT)
        from edp.export import from_run
        from edp.runtime import storage

        name, directory, written = from_run.export_student(
            storage.as_path(_WORKDIR.value),
            _STUDENT.value,
            storage.as_path(_OUT.value) if _OUT.value else None,
            onnx=_ONNX.value,
        )
    size = sum(path.stat().st_size for path in directory.iterdir()) / 1e6
    size_or_state = f"{size:.1f} MB" if written else "complete"
    print(f"{name}: {directory} ({size_or_state})")


if __name__ == "__main__":
    app.run(main)
