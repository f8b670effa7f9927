"""Exports a student, or the ensemble, as one artifact that runs without edp.

    python -m launch.export --workdir=runs/digits --student=single_conf_ods

writes runs/digits/exported/single_conf_ods, or the directory given by --out;
--to=onnx,openvino,web,litert adds other runtimes, --precision=int8 makes them smaller.
--student=best exports the student with the lowest validation cNLL, --student=teachers
the ensemble. The run must be evaluated; its configuration file is not needed, and its
data only with --to. The artifact's `load.py` shows how to use it.
"""

import os

from absl import app, flags

from .cli import arguments

os.environ.setdefault("JAX_PLATFORMS", "cpu")  # exports a program, runs none
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # TensorFlow logs how it is built

_WORKDIR = flags.DEFINE_string("workdir", None, "Directory of the run.")
_STUDENT = flags.DEFINE_string(
    "student",
    None,
    "Name of the student; best: that with the lowest validation cNLL; teachers: the "
    "ensemble.",
)
_TO = flags.DEFINE_list(
    "to",
    ["jax"],
    "Runtimes to write for, beside jax: onnx, openvino, web, litert (needs the extras "
    "onnx, openvino, litert). Each is compared with JAX on images of the run's test "
    "split.",
)
_PRECISION = flags.DEFINE_string(
    "precision",
    "float32",
    "float32; float16 or int8 (of the runtimes other than jax); or bfloat16 (jax and "
    "openvino).",
)
_MAX_NLL_INCREASE = flags.DEFINE_float(
    "max_nll_increase",
    None,
    "Largest accepted increase of the NLL on the compared images; default: any.",
)
_BATCH = flags.DEFINE_integer(
    "batch_size", None, "The only accepted batch size; default: any.", 1
)
_WEB_RUNTIME = flags.DEFINE_string(
    "web_runtime",
    None,
    "Address of the files of onnxruntime-web for --to=web, relative to the page or "
    "absolute, such as ort/ beside it. Default: a public server.",
)
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
            targets=tuple(_TO.value),
            precision=_PRECISION.value,
            max_nll_increase=_MAX_NLL_INCREASE.value,
            batch_size=_BATCH.value,
            **({"web_runtime": _WEB_RUNTIME.value} if _WEB_RUNTIME.value else {}),
        )
    size = sum(path.stat().st_size for path in directory.rglob("*.*")) / 1e6
    size_or_state = f"{size:.1f} MB" if written else "complete"
    print(f"{name}: {directory} ({size_or_state})")
    if "web" in _TO.value:
        page = directory / "web"
        print(f"  page: python -m http.server --directory {page}, then localhost:8000")
    checks = storage.read_mapping(directory / "metadata.json").get("checks") or {}
    for target, found in checks.items():
        if "nll" in found:
            print(
                f"  {target}: accuracy {100 * found['accuracy']:.1f} %, NLL "
                f"{found['nll']:.4f}, ECE {100 * found['ece']:.1f} % on "
                f"{found['images']} test images"
            )


if __name__ == "__main__":
    app.run(main)
