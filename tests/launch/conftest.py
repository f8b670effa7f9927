"""Fixtures of the commands' tests: bad input, and its refusal."""

import pytest
import refusals
from bad_files import FILES, write_folders, write_npz_files
from digit_files import digits_by_class, write_folder, write_npz
from launching import tiny


@pytest.fixture(scope="session")
def places(finished, tmp_path_factory):
    """Returns the files and directories that bad input refers to, by name."""
    root = tmp_path_factory.mktemp("places")
    for name, content in FILES.items():
        (root / name).write_text(content)
    parts = digits_by_class()
    write_folder(root, parts)
    corrupt = root / "digits/train/3/040.png"
    corrupt.write_bytes(corrupt.read_bytes()[:50])
    write_npz(root, parts | {"test": tuple(array[:0] for array in parts["test"])})
    write_npz_files(root, parts)
    write_folders(root, parts)
    (root / "dangling").symlink_to(root / "nowhere")
    for name in ("bad_split", "bad_settings"):
        (root / name / "teachers").mkdir(parents=True)
    (root / "bad_split/split.npz").write_bytes(b"PK")
    (root / "bad_settings/teachers/settings.json").write_text("{")
    return {
        **{path.stem: path for path in root.iterdir() if path.suffix != ".npz"},
        "root": root,
        "digits_folder": root / "digits",
        "digits_npz": root / "digits.npz",
        "corrupt": corrupt,
        "finished": finished,
    }


@pytest.fixture
def refused(places, server, tmp_path):
    """Checks that `launch.run` refuses more flags of a tiny run, and writes nothing."""

    def check(flags, words):
        flags = [*tiny(tmp_path / "run"), *flags]
        # --config must come before its settings.
        flags.sort(key=lambda flag: flag.startswith("--config."))
        refusals.check(server, places, tmp_path, "run", flags, words)
        assert not (tmp_path / "run").exists()

    return check
