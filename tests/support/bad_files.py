"""Writes invalid configurations, .npz files and folders of images."""

import numpy as np
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
