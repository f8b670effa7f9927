"""Device mesh and shardings; the only module that names the mesh axes.

Axis `member` shards the stacked ensemble, axis `data` shards batches.
"""

import math
from collections.abc import Callable, Sequence

import jax
import numpy as np
from jax.experimental import mesh_utils, multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from edp.errors import InputError

MEMBER, DATA = "member", "data"

# The sharding of an array's leading dimensions, as in a PartitionSpec: per dimension
# the name of a mesh axis, several names, or None.
Axes = Sequence[str | tuple[str, ...] | None]


def create_mesh(member: int, data: int) -> Mesh | None:
    """Returns a mesh of `member` x `data` devices; None for one device.

    Neighbours along `data` share a fast interconnect. Between slices, the mesh splits
    members as far as they divide, because they communicate least.

    Raises:
      InputError: if there are fewer devices than the mesh needs or, with several
        processes, more.
    """
    available = jax.device_count()
    if min(member, data) < 1 or member * data > available:
        raise InputError(
            f"mesh.member={member} x mesh.data={data} must be between 1 and the "
            f"{available} device(s) that JAX sees"
        )
    if jax.process_count() > 1 and member * data < available:
        raise InputError(
            f"mesh.member={member} x mesh.data={data} must be {available}, the "
            f"devices of all {jax.process_count()} processes"
        )
    if member * data == 1:
        return None
    devices = jax.devices()[: member * data]
    shape, axes = (member, data), (MEMBER, DATA)
    # Not Explicit, the default of make_mesh, under which Linen modules fail.
    types = (AxisType.Auto,) * 2
    # A slice has a fast interconnect: the GPUs of a host, the chips of a TPU slice.
    slices = len({getattr(device, "slice_index", 0) for device in devices})
    if slices == 1:
        return jax.make_mesh(shape, axes, axis_types=types, devices=devices)
    outer = math.gcd(member, slices), slices // math.gcd(member, slices)
    inner = member // outer[0], data // outer[1]
    arranged = mesh_utils.create_hybrid_device_mesh(inner, outer, devices)
    return Mesh(arranged, axes, axis_types=types)


def axis_size(mesh: Mesh | None, axis: str) -> int:
    """Returns the number of devices on `axis`; 1 without a mesh."""
    return 1 if mesh is None else mesh.shape[axis]


def check_divides(mesh: Mesh | None, axis: str, name: str, size: int) -> None:
    """Raises an InputError unless `axis` divides `size`, the setting `name`."""
    if size % axis_size(mesh, axis):
        raise InputError(
            f"{name}={size} does not divide over mesh.{axis}={mesh.shape[axis]}; "
            f"accepted: multiples of {mesh.shape[axis]}"
        )


def put(tree, mesh: Mesh | None, *axes: str | None):
    """Places every array of `tree`, its leading dimensions sharded over `axes`.

    Every process passes the same global arrays.
    """
    if mesh is None:
        return jax.device_put(tree)
    sharding = NamedSharding(mesh, PartitionSpec(*axes))
    return jax.tree.map(lambda x: _place(x, sharding), tree)


def _place(x, sharding: NamedSharding) -> jax.Array:
    """Places an array as `jax.device_put`, without sending it between processes."""
    if sharding.is_fully_addressable or not getattr(x, "is_fully_addressable", True):
        return jax.device_put(x, sharding)
    x = np.asarray(x)
    return jax.make_array_from_callback(x.shape, sharding, lambda index: x[index])


def fetch(x: jax.Array) -> np.ndarray:
    """Returns the global array in every process, however it is sharded."""
    if x.is_fully_addressable or x.is_fully_replicated:
        return np.asarray(x)
    return multihost_utils.process_allgather(x, tiled=True)


