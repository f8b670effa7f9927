"""Tiny runs in two processes of four devices each."""

import socket
import threading

import quick_compiler
from launching import UNSHIFTED, finish, tiny

STUDENT = "single_gaussian"
MESH = ["--config.mesh.member=2", "--config.mesh.data=4"]
SHORT = [
    "--config.teachers.num_epochs=2",
    "--config.distill.num_epochs=2",
    "--config.data.crop_padding=0",
    "--config.teachers.select=best",
    "--config.distill.select=best",
]


def with_devices(number):
    """Returns the environment of a process of this number of devices."""
    flag = f"--xla_force_host_platform_device_count={number} {quick_compiler.FLAGS}"
    return {"XLA_FLAGS": flag}


def arguments(workdir):
    """Returns the flags of a short run on a mesh of eight devices."""
    return [*tiny(workdir, STUDENT), *MESH, *SHORT, *UNSHIFTED]


def start_two(commands, flags):
    """Starts a run in two processes."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        address = f"localhost:{free.getsockname()[1]}"
    joined = [f"--coordinator_address={address}", "--num_processes=2"]
    return [
        commands.start(
            "run",
            *flags,
            *joined,
            f"--process_id={number}",
            env=with_devices(4),
        )
        for number in range(2)
    ]


def finish_both(started):
    """Waits for both at once, as each waits for the other."""
    done = [None, None]

    def wait(number):
        done[number] = finish(started[number])

    threads = [threading.Thread(target=wait, args=[number]) for number in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return done
