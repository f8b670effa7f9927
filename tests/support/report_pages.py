"""Writes runs to report, and parses reports."""

import html.parser
import json
import re

import numpy as np

NUM_MEMBERS, NUM_CLASSES = 4, 3
HOSTILE = "<script>alert('x')</script>"
RUN = {
    "schema_version": 1,
    "edp": "0.1.0",
    "python": "3.11.7",
    "jax": "0.10.2",
    "flax": "0.12.0",
    "optax": "0.2.6",
    "orbax-checkpoint": "0.11.2",
    "numpy": "2.3.1",
    "platform": "Linux-6.1",
    "backend": "cpu",
    "device": "cpu",
    "num_devices": 1,
    "num_processes": 1,
    "cpu_count": 2,
}
SOFTWARE = (
    "edp 0.1.0, python 3.11.7, jax 0.10.2, flax 0.12.0, optax 0.2.6, "
    "orbax-checkpoint 0.11.2, numpy 2.3.1"
)
VOID = {"meta", "img", "br", "hr", "link", "input"}


def softmax(logits):
    exps = np.exp(logits - logits.max(-1, keepdims=True))
    return (exps / exps.sum(-1, keepdims=True)).astype(np.float32)


def student(name, cnll, perturbation="none", kind="single", **fields):
    row = {"model": name, "kind": "student", "student": kind, "seed": 0}
    return row | {"perturbation": perturbation, "cnll": cnll} | fields


def make_run(workdir, hostile=False):
    """Writes every file of a run with 4 members, 6 students and a 6×7 gallery."""
    rng = np.random.default_rng(0)
    (workdir / "predictions").mkdir(parents=True)
    labels = rng.integers(0, NUM_CLASSES, 200)

    def save(name, num_members):
        logits = 2 * np.eye(NUM_CLASSES)[labels] + rng.normal(
            size=(num_members, 200, NUM_CLASSES)
        )
        arrays = {}
        for split in ("validation", "test"):
            arrays |= {f"{split}_probs": softmax(logits), f"{split}_labels": labels}
        np.savez(workdir / "predictions" / f"{name}.npz", **arrays)

    def scores(i):
        return {
            "seed": 0,
            "accuracy": 0.9 + 0.001234 * i,
            "nll": 0.40 - 0.01 * i,
            "cnll": 0.39 - 0.01 * i,
            "ece": 0.0312 + 0.001 * i,
            "cece": 0.01,
            "aurc": 0.0512 - 0.0023 * i,
            "brier": 0.15 - 0.003 * i,
            "temperature": 1.3,
        }

    rows = []
    for i in range(NUM_MEMBERS):
        fields = {"model": f"DE-{i + 1}", "kind": "ensemble", "num_members": i + 1}
        rows.append(fields | scores(i) | {"inference_cost": i + 1})
    save("teachers", NUM_MEMBERS)
    names = ["kd", "kd_noise", "kd_ods", "kd_conf_ods", "be", "be_conf_ods"]
    kinds = ["none", "gaussian", "ods", "conf_ods", "none", "conf_ods"]
    if hostile:
        names[2:4] = ["$a_b$ <i>|*", "<script>alert(1)"]
    for i, (name, perturbation) in enumerate(zip(names, kinds, strict=True)):
        fields = student(name, 0, perturbation, "single" if i < 4 else "batch_ensemble")
        more = {"dee": 0.5 + 0.5 * i, "gap_closed": 0.1 * i, "inference_cost": 1.0}
        rows.append(fields | scores(0.3 + i / 3) | more)
        save(name, 1)
    (workdir / "results.json").write_text(json.dumps(rows))

    dataset = HOSTILE if hostile else "digits"
    config = {"data": {"source": "tfds", "name": dataset}, "model": {"name": "convnet"}}
    (workdir / "config.json").write_text(json.dumps(config | {"seed": 17}))
    (workdir / "run.json").write_text(json.dumps(RUN))

    clean = {"perturbation": None, "step_size": None}
    values = {"disagreement_rate": 0.25, "mutual_information": 0.1, "error": 0.05}
    values["variance"] = 0.125
    diversity = [
        {"inputs": "train", "pairwise_kl": 0.0125} | clean | values,
        {"inputs": "test", "pairwise_kl": 0.5} | clean | values,
        {"inputs": names[0], "pairwise_kl": 0.0125} | clean | values,
        {"inputs": names[3], "perturbation": "conf_ods", "step_size": 1 / 128}
        | {"pairwise_kl": 0.75}
        | values,
    ]
    (workdir / "analysis.json").write_text(json.dumps({"diversity": diversity}))

    views = ["clean", *names]
    classes = [HOSTILE if hostile else "ant", "bee", "cat"]
    images = rng.uniform(0.2, 0.8, (1, 6, 32, 32, 3)) * np.ones((7, 1, 1, 1, 1))
    images[1:] += 0.04 * rng.choice([-1, 1], images[1:].shape)
    np.savez(
        workdir / "gallery.npz",
        names=np.array(views),
        images=images.astype(np.float32),
        probs=softmax(rng.normal(size=(7, NUM_MEMBERS, 6, NUM_CLASSES))),
        labels=np.array([0, 1, 2, 0, 1, 2]),
        class_names=np.array(classes),
    )
    return rows


class Page(html.parser.HTMLParser):
    """Parser that checks that tags balance and collects tags, table rows and text."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.rows, self.text = [], [], [], ""
        self.feed(str(text))
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] not in ("script", "style"):
            self.text += data
        if {"td", "th"} & set(self.open):
            self.rows[-1][-1] += data


def read_page(path):
    return Page(path.read_text(encoding="utf-8"))


def markdown_cells(text):
    return [
        [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
        for line in text.splitlines()
    ]


def points(svg, style):
    """Returns the points of the only path with `style`."""
    (path,) = re.findall(rf'<path d="([^"]*)" [^>]*{re.escape(style)}', svg)
    return np.array(re.findall(r"-?[\d.]+", path), float).reshape(-1, 2)
