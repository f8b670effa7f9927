"""The mesh and where arrays live on it: the one place that names its axes.

`member` splits the stacked ensemble, `data` splits batches.
"""

from collections.abc import Callable, Sequence

import jax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from edp.errors import InputError

MEMBER, DATA = "member", "data"


def create_mesh(member: int, data: int) -> Mesh | None:
    """A mesh of `member` x `data` devices; None for one device.

    Raises:
      InputError: where there are fewer devices than the mesh asks for.
    """
    available = jax.device_count()
    if min(member, data) < 1 or member * data > available:
        raise InputError(
            f"mesh.member={member} x mesh.data={data} must be between 1 and the "
            f"{available} device(s) that JAX sees"
        )
    if member * data == 1:
        return None
    devices = jax.devices()[: member * data]
    # Auto, not make_mesh's default: Linen's modules fail under Explicit axes.
    return jax.make_mesh(
        (member, data), (MEMBER, DATA), axis_types=(AxisType.Auto,) * 2, devices=devices
    )


def check_divides(mesh: Mesh | None, axis: str, name: str, size: int) -> None:
    """Raises an InputError unless `size` of the setting `name` splits over `axis`."""
    if mesh is not None and size % mesh.shape[axis]:
        raise InputError(
            f"{name}={size} does not divide over mesh.{axis}={mesh.shape[axis]}; "
            f"accepted: multiples of {mesh.shape[axis]}"
        )


def put(tree, mesh: Mesh | None, *axes: str | None):
    """Places every array of `tree`, its leading dimensions split over `axes`."""
    if mesh is None:
        return jax.device_put(tree)
    return jax.device_put(tree, NamedSharding(mesh, PartitionSpec(*axes)))


def constrain(tree, mesh: Mesh | None, *axes: str | None):
    """Inside jit: asks for the leading dimensions to be split over `axes`."""
    if mesh is None:
        return tree
    sharding = NamedSharding(mesh, PartitionSpec(*axes))
    return jax.lax.with_sharding_constraint(tree, sharding)


def over_members(fn: Callable, mesh: Mesh | None, in_axes: Sequence[int | None]):
    """Runs `fn` on each device's own members, with no communication between them.

    Args:
      fn: takes and returns trees with a leading member axis.
      mesh: from `create_mesh`.
      in_axes: per argument, 0 where it has the member axis, None where shared.

    Returns:
      A function of the same arguments. (Under plain `jit`, convolutions over
      sharded members would be gathered on every device.)
    """
    if mesh is None or mesh.shape[MEMBER] == 1:
        return fn
    specs = tuple(
        PartitionSpec() if axis is None else PartitionSpec(MEMBER) for axis in in_axes
    )
    return jax.shard_map(
        fn,
        mesh=mesh,
        in_specs=specs,
        out_specs=PartitionSpec(MEMBER),
        axis_names={MEMBER},
        check_vma=False,
    )
