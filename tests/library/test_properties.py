"""Property tests of the losses, metrics and perturbations, with extreme inputs.

Every public function has a check with random shapes, dtypes and values. A new function
without a check fails `test_every_public_function_has_a_check`.
"""

import importlib
import inspect
import pkgutil
from collections.abc import Callable, Iterator

import hypothesis
import jax
import property_geometry  # noqa: F401 (registers its checks, as do the next four)
import property_losses  # noqa: F401
import property_measures  # noqa: F401
import property_metrics  # noqa: F401
import property_perturbations  # noqa: F401
import pytest
from property_cases import cases
from property_checks import CHECKS

from edp import losses, metrics, perturbations
from edp.metrics import uncertainty
from edp.students import dirichlet_math

PACKAGES = (losses, metrics, perturbations, dirichlet_math, losses, uncertainty)
QUICK, LONG = 3, 350  # examples of each function


def public_functions() -> Iterator[Callable]:
    for package in PACKAGES:
        names = [package.__name__]
        for module in pkgutil.iter_modules(getattr(package, "__path__", ())):
            names.append(f"{package.__name__}.{module.name}")
        for name in names:
            module = importlib.import_module(name)
            for key, value in vars(module).items():
                own = inspect.isfunction(value) and value.__module__ == name
                if own and not key.startswith("_"):
                    yield value


EACH = pytest.mark.parametrize("check", dict.fromkeys(CHECKS.values()))


def test_every_public_function_has_a_check():
    functions = list(public_functions())
    assert not [f"{f.__module__}.{f.__name__}" for f in functions if f not in CHECKS]
    assert set(functions) == set(CHECKS)
    assert len(functions) > 50 and len(set(CHECKS.values())) * LONG >= 10_000


@EACH
def test_it_holds_for_a_few(check):
    run(check, QUICK, thorough=False)


@pytest.mark.long
@EACH
def test_it_holds_for_many(check):
    run(check, LONG, thorough=True)
    jax.clear_caches()  # each check compiles hundreds of programs: too many for all


def run(check, max_examples, *, thorough):
    """Runs a check on `max_examples` cases, the same in every run."""
    seen = 0

    @hypothesis.settings(
        max_examples=max_examples,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(hypothesis.HealthCheck),
    )
    @hypothesis.given(cases(thorough))
    def holds(case):
        nonlocal seen
        seen += 1
        check(case)

    holds()
    assert seen >= max_examples
