"""Turns the command's options into the groups to measure."""

import os
from collections.abc import Mapping, Sequence
from typing import Any

import jax

from benchmarks import cases, isolated, suite, timing
from edp import ensemble, models
from edp.errors import InputError

# Under eight minutes in total on two cores, compilation included.
_QUICK_BUDGET = timing.Budget(
    rounds=4, round_seconds=1.0, contender_seconds=20.0, repeats=4, wait_seconds=5.0
)


def create_plan(
    options: Mapping[str, Any],
) -> tuple[list[cases.Group], suite.Settings]:
    """Reads the options of `benchmarks`.

    Args:
      options: by name; None for an option that was not given.

    Returns:
      The groups to measure, and the settings.

    Raises:
      InputError: for unknown, missing or contradictory options.
    """
    chosen = [name for name in ("quick", "gpu", "cases") if options[name]]
    if len(chosen) != 1:
        raise InputError(
            "one of --quick, --gpu and --cases=NAMES must be given; accepted cases: "
            f"{', '.join(cases.CASES)}"
        )
    if options["gpu"] and jax.default_backend() != "gpu":
        raise InputError(
            f"--gpu needs a GPU; JAX sees {jax.default_backend()} (accepted: "
            "--quick or --cases, or an installation with jax[cuda12])"
        )
    quick = bool(options["quick"])
    if quick and options["scaling"]:
        raise InputError("--scaling needs --cases or --gpu, not --quick")
    default = ensemble.default_strategy()
    every = (default, *(s for s in ensemble.STRATEGIES if s != default))
    strategies = _names(
        options, "strategies", (default,) if quick else every, ensemble.STRATEGIES
    )
    if not strategies:
        raise InputError(f"strategies is empty; accepted: {', '.join(every)}")
    usual = "xla" if os.environ.get("EDP_NATIVE") == "0" else "own"
    kernels = _names(options, "kernels", (usual,), isolated.KERNELS)
    if not kernels or (len(kernels) > 1 and jax.default_backend() != "cpu"):
        raise InputError(
            f"kernels={','.join(kernels)!r}; accepted: own or xla, and both on a CPU"
        )
    on_gpu = jax.default_backend() == "gpu"
    peers = ("eager", "compile") if on_gpu and not quick else ("eager",)
    budget = _QUICK_BUDGET if quick else timing.Budget()
    given = {key: options[key] for key in ("rounds", "round_seconds", "repeats")}
    settings = suite.Settings(
        strategies=strategies,
        peers=_names(options, "peers", peers, suite.PEERS),
        budget=budget._replace(**{k: v for k, v in given.items() if v is not None}),
        steps_per_call=options["steps_per_dispatch"] or 1,
        kernels=kernels,
    )
    return _groups(options), settings


def _names(
    options: Mapping[str, Any],
    option: str,
    default: Sequence[str],
    accepted: Sequence[str],
) -> tuple[str, ...]:
    if options[option] is None:
        return tuple(default)
    for name in options[option]:
        if name not in accepted:
            raise InputError(
                f"{option}={name!r} is not known; accepted: {', '.join(accepted)}"
            )
    return tuple(dict.fromkeys(options[option]))


def _groups(options: Mapping[str, Any]) -> list[cases.Group]:
    sizes = {k: options[k] for k in ("batch_size", "num_members", "precision")}
    if sizes["precision"] not in (None, *models.DTYPES):
        raise InputError(
            f"precision={sizes['precision']!r} is not known; accepted: "
            f"{', '.join(models.DTYPES)}"
        )
    if options["quick"]:
        groups = cases.quick_groups()
        if options["steps"]:
            raise InputError("--steps needs --cases or --gpu, not --quick")
        return [g._replace(case=cases.override(g.case, **sizes)) for g in groups]
    names = cases.GPU_CASES if options["gpu"] else options["cases"]
    chosen = [
        cases.override(case, **sizes)
        for case in cases.choose(cases.CASES, names, "cases")
    ]
    if options["scaling"]:
        return [group for case in chosen for group in cases.scaling_groups(case)]
    names = options["steps"] or list(cases.STEPS)
    steps = cases.choose(cases.STEPS, names, "steps")
    return [cases.Group(case, step) for case in chosen for step in steps]
