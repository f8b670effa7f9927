"""Tests that commands refuse bad input in one line and write nothing."""

import os
import shutil

import numpy as np
import pytest
from digit_files import digits_by_class, write_folder, write_npz
from launching import Commands, snapshot, succeed, tiny
from PIL import Image

# Configuration files.
FILES = {
    "raises.py": "from configs import default\n\ndef get_config():\n    1 / 0\n",
    "syntax.py": "def get_config(:\n",
    "nothing.py": "def get_config():\n    pass\n",
    "wrong_type.py": "from tests.configs import tiny\n\ndef get_config():\n"
    "    config = tiny.get_config()\n    config.teachers.num_epochs = 'x'\n",
    "typos.py": "from tests.configs import tiny\n\ndef get_config():\n"
    "    config = tiny.get_config()\n    config.teachers.num_epoch = 5\n"
    "    config.students.single_none.perturbatoin = 'ods'\n    del config.seed\n"
    "    return config\n",
    "no_students.py": "from tests.configs import tiny\n\ndef get_config():\n"
    "    config = tiny.get_config()\n    config.students = type(config)()\n"
    "    return config\n",
    "student_names.py": "from tests.configs import tiny\n\ndef get_config():\n"
    "    config = tiny.get_config()\n    students = config.students\n"
    "    students['a b'] = students['teachers'] = students.single_none\n"
    "    return config\n",
    "a_file": "",
}


def first(parts, **changes):
    """Returns the arrays with the first image, the first label or all changed."""
    changed = {part: [array.copy() for array in parts[part]] for part in parts}
    for name, change in changes.items():
        array = 0 if name == "images" else 1
        changed["train"][array] = change(changed["train"][array])
    return changed


def write_arrays(root, name, parts, **more):
    arrays = {
        f"{part}_{kind}": array
        for part in parts
        for kind, array in zip(("images", "labels"), parts[part], strict=True)
    }
    np.savez(root / f"{name}.npz", **{**arrays, **more})


def with_nan(images):
    images = np.float32(images)
    images[0, 0, 0] = np.nan
    return images


