"""Weights in the formats that others save them in, read as a model's variables."""

import json
import shutil
import subprocess
import sys

import flax.serialization
import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
import pytest
from documents import environment
from flax import nnx
from flax.training import orbax_utils, train_state

from edp.errors import InputError
from edp.experiment import weights
from edp.runtime import checkpoint
from edp.runtime.stage import Stage

RNG = np.random.default_rng(0)
VARIABLES = {
    "params": {
        "conv": {"kernel": RNG.normal(size=(3, 3, 1, 2)).astype(np.float32)},
        "norm": {"scale": np.float32([1, 2]), "bias": np.float32([3, 4])},
    },
    "batch_stats": {
        "norm": {"mean": np.float32([5, 6]), "var": np.float32([7, 8])},
    },
}
LIKE = jax.eval_shape(lambda: VARIABLES)
TRAINED = {
    "step": 3,
    "opt_state": (optax.EmptyState(), {"mu": VARIABLES["params"]}, None),
}


def read(path, like=LIKE):
    return weights.read("member 0", path, like)


def assert_read(path, *words, tolerance=0.0):
    found = read(path)
    assert jax.tree.structure(found.variables) == jax.tree.structure(VARIABLES)
    for a, b in zip(*map(jax.tree.leaves, (found.variables, VARIABLES)), strict=True):
        assert a.dtype == np.float32
        np.testing.assert_allclose(a, b, rtol=tolerance)
    for word in words:
        assert word in found.description, found.description


def save(path, tree, **kwargs):
    ocp.PyTreeCheckpointer().save(path, tree, **kwargs)
    return path


def with_leaf(value):
    tree = jax.tree.map(lambda leaf: leaf, VARIABLES)
    tree["params"]["norm"]["bias"] = value
    return tree


# --- Orbax ------------------------------------------------------------------------


def test_what_orbax_checkpointers_write(tmp_path):
    with ocp.StandardCheckpointer() as standard:
        standard.save(tmp_path / "standard", VARIABLES)
    assert_read(tmp_path / "standard", "an Orbax checkpoint")
    assert_read(save(tmp_path / "pytree", VARIABLES))
    args = orbax_utils.save_args_from_target(VARIABLES)
    assert_read(save(tmp_path / "from_target", VARIABLES, save_args=args))
    no_ocdbt = ocp.Checkpointer(ocp.PyTreeCheckpointHandler(use_ocdbt=False))
    no_ocdbt.save(tmp_path / "zarr", VARIABLES)
    assert_read(tmp_path / "zarr")


def test_a_checkpoint_of_aggregated_leaves_without_metadata(tmp_path):
    """As Orbax 0.5 wrote it: all leaves in one msgpack file named `checkpoint`."""
    (tmp_path / "old").mkdir()
    content = flax.serialization.to_bytes(VARIABLES)
    (tmp_path / "old" / "checkpoint").write_bytes(content)
    assert_read(tmp_path / "old", "an Orbax checkpoint")


def test_a_manager_its_step_and_its_item(tmp_path):
    with ocp.CheckpointManager(tmp_path / "manager") as manager:
        for step, tree in ((2, with_leaf(np.float32([0, 0]))), (10, VARIABLES)):
            manager.save(step, args=ocp.args.StandardSave(tree))
    for path in ("manager", "manager/10", "manager/10/default"):
        assert_read(tmp_path / path)
    assert read(tmp_path / "manager/2").variables["params"]["norm"]["bias"][0] == 0
    both = {name: ocp.args.StandardSave(VARIABLES) for name in ("net", "ema")}
    with ocp.CheckpointManager(tmp_path / "several") as manager:
        manager.save(1, args=ocp.args.Composite(**both))
    with pytest.raises(InputError, match=r"several trees of arrays; .*: .* ema, net"):
        read(tmp_path / "several")
    assert_read(tmp_path / "several/1/net")


def test_a_state_of_training(tmp_path):
    trained = {**VARIABLES, **TRAINED}
    assert_read(save(tmp_path / "dict", trained), "left out: opt_state, step")

    class State(train_state.TrainState):
        batch_stats: dict

    state = State.create(
        apply_fn=None,
        params=jax.tree.map(jnp.asarray, VARIABLES["params"]),
        tx=optax.adam(1.0),
        batch_stats=VARIABLES["batch_stats"],
    )
    assert_read(save(tmp_path / "state", state), "left out: opt_state, step")
    own = {"params": VARIABLES["params"], **TRAINED}
    own["model_state"] = {"batch_stats": VARIABLES["batch_stats"]}
    assert_read(save(tmp_path / "own", own), "left out: opt_state, step")
    whole = {"params": VARIABLES, **TRAINED}
    assert_read(save(tmp_path / "whole", whole), "left out: opt_state, step")
    nested = {"model": trained, "config": {"width": 1}}
    path = save(tmp_path / "nested", nested)
    assert_read(path, "left out: config, model.opt_state, model.step")


