"""Fixtures of the export's tests: an evaluated run, its artifacts and image files."""

import pytest
from exported_runs import create_evaluated
from launching import locked
from PIL import Image

from edp import students
from edp.experiment import open_run
from edp.export import from_run


@pytest.fixture(scope="session")
def experiment(shared):
    """An evaluated run of every kind of student, to read."""
    with locked(shared / "evaluated.lock"):
        return create_evaluated(shared / "evaluated", students.STUDENTS)


class Exported(dict):
    """Artifacts of a run by name, each exported when it is first read."""

    def __init__(self, run, root):
        super().__init__()
        self._run, self._root = run, root

    def __missing__(self, name):
        assert from_run.export_predictor(self._run, name, self._root / name)
        self[name] = self._root / name
        return self[name]


@pytest.fixture(scope="session")
def exported(experiment, tmp_path_factory):
    """Exports predictors from the workdir alone; returns artifacts by name."""
    opened = open_run.open_run(experiment.run.workdir)
    return Exported(opened, tmp_path_factory.mktemp("exported"))


@pytest.fixture
def photos(experiment, tmp_path):
    """Writes the run's first test images, and other files."""
    folder = tmp_path / "photos"
    (folder / "b/.cache").mkdir(parents=True)
    for i, image in enumerate(experiment.data.dataset.test.images[:5]):
        Image.fromarray(image[..., 0]).save(folder / f"b/{i}.png")
    Image.new("RGB", (20, 12), (200, 10, 10)).save(folder / "a.JPG")
    (folder / "b/2b.png").write_bytes(b"no image")
    (folder / "notes.txt").write_text("no image either")
    (folder / "b/.cache/x.png").write_bytes(b"hidden")
    return folder
