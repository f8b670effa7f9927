"""What the README shows works as shown."""

import pathlib
import re

import jax
import jax.numpy as jnp
import numpy as np

README = pathlib.Path(__file__).parents[1] / "README.md"


def python_blocks():
    return re.findall(r"```python\n(.*?)```", README.read_text("utf-8"), re.DOTALL)


def test_the_snippet_runs_and_moves_the_inputs():
    block = python_blocks()[0]
    assert len(block.strip().splitlines()) < 20
    names = {}
    exec(compile(block, str(README), "exec"), names)
    images, moved = names["images"], names["moved"]
    lengths = np.linalg.norm(np.asarray(moved - images), axis=1)
    # A full step, but for the pixels clipped to [0, 1].
    assert (lengths > 0.9 / 255 * np.sqrt(784)).all()


def test_the_snippet_on_speed_runs():
    block = python_blocks()[-1]
    names = {"jax": jax, "your_step": lambda x: 2 * x}
    exec(compile(block, str(README), "exec"), names)
    assert names["step"](jnp.float32(2)) == 4


def test_it_opens_with_the_two_commands():
    opening = README.read_text("utf-8").split("```")[1]
    assert re.findall(r"^make \w+", opening, re.MULTILINE) == ["make demo", "make test"]
