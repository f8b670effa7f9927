"""CIFAR-10 at 32x32, all 50,000 training images, sized for a CPU.

After Nam et al., *Diversity Matters When Learning From Ensembles* (NeurIPS
2021, arXiv 2110.14149), with a network that a CPU can train: ResNet-8 of width 32,
whose first convolution has stride 2. 45,000 training and 5,000 validation images, all
10,000 test images, no augmentation, so that the teachers fit their training images.
DIR is a TFDS directory:

    python -m launch.run --config=configs/cifar10_resnet.py \\
        --config.data.data_dir=DIR --config.seed=0 --workdir=runs/resnet0

That takes tens of core-hours, and trains students that RESULTS.md does not have;
`--only=NAME,...` trains those that it names. It saves as it goes, and the same command
resumes it. The results are of CIFAR-10 re-encoded as JPEG.

The control is the same protocol with teachers trained with mixup, the augmentation of
the best students:

    python -m launch.train_teachers --config=configs/cifar10_resnet.py:mixup \\
        --config.data.data_dir=DIR --config.seed=0 --workdir=runs/resnet_mixup0
    python -m launch.evaluate --config=configs/cifar10_resnet.py:mixup \\
        --config.data.data_dir=DIR --config.seed=0 --workdir=runs/resnet_mixup0

and, for the students whose names end in `_long`, both commands with
`--config.teachers.num_epochs=28 --workdir=runs/resnet_mixup28_0`; `launch.distill` with
these and `--only=single_mixup_tau4_long`, before the evaluation, distils a student from
those networks.

The deep-ensemble equivalent ends at the size of an ensemble; more teachers, without
students, are a reference for it. `:sixteen` has the four teachers of a run, imported,
and twelve more, in two groups:

    NET=first=runs/resnet0/teachers
    python -m launch.import_teachers --config=configs/cifar10_resnet.py:sixteen \\
        --members="$NET#0,$NET#1,$NET#2,$NET#3" \\
        --config.data.data_dir=DIR --config.seed=0 --workdir=runs/resnet16_0
    python -m launch.train_teachers --config=configs/cifar10_resnet.py:sixteen \\
        --config.data.data_dir=DIR --config.seed=0 --workdir=runs/resnet16_0
    python -m launch.evaluate --config=configs/cifar10_resnet.py:sixteen \\
        --config.data.data_dir=DIR --config.seed=0 --workdir=runs/resnet16_0

Without the import it trains all of them. One table of all (of two seeds: with
runs/resnet1 and runs/resnet_mixup1 beside those of seed 0, without the others):

    python -m launch.summarize --workdirs=runs/resnet0 --out=runs/resnet \\
        --reference=mixup=runs/resnet_mixup0 \\
        --reference=mixup28=runs/resnet_mixup28_0 --reference=plain16=runs/resnet16_0 \\
        --baseline=single_none,single_none_tau4,single_none_tau4_long

`:one` has one teacher, and the students that compare no members:

    python -m launch.run --config=configs/cifar10_resnet.py:one \\
        --config.data.data_dir=DIR --config.seed=0 --workdir=runs/resnet_one0 \\
        --only=single_none_tau4,single_mixup_tau4

Steps along a gradient have η = 4/255, where the teachers are wrong on 24 % of the
training images, as on validation images (22 %). With the η of configs/cifar10_small.py,
16/255, they are wrong on 46 % (conf_ods) and 54 % (disagreement); with Gaussian noise
of that size, used here, on 11 %. No search was run; `:search` has candidates, on
training images only:

    python -m launch.run --config=configs/cifar10_resnet.py:search \\
        --config.data.data_dir=DIR --config.seed=100 --workdir=runs/resnet_search

Expected result, of seed 0 (RESULTS.md): cNLL of one network 0.66 and of four 0.55; of
students 0.64 (none), 0.61 (gaussian), 0.60 (conf_ods, disagreement), 0.56 (τ = 4, with
disagreement, mixup or neither), 0.54 (LatentBE); with twice the epochs at τ = 4 0.55
(none), 0.54 (disagreement), 0.53 (mixup) and 0.52 (LatentBE). Trained with mixup, four
networks have 0.55, and 0.51 after 28 epochs; the student of these on mixtures has 0.54.
Students of one teacher at τ = 4 have 0.59 (none) and 0.58 (mixup). With seed 2
`be_conf_ods_tau4`, the paper's recipe, and its control `be_none_tau4` have 0.56, and
`single_none_tau4` and the four teachers 0.55.
"""

import ml_collections

from . import default

VARIANTS = ("", "debug", "mixup", "one", "search", "sixteen")
_TAU4 = {"temperature": 4.0}


