"""The mesh and where arrays live on it: the one place that names its axes.

`member` splits the stacked ensemble, `data` splits batches.
"""

import math
from collections.abc import Callable, Sequence

import jax
import numpy as np
from jax.experimental import mesh_utils, multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from edp.errors import InputError

MEMBER, DATA = "member", "data"

# What the leading dimensions of an array are split over, as in a PartitionSpec:
# per dimension the name of an axis, several names, or None for no split.
Axes = Sequence[str | tuple[str, ...] | None]


def create_mesh(member: int, data: int) -> Mesh | None:
    """A mesh of `member` x `data` devices; None for one device.

    Those along `data` are near each other. Where a network lies between devices,
    it is members that lie on both sides of it as far as they divide: they
    communicate least.

    Raises:
      InputError: where there are fewer devices than the mesh asks for, or, with
        several processes, more.
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
    # Auto, not make_mesh's default: Linen's modules fail under Explicit axes.
    types = (AxisType.Auto,) * 2
    # The devices of a slice have a fast connection: a host's GPUs, a TPU's chips.
    slices = len({getattr(device, "slice_index", 0) for device in devices})
    if slices == 1:
        return jax.make_mesh(shape, axes, axis_types=types, devices=devices)
    outer = math.gcd(member, slices), slices // math.gcd(member, slices)
    inner = member // outer[0], data // outer[1]
    arranged = mesh_utils.create_hybrid_device_mesh(inner, outer, devices)
    return Mesh(arranged, axes, axis_types=types)


def axis_size(mesh: Mesh | None, axis: str) -> int:
    """How many devices `axis` has; 1 without a mesh."""
    return 1 if mesh is None else mesh.shape[axis]


def check_divides(mesh: Mesh | None, axis: str, name: str, size: int) -> None:
    """Raises an InputError unless `size` of the setting `name` splits over `axis`."""
    if size % axis_size(mesh, axis):
        raise InputError(
            f"{name}={size} does not divide over mesh.{axis}={mesh.shape[axis]}; "
            f"accepted: multiples of {mesh.shape[axis]}"
        )


def put(tree, mesh: Mesh | None, *axes: str | None):
    """Places every array of `tree`, its leading dimensions split over `axes`.

    Of several processes each gives the same whole arrays.
    """
    if mesh is None:
        return jax.device_put(tree)
    sharding = NamedSharding(mesh, PartitionSpec(*axes))
    return jax.tree.map(lambda x: _place(x, sharding), tree)


def _place(x, sharding: NamedSharding) -> jax.Array:
    """`jax.device_put`, which would send a process's array to all, to compare."""
    if sharding.is_fully_addressable or not getattr(x, "is_fully_addressable", True):
        return jax.device_put(x, sharding)
    x = np.asarray(x)
    return jax.make_array_from_callback(x.shape, sharding, lambda index: x[index])


def fetch(x: jax.Array) -> np.ndarray:
    """The whole array in every process, wherever its parts are."""
    if x.is_fully_addressable or x.is_fully_replicated:
        return np.asarray(x)
    return multihost_utils.process_allgather(x, tiled=True)


def local_part(
    shape: Sequence[int], mesh: Mesh | None, *axes: str | None
) -> tuple[slice, ...]:
    """The part of an array [*shape], split over `axes`, that this process holds.

    The smallest block in which the parts of all its devices lie.
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
    """Places arrays split over `axes`, of which each process gives its `local_part`.

    Args:
      tree: of host arrays [*part, ...].
      mesh: from `create_mesh`.
      shape: the leading dimensions of the whole arrays.
      *axes: what these are split over.
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
    """Inside jit: asks for the leading dimensions to be split over `axes`."""
    if mesh is None:
        return tree
    sharding = NamedSharding(mesh, PartitionSpec(*axes))
    return jax.lax.with_sharding_constraint(tree, sharding)


def batch_axes(mesh: Mesh | None, batch_size: int) -> tuple[str, ...]:
    """The axes that one network's batch splits over: all of them, if it divides.

    A student has no members to put on `member`; those devices would otherwise all
    compute the same. With `data` first, a device's part is a part of what it
    holds under a split over `data` alone, and nothing has to be sent.
    """
    divides = mesh is not None and batch_size % mesh.size == 0
    return (DATA, MEMBER) if divides else (DATA,)


def put_spread(tree, mesh: Mesh | None, min_size: int = 2**14):
    """Places each large array split over all devices, along one dimension.

    The largest that divides; an array without one, or of fewer than `min_size`
    elements, is put on every device. So a device keeps its share of an optimizer's
    momentum (as in ZeRO-1, arXiv 1910.02054) and computes its share of the update,
    which every step then gathers.
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
    """Runs `fn` on each device's own part of its arguments.

    Over the axes that are named, `fn` does not communicate; under plain `jit`,
    convolutions over sharded members would be gathered on every device. Over an
    axis that is not named, arrays are split as under `jit`, and sums over a batch
    are sums over all of it.

    Args:
      fn: takes and returns trees of arrays.
      mesh: from `create_mesh`.
      in_axes: per argument, what its leading dimensions are split over.
      out_axes: the same for the result.

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