@pytest.mark.long
def test_saved_on_eight_devices_and_read_on_one(tmp_path):
    program = f"""
import jax, numpy as np, orbax.checkpoint as ocp
from jax.sharding import NamedSharding, PartitionSpec
mesh = jax.make_mesh((8,), ("data",))
spread = NamedSharding(mesh, PartitionSpec("data"))
tree = {{"params": {{"kernel": jax.device_put(np.arange(16.0), spread)}}}}
ocp.PyTreeCheckpointer().save({str(tmp_path / "eight")!r}, tree)
"""
    flags = {"XLA_FLAGS": "--xla_force_host_platform_device_count=8"}
    env = environment() | flags
    subprocess.run([sys.executable, "-c", program], env=env, check=True)
    like = {"params": {"kernel": jax.ShapeDtypeStruct((16,), np.float32)}}
    found = read(tmp_path / "eight", like).variables["params"]["kernel"]
    np.testing.assert_array_equal(found, np.arange(16.0))


# --- NNX --------------------------------------------------------------------------


class Net(nnx.Module):
    def __init__(self, rngs):
        self.conv = nnx.Conv(1, 2, (3, 3), use_bias=False, rngs=rngs)
        self.norm = nnx.BatchNorm(2, rngs=rngs)
        self.drop = nnx.Dropout(0.5, rngs=rngs)


@pytest.mark.parametrize("pure", [False, True])
def test_the_state_of_an_nnx_module(pure, tmp_path):
    net = Net(nnx.Rngs(0))
    for collection in VARIABLES.values():
        for layer, leaves in collection.items():
            for name, value in leaves.items():
                getattr(getattr(net, layer), name)[...] = value
    if pure:
        state = nnx.to_pure_dict(nnx.state(net, (nnx.Param, nnx.BatchStat)))
        assert_read(save(tmp_path / "net", state))
    else:
        with ocp.StandardCheckpointer() as saver:
            saver.save(tmp_path / "net", nnx.state(net))
        assert_read(tmp_path / "net", "left out: drop")


# --- Files ------------------------------------------------------------------------


def named(separator):
    flat = flax.traverse_util.flatten_dict(VARIABLES, sep=separator)
    return {name: np.asarray(leaf) for name, leaf in flat.items()}


@pytest.mark.parametrize("separator", ["/", "."])
def test_an_npz_of_named_arrays(separator, tmp_path):
    np.savez(tmp_path / "net.npz", **named(separator))
    assert_read(tmp_path / "net.npz", "an .npz file")
    leaves, _ = jax.tree_util.tree_flatten_with_path(VARIABLES)
    keys = {jax.tree_util.keystr(path): leaf for path, leaf in leaves}
    np.savez(tmp_path / "keys.npz", **keys)
    assert_read(tmp_path / "keys.npz")


@pytest.mark.parametrize("name", ["net.msgpack", "checkpoint_100"])
def test_a_msgpack_file_of_flax(name, tmp_path):
    tree = {**VARIABLES, **TRAINED}
    (tmp_path / name).write_bytes(flax.serialization.to_bytes(tree))
    assert_read(tmp_path / name, "a msgpack file", "left out: opt_state, step")


def test_safetensors(tmp_path):
    library = pytest.importorskip("safetensors.numpy")
    library.save_file(named("."), tmp_path / "net.safetensors")
    assert_read(tmp_path / "net.safetensors", "a safetensors file")


def test_safetensors_without_the_package(tmp_path, monkeypatch):
    (tmp_path / "net.safetensors").write_bytes(b"")
    monkeypatch.setitem(sys.modules, "safetensors.numpy", None)
    with pytest.raises(InputError, match=r"pip install safetensors"):
        read(tmp_path / "net.safetensors")


def complete_stage(path, variables, **record):
    stage = Stage(path, {})
    with stage.making():
        stage.begin()
        checkpoint.save_variables(stage.variables, variables)
        stage.complete({"train_seconds": 0.0, "num_params": 22, **record})


