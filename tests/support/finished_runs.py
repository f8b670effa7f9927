"""Compares finished runs."""

import json
import re

import jax
import numpy as np
import orbax.checkpoint as ocp

STUDENTS = ["be_disagreement", "single_conf_ods", "single_none"]  # in their order
STAGES = ["teachers", *(f"students/{name}" for name in STUDENTS)]
LOG_COMPILES = {"JAX_LOG_COMPILES": "1"}


def read_rows(workdir):
    return json.loads((workdir / "results.json").read_text())


def without_times(rows):
    return [{k: v for k, v in row.items() if k != "train_seconds"} for row in rows]


def variables(stage):
    with ocp.StandardCheckpointer() as checkpointer:
        tree = checkpointer.restore((stage / "variables").absolute())
    return {
        jax.tree_util.keystr(path): (x.dtype, x.shape, np.asarray(x).tobytes())
        for path, x in jax.tree_util.tree_leaves_with_path(tree)
    }


def read_log(stage):
    return [json.loads(line) for line in (stage / "metrics.jsonl").open()]


def assert_same_run(workdir, finished):
    """Asserts bitwise equality with the uninterrupted run, each epoch logged once."""
    for stage in STAGES:
        assert variables(workdir / stage) == variables(finished / stage), stage
        log = read_log(workdir / stage)
        assert [row["epoch"] for row in log] == [1, 2, 3]
        assert log == read_log(finished / stage)
    assert without_times(read_rows(workdir)) == without_times(read_rows(finished))


def programs_compiled(done):
    """Returns the names of the programs compiled, in order."""
    return re.findall(r"Compiling (?:jit\()?([\w<>]+)", done.stderr)


def steps_compiled(done):
    return programs_compiled(done).count("step")
