"""Tests that cases have the settings of the configurations that they stand for."""

import pytest

from benchmarks import cases
from configs import cifar10_resnet, cifar10_small


@pytest.mark.parametrize(
    ("name", "module"), [("resnet8_16", cifar10_small), ("resnet8_32", cifar10_resnet)]
)
def test_cases_of_configurations(name, module):
    case, config = cases.CASES[name], module.get_config()
    assert case.image_shape[0] == config.data.image_shape[0] // config.data.downsample
    used = {k: v for k, v in config.model.items() if v is not None and v is not False}
    assert case.model.items() <= used.items()
    assert case.batch_size == config.teachers.batch_size
    assert case.step_size == config.distill.step_size