def write_npz_files(root, parts):
    """Writes invalid .npz files, named by their fault."""
    names = np.array([*"aacdefghij"])
    write_arrays(root, "names_twice", parts, class_names=names)
    write_arrays(root, "pickled", parts, class_names=np.array(["a", None]))
    write_arrays(root, "nan_pixels", first(parts, images=with_nan))
    write_arrays(root, "two_channels", first(parts, images=lambda x: x.repeat(2, -1)))
    write_arrays(root, "float_labels", first(parts, labels=np.float32))
    write_arrays(root, "negative_label", first(parts, labels=lambda y: y - (y == 0)))
    write_arrays(root, "large_label", first(parts, labels=lambda y: y + 3 * (y == 9)))
    (root / "text.npz").write_text("no arrays")
    whole = (root / "large_label.npz").read_bytes()
    (root / "cut.npz").write_bytes(whole[: len(whole) // 2])


def write_folders(root, parts):
    """Writes invalid folders of images."""
    for name in ("sizes", "unknown_class", "no_images", "truncated"):
        for part in ("train", "test"):
            for label in range(10):
                path = root / name / part / str(label) / "0.png"
                path.parent.mkdir(parents=True)
                image = parts[part][0][parts[part][1] == label][0]
                Image.fromarray(image[..., 0]).save(path)
    Image.new("L", (8, 9)).save(root / "sizes/train/3/0.png")
    (root / "unknown_class/test/9").rename(root / "unknown_class/test/eleven")
    (root / "no_images/train/4/0.png").unlink()
    path = root / "truncated/test/5/0.png"
    path.write_bytes(path.read_bytes()[:-30])
    (root / "empty").mkdir()


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


def settings(**changes):
    """Returns flags that change settings; a double underscore is a dot."""
    return [f"--config.{key.replace('__', '.')}={v}" for key, v in changes.items()]


# Case -> flags and words of the message. Later flags win.
BAD = {
    "unknown setting": (
        settings(teachers__num_epoch=3, foo=1),
        ["no setting teachers.num_epoch;", "teachers.num_epochs?", "no setting foo;"],
    ),
    "unknown setting of a student": (
        settings(students__single_none__step_sise=3),
        ["students.single_none.step_sise", "students.single_none.step_size?"],
    ),
    "setting of an unknown student": (
        settings(students__sngle_none__step_size=3),
        ["students.sngle_none.step_size", "students.single_none.step_size?"],
    ),
    "wrong types": (settings(teachers__num_epochs="abc"), ["num_epochs=abc"]),
    "several out of range": (
        settings(
            seed=-1,
            teachers__learning_rate=-1,
            teachers__momentum=1,
            distill__alpha="nan",
            students__single_none__num_epochs=0,
            mesh__data=0,
            data__train_size=0,
            data__num_classes=None,
        ),
        [
            "seed=-1 must be an integer from 0",
            "teachers.learning_rate=-1.0 must be a finite number above 0",
            "teachers.momentum=1.0 must be a number from 0 to below 1",
            "distill.alpha=nan must be a number from 0 to 1",
            "students.single_none.num_epochs=0 must be an integer of at least 1",
            "mesh.data=0",
            "data.train_size=0",
            "data.num_classes=None must be an integer of at least",
        ],
    ),
    "unknown perturbation, student, model, schedule, quantity, strategy": (
        settings(
            distill__perturbation="odds",
            students__single_none__student="double",
            model__name="convnte",
            teachers__schedule="linear",
            distill__quantity="entropy",
            teachers__member_strategy="scan",
            distill__select="first",
        ),
        [
            "distill.perturbation='odds' must be one of none, gaussian, mixup",
            "students.single_none.student='double' must be one of single, batch_",
            "model.name='convnte' must be one of convnet",
            "teachers.schedule='linear' must be one of step_linear, cosine",
            "distill.quantity='entropy' must be one of variance",
            "teachers.member_strategy='scan' must be one of vmap",
            "distill.select='first' must be one of last, best",
        ],
    ),
    "setting of the model": (settings(model__width=0), ["model.width=0"]),
    "setting of a kind of student": (
        settings(
            students__single_none__student="functional",
            students__single_none__functional_teachers=9,
        ),
        [
            "students.single_none.functional_teachers=9",
            "1 to 2 (the number of teachers)",
        ],
    ),
    "milestones": (
        settings(teachers__schedule="step_linear", teachers__milestones="(3, 2)"),
        ["teachers.milestones=(3, 2) must be two epochs E1 < E2"],
    ),
    "normalisation": (
        settings(data__mean="(0.5, 0.5)", data__std="(0.,)"),
        ["data.mean=(0.5, 0.5) must be 1 value", "data.std=(0.0,)", "above 0"],
    ),
    "no workdir": (["--workdir="], ["--workdir is required"]),
    "no config": (["--config="], ["--config"]),
    "config is not there": (["--config=configs/none.py"], ["configs/none.py"]),
    "config raises": (["--config={raises}"], ["{raises}", "line 4", "ZeroDivision"]),
    "config is not Python": (["--config={syntax}"], ["{syntax}", "SyntaxError"]),
    "config gives nothing": (["--config={nothing}"], ["{nothing}", "None"]),
    "config sets a wrong type": (
        ["--config={wrong_type}"],
        ["{wrong_type}", "line 5", "num_epochs"],
    ),
    "config with typos": (
        ["--config={typos}"],
        [
            "seed is missing",
            "teachers.num_epoch is no setting; did you mean teachers.num_epochs?",
            "students.single_none.perturbatoin is no setting",
            "students.single_none.perturbation?",
        ],
    ),
    "argument": (["runs/digits"], ["'runs/digits'", "--"]),
    "unknown flag": (["--confgi=3"], ["confgi"]),
    "unknown student": (["--only=single_noen"], ["single_noen", "single_none"]),
    "workdir is a file": (["--workdir={a_file}"], ["{a_file}", "not a directory"]),
    "workdir in a file": (["--workdir={a_file}/run"], ["{a_file}", "not a directory"]),
    "path that is not there": (
        settings(data__source="npz", data__path="none.npz"),
        ["data.path is none.npz", "not exist"],
    ),
    "unknown source": (settings(data__source="web"), ["data.source='web'", "npz"]),
    "image shape": (
        settings(data__image_shape="(8, 9, 1)"),
        ["data.image_shape is (8, 9, 1)", "(8, 8, 1)"],
    ),
    "number of classes": (settings(data__num_classes=11), ["is 11", "10 classes"]),
    "corrupt image": (
        settings(data__source="folder", data__path="{digits_folder}"),
        ["cannot read the image {corrupt}"],
    ),
    "empty split": (
        settings(data__source="npz", data__path="{digits_npz}"),
        ["the test split has no examples"],
    ),
    "batch size": (
        settings(students__single_none__batch_size=81),
        ["students.single_none.batch_size=81", "1 to 80"],
    ),
    "groups of batch normalisation": (
        settings(model__batchnorm_groups=3),
        ["model.batchnorm_groups=3 does not divide teachers.batch_size=20"],
    ),
    "mesh": (settings(mesh__member=2), ["mesh.member=2", "1 device"]),
    "processes without an address": (
        ["--num_processes=2"],
        ["--coordinator_address and --process_id must be given too"],
    ),
    "coordinator address": (
        ["--coordinator_address=here", "--num_processes=2", "--process_id=1"],
        ["--coordinator_address='here' must be host:port"],
    ),
    "process id": (
        ["--coordinator_address=here:1", "--num_processes=2", "--process_id=2"],
        ["--process_id=2 must be from 0 to 1"],
    ),
    "teachers with other settings": (
        ["--workdir={finished}", *settings(seed=3, teachers__num_epochs=4)],
        [
            "{finished}/teachers was made with other settings",
            "seed was 0 and is now 3",
            "teachers.num_epochs was 3 and is now 4",
        ],
    ),
    "student with other settings": (
        ["--workdir={finished}", *settings(students__single_none__alpha=0.5)],
        ["{finished}/students/single_none", "distill.alpha was 0.9 and is now 0.5"],
    ),
    "more epochs of finished students": (
        ["--workdir={finished}", *settings(distill__num_epochs=9)],
        [
            "distill.num_epochs was 3 and is now 9",
            "another --workdir with --config.teachers_workdir={finished}, which reuses",
        ],
    ),
    "no teachers there": (
        settings(teachers_workdir="{digits_folder}"),
        ["teachers_workdir='{digits_folder}' holds no completed teachers"],
    ),
    "teachers of another model": (
        settings(teachers_workdir="{finished}", model__width=5),
        ["{finished}/teachers", "model.width was 4 and is now 5"],
    ),
    "faults of all sections at once": (
        settings(
            data__source="folder",
            data__downsample=3,
            data__resize="random_crop",
            teachers__kind="dropout",
            students__single_none__student="functional",
            students__single_none__functional_teachers=9,
            evaluation__ood_size=0,
            dtype="float16",
        ),
        [
            "dtype='float16' must be one of float32, bfloat16",
            "evaluation.ood_size=0",
            "data.path=None must be given for data.source='folder'",
            "data.downsample=3 must divide height and width",
            "data.resize='random_crop' must be none unless data.stream=True",
            "model.dropout_rate=None must be above 0",
            "students.single_none.functional_teachers=9",
        ],
    ),
    "parts of data": (
        settings(data__train_split="", data__validation="first", data__num_workers=-1),
        [
            "data.train_split='' must be a non-empty text",
            "data.validation='first' must be one of stratified, last",
            "data.num_workers=-1 must be an integer of at least 0",
        ],
    ),
    "stream of what is in memory": (
        settings(data__stream=True),
        ["data.stream=True must be False for data.source='digits'"],
    ),
    "channels of images that are decoded": (
        settings(data__source="tfds", data__name="x", data__image_shape="(8, 8, 2)"),
        ["data.image_shape=(8, 8, 2) must have 1 or 3 channels"],
    ),
    "shape of two numbers": (
        settings(data__image_shape="(8, 8)"),
        ["data.image_shape=(8, 8) must be (height, width, channels)"],
    ),
    "no name of a TFDS set": (
        settings(data__source="tfds"),
        ["data.name=None must be given for data.source='tfds'"],
    ),
    "more to train on than there are": (
        settings(data__train_size=10_000),
        ["data.train_size is 10000", "1 to"],
    ),
    "more to test on than there are": (
        settings(data__test_size=5000),
        ["data.test_size is 5000"],
    ),
    "no validation": (
        settings(data__validation_size=0),
        ["data.validation_size=0 must be an integer of at least 1"],
    ),
    "own set as an unseen one": (
        settings(evaluation__ood_sets="('digits',)"),
        ["evaluation.ood_sets=('digits',)", "the run's own"],
    ),
    "unknown corruption": (
        settings(evaluation__corruptions="('frost',)"),
        ["evaluation.corruptions=('frost',)", "fog"],
    ),
    "unseen set that is not there": (
        settings(evaluation__ood_sets="('{root}/none.npz',)"),
        ["{root}/none.npz does not exist"],
    ),
    "not a number": (settings(seed="abc"), ["--config.seed=abc"]),
    "not a whole number": (settings(seed=1.5), ["--config.seed=1.5"]),
    "neither true nor false": (
        settings(data__flip="perhaps"),
        ["--config.data.flip=perhaps"],
    ),
    "section set to a number": (settings(data=3), ["--config.data=3"]),
    "setting without a value": (["--config.seed"], ["--config.seed"]),
    "variant": (
        ["--config=configs/default.py:fast"],
        ["variant 'fast'; accepted: debug"],
    ),
    "config is a directory": (["--config={empty}"], ["{empty}"]),
    "no students": (["--config={no_students}"], ["students is empty"]),
    "names of students": (
        ["--config={student_names}"],
        ["students.a b: a name is of letters", "students.teachers: a name"],
    ),
    "debug flag": (["--debug=maybe"], ["--debug=maybe"]),
    "flag file": (["--flagfile={root}/none"], ["{root}/none"]),
    "no processes": (["--num_processes=0"], ["--num_processes=0"]),
    "process below 0": (["--process_id=-1"], ["--process_id=-1"]),
    "workdir of a dangling link": (["--workdir={dangling}"], ["{dangling}"]),
    "workdir with a broken split": (
        ["--workdir={bad_split}"],
        ["{bad_split}/split.npz cannot be read as an .npz of plain arrays"],
    ),
    "workdir with broken settings": (
        ["--workdir={bad_settings}"],
        ["{bad_settings}/teachers/settings.json is not valid JSON"],
    ),
}

# Invalid .npz files and folders of images -> words of the message.
DATA = {
    "names_twice.npz": ["two classes are named 'a'"],
    "pickled.npz": ["plain arrays"],
    "nan_pixels.npz": ["train_images is float32 [120, 8, 8, 1]; it must be uint8"],
    "two_channels.npz": ["data.image_shape is (8, 8, 1)", "(8, 8, 2)"],
    "float_labels.npz": ["train_labels is float32 [120]; it must be integers"],
    "negative_label.npz": ["label -1 of train example 0", "0 to 9"],
    "large_label.npz": ["data.num_classes is 10", "has 13 classes (largest label 12"],
    "text.npz": ["cannot be read as an .npz"],
    "cut.npz": ["cannot be read as an .npz"],
    "empty": ["empty/train is not a directory"],
    "sizes": ["sizes/train/3/0.png", "9x8", "8x8"],
    "unknown_class": ["unknown_class/test/eleven is a class that the training split"],
    "no_images": ["no_images/train/4 has no images"],
    "truncated": ["truncated/test/5/0.png"],
}
for name, words in DATA.items():
    source = "npz" if name.endswith(".npz") else "folder"
    path = f"{{root}}/{name}"
    flags = settings(data__source=source, data__path=path)
    if source == "folder":  # with one image per class
        sizes = {"train_size": 8, "validation_size": 2, "test_size": 10}
        flags += [f"--config.data.{key}={size}" for key, size in sizes.items()]
    BAD[f"data: {name}"] = (flags, words)

# Other commands: case -> command, flags and words of the message.
OTHERS = {
    "summary of nothing": ("summarize", ["--workdirs="], ["workdirs is empty"]),
    "summary of no run": (
        "summarize",
        ["--workdirs={empty}", "--out={root}/summary"],
        ["there is no {empty}/config.json"],
    ),
    "summary of a run twice": (
        "summarize",
        ["--workdirs={finished},{finished}", "--out={root}/summary"],
        ["{finished} and {finished} both have seed=0"],
    ),
    "summary into a file": (
        "summarize",
        ["--workdirs={finished}", "--out={a_file}"],
        ["out='{a_file}' cannot be used"],
    ),
    "benchmark of an unknown case": ("benchmarks", ["--cases=none"], ["none"]),
    "benchmark of an argument": ("benchmarks", ["quick"], ["'quick'"]),
    "report without results": ("report", [], ["results.json"]),
    "distillation without teachers": ("distill", [], ["launch.train_teachers first"]),
    "import of no members": ("import_teachers", [], ["--members is required"]),
    "import of too few": (
        "import_teachers",
        ["--members={empty}"],
        ["--members names 1 networks of teachers; accepted: 2"],
    ),
    "import of what is no checkpoint": (
        "import_teachers",
        ["--members={empty},{a_file}"],
        ["member 0 ({empty}) is no checkpoint of variables"],
    ),
}


def assert_refused(done, words, places):
    assert done.code == 2, done
    assert done.stdout == ""
    assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1
    for word in words:
        assert word.format(**places) in done.stderr, done.stderr


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_told_in_a_line_and_nothing_is_written(
    case, places, server, tmp_path
):
    flags, words = BAD[case]
    flags = [*tiny(tmp_path / "run"), *(flag.format(**places) for flag in flags)]
    # --config must come before its settings.
    flags.sort(key=lambda flag: flag.startswith("--config."))
    roots = [tmp_path, places["root"], places["finished"]]
    before = [snapshot(root) for root in roots]
    assert_refused(server.run("run", *flags), words, places)
    assert [snapshot(root) for root in roots] == before
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("case", OTHERS)
def test_other_commands_refuse_too(case, places, server, tmp_path):
    command, flags, words = OTHERS[case]
    flags = [flag.format(**places) for flag in flags]
    if command not in ("summarize", "benchmarks"):
        flags = [*tiny(tmp_path / "run"), *flags]
    elif not any(flag.startswith("--out=") for flag in flags):
        out = "out" if command == "summarize" else "output"
        flags.append(f"--{out}={tmp_path}/run")
    roots = [tmp_path, places["root"], places["finished"]]
    before = [snapshot(root) for root in roots]
    assert_refused(server.run(command, *flags), words, places)
    assert [snapshot(root) for root in roots] == before


def test_missing_devices_are_named(places, tmp_path):
    env = {"JAX_PLATFORMS": "nonsense"}
    done = Commands(tmp_path).run("run", *tiny(tmp_path / "run"), env=env)
    assert_refused(done, ["JAX_PLATFORMS='nonsense' finds no such", "or unset"], places)
    assert not (tmp_path / "run").exists()


def test_a_split_of_another_seed_is_refused(finished, server, tmp_path):
    shutil.copy(finished / "split.npz", tmp_path)
    before = snapshot(tmp_path)
    done = server.run("run", *tiny(tmp_path), "--config.seed=1")
    assert done.code == 2 and done.stderr.count("\n") == 1
    assert f"{tmp_path}/split.npz has seed 0" in done.stderr
    assert snapshot(tmp_path) == before


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_workdir_without_permission_is_refused(server, tmp_path):
    tmp_path.chmod(0o555)
    done = server.run("run", *tiny(tmp_path / "run"))
    tmp_path.chmod(0o755)
    assert done.code == 2 and done.stderr.count("\n") == 1
    assert f"no permission to write to {tmp_path}" in done.stderr


@pytest.mark.parametrize(
    ("flag", "cause"),
    [
        ("--config={raises}", "ZeroDivisionError"),
        ("--config.data.path=x", "InputError"),
    ],
)
def test_debug_shows_where_bad_input_was_found(flag, cause, places, server, tmp_path):
    flags = [*tiny(tmp_path / "run"), flag.format(**places), "--config.data.source=npz"]
    done = server.run("run", *flags, "--debug")
    assert done.code == 2
    assert "Traceback" in done.stderr and cause in done.stderr
    assert done.stderr.splitlines()[-1].startswith("error: ")


def test_commands_say_which_is_to_be_run_first(server, tmp_path):
    for command in ("distill", "evaluate"):
        done = server.run(command, *tiny(tmp_path / "run"))
        assert done.code == 2 and done.stderr.count("\n") == 1
        assert "run launch.train_teachers first" in done.stderr
    done = server.run("report", *tiny(tmp_path / "run"))
    assert done.code == 2 and "results.json" in done.stderr
    assert snapshot(tmp_path) == {}
    assert not (tmp_path / "run/teachers").exists()


def test_damaged_files_are_named(copied, server):
    shutil.rmtree(copied / "students/single_none/variables")
    (copied / "predictions/single_none.npz").unlink()
    done = server.run("evaluate", *tiny(copied))
    assert done.code == 2 and "students/single_none/variables is missing" in done.stderr
    (copied / "students/single_none/complete.json").write_text("{")
    done = server.run("run", *tiny(copied))
    assert done.code == 2 and "complete.json is not valid JSON" in done.stderr
    weights = next((copied / "teachers/variables/ocdbt.process_0/d").iterdir())
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-1])
    before = snapshot(copied)
    done = server.run("distill", *tiny(copied, "single_gaussian"))
    assert snapshot(copied) == before  # also `config.json`, whose students differ
    assert done.code == 2 and done.stderr.count("\n") == 1
    assert f"teachers/variables is damaged: ocdbt.process_0/d/{weights.name} has" in (
        done.stderr
    )
    weights.write_bytes(whole)
    # As the first message says: restored from the last checkpoint, without training.
    (copied / "students/single_none/complete.json").unlink()
    done = succeed(server.run("run", *tiny(copied)))
    assert "epoch" not in done.stderr
