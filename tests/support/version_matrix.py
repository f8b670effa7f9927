"""Prints which versions of JAX read the programs that other versions write.

    python tests/support/version_matrix.py [VERSION ...]

Needs `uv` and a package index. Each version runs in an environment of its own, with
Python 3.12. The program is like an artifact's: uint8 images, a convolution, weights as
constants, for CPU, GPU and TPU; for any batch size, and for one.
"""

import json
import pathlib
import subprocess
import sys
import tempfile

VERSIONS = ("0.6.2", "0.7.2", "0.8.3", "0.9.2", "0.10.2", "0.11.2", "0.12.0.1")
PYTHON = "3.12"

_COMMON = """
import json, pathlib, sys
import jax, jax.export, jax.numpy as jnp, numpy as np
root, version = pathlib.Path(sys.argv[1]), sys.argv[2]
images = np.arange(3 * 64, dtype=np.uint8).reshape(3, 8, 8, 1)
"""
_WRITE = """
kernel = np.linspace(-1, 1, 36, dtype=np.float32).reshape(3, 3, 1, 4)

def program(images):
    x = images.astype(jnp.float32) / 255
    x = jax.lax.conv_general_dilated(
        x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))
    probs = jax.nn.softmax(jnp.maximum(x, 0).mean((1, 2)))
    return {"probs": probs, "entropy": -(probs * jnp.log(probs)).sum(-1)}

for name, size in (("any", jax.export.symbolic_shape("batch")[0]), ("fixed", 3)):
    export = jax.export.export(jax.jit(program), platforms=("cpu", "cuda", "tpu"))
    exported = export(jax.ShapeDtypeStruct((size, 8, 8, 1), np.uint8))
    (root / f"{version}-{name}").write_bytes(exported.serialize())
np.save(root / f"{version}.npy", program(images)["probs"])
print(exported.calling_convention_version)
"""
_READ = """
found = {}
for path in sorted(root.glob("*-*")):
    try:
        exported = jax.export.deserialize(bytearray(path.read_bytes()))
        probs = jax.jit(exported.call)(images)["probs"]
        wanted = np.load(root / f"{path.name.split('-')[0]}.npy")
        assert np.abs(np.asarray(probs) - wanted).max() < 1e-5
        found[path.name] = "reads"
    except Exception as error:
        found[path.name] = str(error).strip().splitlines()[0][:100]
print(json.dumps(found))
"""


def run(version: str, program: str, root: pathlib.Path) -> str:
    """Returns the last line that a program prints with one version of JAX."""
    command = ["uv", "run", "-q", "--no-project", "--python", PYTHON]
    for package in (f"jax[cpu]=={version}", "flatbuffers", "numpy"):
        command += ["--with", package]
    done = subprocess.run(
        [*command, "python", "-c", _COMMON + program, root, version],
        capture_output=True,
        text=True,
        check=False,
        cwd=root,
    )
    if done.returncode:
        raise RuntimeError(f"jax {version}: {done.stderr[-500:]}")
    return done.stdout.splitlines()[-1]


def matrix(versions: tuple[str, ...]) -> dict[str, dict[str, str]]:
    """Returns by reader, and by "WRITER-any" and "WRITER-fixed", "reads" or why not."""
    with tempfile.TemporaryDirectory() as scratch:
        root = pathlib.Path(scratch)
        for version in versions:
            convention = run(version, _WRITE, root)
            print(f"jax {version} writes calling convention {convention}", flush=True)
        return {version: json.loads(run(version, _READ, root)) for version in versions}


def main() -> None:
    versions = tuple(sys.argv[1:]) or VERSIONS
    found = matrix(versions)
    print("| Written by, read by | " + " | ".join(versions) + " |")
    print("| --- " * (len(versions) + 1) + "|")
    reasons = {}
    for writer in versions:
        cells = []
        for reader in versions:
            results = [found[reader][f"{writer}-{form}"] for form in ("any", "fixed")]
            reads = [result == "reads" for result in results]
            cells.append(
                {(1, 1): "yes", (0, 1): "fixed", (1, 0): "any"}.get(tuple(reads), "no")
            )
            reasons |= {r: (writer, reader) for r in results if r != "reads"}
        print(f"| {writer} | " + " | ".join(cells) + " |")
    for reason, (writer, reader) in reasons.items():
        print(f"{writer} by {reader}: {reason}")


if __name__ == "__main__":
    main()
