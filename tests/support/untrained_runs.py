"""Completes stages with random networks, without training."""

import jax
import jax.numpy as jnp
import numpy as np

from edp.experiment import restore
from edp.runtime.stage import Stage


def draw(shapes, seed):
    """Draws variables of these shapes without the time of initialisation."""
    rng = np.random.default_rng(seed)

    def leaf(path, like):
        values = rng.normal(0, 1, like.shape)
        if path[-1].key == "kernel":
            values *= 2 if "head" in jax.tree_util.keystr(path) else 1
            values *= np.sqrt(2 * like.shape[-1] / like.size)
        elif path[-1].key in ("bias", "mean"):
            values *= 0.1
        else:
            values = 1 + 0.2 * np.abs(values)
        return jnp.asarray(values, like.dtype)

    return jax.tree_util.tree_map_with_path(leaf, shapes)


def finish_teachers(run, seed):
    shapes = restore.teachers_like(run, run.build_teacher())
    stage = Stage(run.teachers_dir, run.teacher_dependencies)
    _complete(stage, draw(shapes, seed), run.num_kept)


def finish_student(run, name, seed):
    student = restore.create_student(run, name)
    shapes = jax.eval_shape(
        lambda key, x: student.finalise(student.init(key, x)),
        run.key,
        run.example,
    )
    _complete(restore.student_stage(run, name), draw(shapes, seed), 1)


def _complete(stage, variables, num_networks):
    stage.begin()
    restore.complete(stage, variables, {"train_seconds": 1.0}, num_networks)