def get_config(variant: str = "") -> ml_collections.ConfigDict:
    """Returns the CIFAR-10 settings, or a variant of `VARIANTS`."""
    if variant not in VARIANTS:
        accepted = ", ".join(filter(None, VARIANTS))
        raise ValueError(f"variant {variant!r}; accepted: {accepted}, or none")
    config = default.get_config()
    data = config.data
    data.source, data.name = "tfds", "cifar10"
    data.image_shape, data.num_classes = (32, 32, 3), 10
    data.validation_size = 5000
    data.mean, data.std = (0.491, 0.482, 0.447), (0.247, 0.243, 0.262)
    config.model.name = "resnet"
    config.model.depth, config.model.width, config.model.stem_strides = 8, 32, 2
    for section in (config.teachers, config.distill):
        section.batch_size, section.learning_rate = 128, 0.1
        section.num_epochs, section.warmup_epochs = 14, 2.0
        section.weight_decay = 5e-4
    if variant == "mixup":
        config.teachers.mixup_alpha = 1.0
    if variant == "sixteen":
        model = config.model.to_dict()
        for name, size in (("added", 12), ("first", 4)):
            group = default.group(config, model, num_members=size)
            config.teachers.groups[name] = group
        config.teachers.num_members = 16
    distill = config.distill
    distill.step_size = 4 / 255
    # As in configs/cifar10_small.py.
    distill.quantity, distill.random_members = "projection", 2
    evaluation = config.evaluation
    evaluation.step_sizes = tuple(n / 255 for n in (1, 2, 8, 16))
    evaluation.ood_sets = ("digits", "noise")
    evaluation.corruptions, evaluation.corruption_size = ("all",), 500
    config.students = ml_collections.ConfigDict()

    def add(name, **overrides):
        config.students[name] = default.student(config, **overrides)

    if variant == "search":
        _add_candidates(config, add)
        return config
    add("single_none", perturbation="none")
    add("single_none_tau4", perturbation="none", **_TAU4)
    add("single_mixup_tau4", perturbation="mixup", **_TAU4)
    add("single_gaussian", perturbation="gaussian", step_size=16 / 255)
    for name in ("ods", "conf_ods", "gaussian+disagreement"):
        add(f"single_{name.replace('+', '_')}", perturbation=name)
    combined = "gaussian+disagreement"
    add("single_gaussian_disagreement_tau4", perturbation=combined, **_TAU4)
    be, latent = "batch_ensemble", "latent_batch_ensemble"
    add("be_conf_ods", student=be, perturbation="conf_ods")
    for name in ("none", "mixup", "conf_ods"):  # the last is the paper's
        add(f"be_{name}_tau4", student=be, perturbation=name, **_TAU4)
    unlabelled = {"alpha": 1.0, "nesterov": True, "clean_pass": False, **_TAU4}
    add("latent_be_mixup_tau4", student=latent, perturbation="mixup", **unlabelled)
    # Controls: twice the epochs.
    epochs = 2 * distill.num_epochs
    for name in ("none", "mixup", combined):
        own = {"perturbation": name, "num_epochs": epochs, **_TAU4}
        add(f"single_{name.replace('+', '_')}_tau4_long", **own)
    add(
        "latent_be_mixup_tau4_long",
        **{"student": latent, "perturbation": "mixup", "num_epochs": epochs},
        **unlabelled,
    )
    if variant == "one":  # which has no other to disagree with
        config.teachers.num_members = 1
        for name in list(config.students):
            if "disagreement" in name:
                del config.students[name]
    return default.choose(config, variant if variant == "debug" else "")


def _add_candidates(config: ml_collections.ConfigDict, add) -> None:
    """Adds the candidates of the search, tested on the last training images."""
    config.data.train_split = "train[:45000]"
    config.data.test_split = "train[45000:]"
    add("none")
    for name in ("mixup", "none"):
        add(f"{name}_tau4", perturbation=name, **_TAU4)
    for name in ("gaussian", "conf_ods", "gaussian+disagreement"):
        for step in (2, 4, 8, 16):
            own = {"perturbation": name, "step_size": step / 255}
            add(f"{name.replace('+', '_')}_{step}", **own)
    # Gradient perturbations beside the best plain recipe.
    for step in (4, 8):
        own = {"perturbation": "mixup+disagreement", "step_size": step / 255}
        add(f"mixup_disagreement_tau4_{step}", **own, **_TAU4)
    for name, own in (
        ("geometric", {"target_pool": "geometric"}),
        ("fitted", {"member_temperatures": "fitted"}),
    ):
        add(f"mixup_tau4_{name}", perturbation="mixup", **own, **_TAU4)