def local_part(
    shape: Sequence[int], mesh: Mesh | None, *axes: str | None
) -> tuple[slice, ...]:
    """Returns this process's part of an array [*shape] sharded over `axes`.

    The part is the smallest block that contains the shards of all its devices.
    """
    if mesh is None:
        return tuple(slice(0, size) for size in shape)
    sharding = NamedSharding(mesh, PartitionSpec(*axes))
    held = sharding.addressable_devices_indices_map(tuple(shape)).values()
    bounds = [[s.indices(n) for s, n in zip(i, shape, strict=True)] for i in held]
    return tuple(
        slice(min(b[0] for b in own), max(b[1] for b in own))
        for own in zip(*bounds, strict=True)
    )


def put_parts(tree, mesh: Mesh | None, shape: Sequence[int], *axes: str | None):
    """Places arrays sharded over `axes` from the `local_part` of each process.

    Args:
      tree: a tree of host arrays [*part, ...].
      mesh: from `create_mesh`.
      shape: the leading dimensions of the global arrays.
      *axes: the mesh axes of these dimensions.
    """
    if mesh is None:
        return jax.device_put(tree)
    sharding = NamedSharding(mesh, PartitionSpec(*axes))
    return jax.tree.map(
        lambda x: jax.make_array_from_process_local_data(
            sharding, x, (*shape, *x.shape[len(shape) :])
        ),
        tree,
    )


def constrain(tree, mesh: Mesh | None, *axes: str | tuple[str, ...] | None):
    """Constrains, inside jit, the leading dimensions to be sharded over `axes`."""
    if mesh is None:
        return tree
    sharding = NamedSharding(mesh, PartitionSpec(*axes))
    return jax.lax.with_sharding_constraint(tree, sharding)


def batch_axes(mesh: Mesh | None, batch_size: int) -> tuple[str, ...]:
    """Returns the axes that shard one network's batch: both, if they divide it.

    A student has no members to shard; without this, the devices along `member` would
    repeat each other's work. With `data` first, a device's shard is part of its shard
    over `data` alone, so that nothing is communicated.
    """
    divides = mesh is not None and batch_size % mesh.size == 0
    return (DATA, MEMBER) if divides else (DATA,)


def put_spread(tree, mesh: Mesh | None, min_size: int = 2**14):
    """Shards each large array over all devices, along its largest divisible dimension.

    Replicates arrays without such a dimension, or with fewer than `min_size` elements.
    So a device keeps its share of the optimizer's momentum (ZeRO-1, arXiv 1910.02054)
    and computes its share of the update, which every step then gathers.
    """
    if mesh is None:
        return jax.device_put(tree)

    def place(x):
        dividing = [d for d in range(x.ndim) if x.shape[d] % mesh.size == 0]
        if x.size < min_size:
            dividing = []
        split = max(dividing, key=lambda d: x.shape[d], default=None)
        axes = [(DATA, MEMBER) if d == split else None for d in range(x.ndim)]
        return _place(x, NamedSharding(mesh, PartitionSpec(*axes)))

    return jax.tree.map(place, tree)


def per_device(
    fn: Callable, mesh: Mesh | None, in_axes: Sequence[Axes], out_axes: Axes
) -> Callable:
    """Maps `fn` over the devices' shards of its arguments.

    `fn` does not communicate over the axes named; under plain `jit`, convolutions over
    sharded members would be gathered on every device. Over other axes, arrays are
    sharded as under `jit`, and a sum over a batch is a sum over the global batch.

    Args:
      fn: takes and returns trees of arrays.
      mesh: from `create_mesh`.
      in_axes: per argument, the mesh axes of its leading dimensions.
      out_axes: those of the result.

    Returns:
      A function of the same arguments.
    """
    named = {axis for axes in (*in_axes, out_axes) for axis in axes if axis}
    if mesh is None:
        return fn
    return jax.shard_map(
        fn,
        mesh=mesh,
        in_specs=tuple(PartitionSpec(*axes) for axes in in_axes),
        out_specs=PartitionSpec(*out_axes),
        axis_names=named,
        check_vma=False,
    )
