"""How much memory a compiled function takes."""

import jax


def peak_bytes(compiled: jax.stages.Compiled) -> int:
    """The memory that a compiled function takes while it runs, by the compiler.

    Arguments and results, counted once where they share memory (donated
    arguments), and the most that is taken in between. On a mesh: of one device.
    Nothing is run, so that shapes are enough to compile from:

        peak_bytes(jax.jit(step, donate_argnums=0).lower(*shapes).compile())

    where `shapes` are arrays or what `jax.eval_shape` gives. Compilers plan the
    same program differently: the figure is that of the backend compiled for.
    """
    stats = compiled.memory_analysis()
    return (
        stats.argument_size_in_bytes
        + stats.output_size_in_bytes
        - stats.alias_size_in_bytes
        + stats.temp_size_in_bytes
    )
