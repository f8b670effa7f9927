"""Tests of the commands that export a network and predict with it."""

import json
import shutil
import subprocess
import sys

import numpy as np
from documents import ROOT
from exported_runs import TEMPERATURE, read_csv

from edp import metrics, students
from edp.evaluation import predictions


def command(name, *flags):
    return subprocess.run(
        [sys.executable, "-m", f"launch.{name}", *map(str, flags)],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )


def test_the_commands(experiment, photos, tmp_path):
    artifact, out = tmp_path / "artifact", tmp_path / "out.csv"
    flags = [
        f"--workdir={experiment.run.workdir}",
        "--student=dirichlet",
        f"--out={artifact}",
    ]
    done = command("export", *flags)
    assert (done.returncode, done.stderr) == (0, ""), done
    assert done.stdout == f"dirichlet: {artifact} (0.0 MB)\n"
    done = command("predict", f"--artifact={artifact}", f"--out={out}", photos)
    assert done.returncode == 0, done
    assert done.stdout == f"6 of 7 images classified, 1 skipped: {out}\n"
    warning, skipped = done.stderr.splitlines()
    assert warning.startswith(f"warning: {photos}: 1 files are left out (1 .txt)")
    assert skipped.startswith(f"skipped: cannot read the image {photos}/b/2b.png")
    assert len(read_csv(out)) == 6


def test_the_best_student_by_validation_is_exported_and_predicts(
    experiment, photos, tmp_path
):
    copy, out = tmp_path / "run", tmp_path / "out.csv"
    shutil.copytree(experiment.run.workdir, copy)
    rows = json.loads((copy / "results.json").read_text())
    cnll = {}
    for name in students.STUDENTS:
        of = predictions.load_predictions(copy / f"predictions/{name}.npz")
        pooled = metrics.apply_temperature(
            of.validation_probs.mean(0, dtype=float), TEMPERATURE
        )
        chosen = pooled[np.arange(len(pooled)), of.validation_labels]
        cnll[name] = -np.log(chosen).mean()
    best = min(cnll, key=cnll.get)
    # Whatever the test images say.
    for row in rows:
        row["cnll"] = 0.0 if row["model"] != best else 9.0
    (copy / "results.json").write_text(json.dumps(rows))
    flags = [f"--workdir={copy}", "--student=best", f"--out={out}", photos / "a.JPG"]
    done = command("predict", *flags)
    assert done.returncode == 0, done
    assert done.stdout.startswith(f"{best}: {copy}/exported/{best}\n1 of 1 images")
    assert (copy / f"exported/{best}/model.jax").exists() and len(read_csv(out)) == 1
    done = command("export", *flags[:2])
    assert (done.returncode, done.stderr) == (0, ""), done
    assert done.stdout == f"{best}: {copy}/exported/{best} (complete)\n"
    done = command("predict", *flags[:2], f"--artifact={copy}", photos)
    assert done.returncode == 2 and "--student does not go with" in done.stderr
    done = command("predict", flags[0], f"--artifact={copy}", photos)
    assert done.returncode == 2 and "--workdir needs --student" in done.stderr
    # The file to write is checked before a student is exported.
    shutil.rmtree(copy / "exported")
    done = command("predict", *flags)
    assert done.returncode == 2 and "out.csv' exists already" in done.stderr
    assert not (copy / "exported").exists()