def test_a_network_of_the_teachers_of_a_run(tmp_path):
    others = jax.tree.map(np.zeros_like, VARIABLES)
    stacked = jax.tree.map(lambda *leaves: np.stack(leaves), others, VARIABLES)
    complete_stage(tmp_path / "run/teachers", stacked)
    assert_read(tmp_path / "run/teachers#1", "a network of a run")
    zeros = read(tmp_path / "run/teachers#0").variables
    assert not any(leaf.any() for leaf in jax.tree.leaves(zeros))
    with pytest.raises(InputError, match=r"not among the 2 networks .*: #0 to #1"):
        read(tmp_path / "run/teachers#2")
    with pytest.raises(InputError, match=r"accepted: .*WORKDIR/teachers#m"):
        read(tmp_path / "other/teachers#0")
    with pytest.raises(InputError, match="no checkpoint of variables"):
        read(tmp_path / "run/teachers/1")
    shutil.rmtree(tmp_path / "run/teachers/variables")
    with pytest.raises(InputError, match="variables is missing"):
        read(tmp_path / "run/teachers#1")


def test_a_network_of_teachers_in_groups(tmp_path):
    stacked = jax.tree.map(lambda leaf: leaf[None], VARIABLES)
    grouped = {"small": stacked, "large": stacked}
    complete_stage(tmp_path / "teachers", grouped, groups={"small": {}, "large": {}})
    complete_stage(tmp_path / "teachers/groups/small", stacked)
    with pytest.raises(InputError, match=r"teachers/groups/GROUP#m.* small, large"):
        read(tmp_path / "teachers#0")
    assert_read(tmp_path / "teachers/groups/small#0", "a network of a run")


# --- Leaves -----------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [jnp.bfloat16, np.float16, np.float64])
def test_other_floating_point_numbers(dtype, tmp_path):
    tree = jax.tree.map(lambda leaf: np.asarray(leaf, dtype), VARIABLES)
    assert_read(save(tmp_path / "net", tree), tolerance=float(jnp.finfo(dtype).eps))


FAULTY = {
    "nan": (np.float32([0, np.nan]), "params.norm.bias is not finite in float32"),
    "too large": (np.float64([0, 1e300]), "params.norm.bias is not finite in float32"),
    "integers": (np.int32([0, 1]), "params.norm.bias is of int32 and should be"),
    "text": (np.array(["a", "b"]), "params.norm.bias is of <U1 and should be"),
    "shape": (np.zeros((3,)), r"params.norm.bias has shape \(3,\) and should have"),
}


@pytest.mark.parametrize("case", FAULTY)
@pytest.mark.filterwarnings("ignore:overflow encountered")
def test_faulty_leaves_are_named(case, tmp_path):
    value, words = FAULTY[case]
    np.savez(
        tmp_path / "net.npz",
        **flax.traverse_util.flatten_dict(with_leaf(value), sep="."),
    )
    with pytest.raises(InputError, match=f"member 0 does not fit .*: {words}"):
        read(tmp_path / "net.npz")


def test_surplus_leaves_are_named_in_order(tmp_path):
    tree = with_leaf(VARIABLES["params"]["norm"]["bias"])
    tree["params"] |= {name: {"kernel": np.zeros(1)} for name in "cab"}
    tree["batch_stats"]["other"] = {"mean": np.zeros(1)}
    words = r"batch_stats\.other\.mean is not.* params\.a\..* params\.b\..* and 1 more"
    with pytest.raises(InputError, match=words):
        read(save(tmp_path / "net", {**tree, **TRAINED}))
    # Statistics that the model lacks are no state of training.
    like = {"params": LIKE["params"]}
    with pytest.raises(InputError, match=r"batch_stats\.norm\.mean is not a variable"):
        read(save(tmp_path / "stats", {**VARIABLES, **TRAINED}), like)


def test_what_is_no_checkpoint(tmp_path):
    (tmp_path / "notes.txt").write_text("no weights")
    (tmp_path / "record.json").write_text(json.dumps({}))
    for path in (tmp_path, tmp_path / "notes.txt", tmp_path / "absent"):
        with pytest.raises(InputError, match="member 0 is no checkpoint of variables"):
            read(path)
    (tmp_path / "net.npz").write_bytes(b"PK\3\4 and no more")
    with pytest.raises(InputError, match=r"member 0 cannot be read as an \.npz file"):
        read(tmp_path / "net.npz")
    two = {"a": VARIABLES, "b": VARIABLES}
    with pytest.raises(InputError, match=r"several networks: a\.params, b\.params"):
        read(save(tmp_path / "two", two))
