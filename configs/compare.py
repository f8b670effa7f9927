"""Every kind of student side by side, and every perturbation with two of them.

    python -m launch.run --config=configs/compare.py --workdir=runs/compare

runs on scikit-learn's digits in minutes and shows that everything works. The
informative comparison is on CIFAR-10 at 16x16, with the protocol of
configs/cifar10_small.py, for each of several seeds and then over all of them:

    python -m launch.run --config=configs/compare.py:cifar10_small \\
        --config.data.data_dir=DIR --config.seed=0 --workdir=runs/compare0
    python -m launch.summarize --out=runs/comparison --baseline=single_none \\
        --workdirs=runs/compare0,runs/compare1,runs/compare2

Complete stages are not run again. RESULTS.md has the results. With a name of `TEACHERS`
after a +, as in configs/compare.py:cifar10_small+multiswag, the students learn from
teachers of that kind, or from one or two plain ones; each needs a workdir of its own.

Names consist of the kind, the perturbation and, if it is not 1, the temperature. mixup
is the best perturbation in RESULTS.md; students that match tempered probabilities use
it at τ = 4. The best multi-step form of disagreement found is one step after a random
step, `gaussian+disagreement`, at the cost of one step; from a random start the gradient
of the variance works too. A plain student has it, and disagreement on mixtures, at
τ = 4 too. The control of `bridge` is `residual`: the same network without diffusion;
students whose names end in `_long` train for twice the epochs.
"""

import ml_collections

from . import cifar10_small, default, digits

BASES = {"": digits, "cifar10_small": cifar10_small, "debug": digits}
PERTURBATIONS = (
    "none",
    "gaussian",
    "mixup",
    "ods",
    "conf_ods",
    "disagreement",
    "tdiv_sdiv",
    "mixup+disagreement",
    "gaussian+disagreement",
)
# Fractions of the step size for chains of two perturbations.
STEP_SHARES = {"mixup+disagreement": 1 / 2, "gaussian+disagreement": 3 / 4}
# Settings of other teachers than `deep`.
TEACHERS = {
    "": {},
    "mixup": {"mixup_alpha": 1.0},
    "smooth": {"label_smoothing": 0.1},
    "one": {"num_members": 1},
    "two": {"num_members": 2},
    "prior": {"kind": "prior"},
    "packed": {"kind": "packed"},
    "checkpoint": {"kind": "checkpoint"},
    "swag": {"kind": "swag"},
    "multiswag": {"kind": "swag", "networks": 2},
}


def get_config(variant: str = "") -> ml_collections.ConfigDict:
    """Returns the comparison on digits, on "cifar10_small", or reduced for "debug".

    A name of `TEACHERS` may follow after a +.
    """
    variant, _, teachers = variant.partition("+")
    if variant not in BASES or teachers not in TEACHERS:
        raise ValueError(
            f"variant {variant!r}, teachers {teachers!r}; accepted: cifar10_small, "
            f"debug, or none, and after a + one of {', '.join(filter(None, TEACHERS))}"
        )
    config = BASES[variant].get_config()
    config.teachers.update(TEACHERS[teachers])
    config.evaluation.ood_sets = ("noise",)
    if variant == "cifar10_small":
        config.evaluation.ood_sets = ("digits", "noise")
        config.evaluation.step_sizes = (
            config.evaluation.corruptions
        ) = ()  # slow for 30 students
    # Each draw costs a forward pass, in training too: use as many as teachers.
    config.distill.functional_samples = config.teachers.num_members
    config.distill.functional_inference_samples = config.teachers.num_members
    config.students = ml_collections.ConfigDict()

    def add(name, **overrides):
        config.students[name] = default.student(config, **overrides)

    def step_size(perturbation):
        return STEP_SHARES[perturbation] * config.distill.step_size

    for prefix, student in (("single", "single"), ("be", "batch_ensemble")):
        for perturbation in PERTURBATIONS:
            name = f"{prefix}_{perturbation.replace('+', '_')}"
            add(name, student=student, perturbation=perturbation)
            if perturbation == "tdiv_sdiv":  # as published
                config.students[name].clean_pass = False
            if perturbation in STEP_SHARES:
                config.students[name].step_size = step_size(perturbation)
    for perturbation in STEP_SHARES:
        add(
            f"single_{perturbation.replace('+', '_')}_tau4",
            perturbation=perturbation,
            temperature=4.0,
            step_size=step_size(perturbation),
        )
    # What the student matches: the members' geometric mean, and their mean after a
    # temperature of each, fitted on validation images.
    for name, own in (
        ("geometric", {"target_pool": "geometric"}),
        ("fitted", {"member_temperatures": "fitted"}),
    ):
        tempered = {"perturbation": "mixup", "temperature": 4.0}
        add(f"single_mixup_tau4_{name}", **tempered, **own)
    # Controls: twice the epochs.
    epochs = 2 * config.distill.num_epochs
    for perturbation in ("none", "mixup", "gaussian+disagreement"):
        name = f"single_{perturbation.replace('+', '_')}_tau4_long"
        add(name, perturbation=perturbation, temperature=4.0, num_epochs=epochs)
        if perturbation in STEP_SHARES:
            config.students[name].step_size = step_size(perturbation)
    add(
        "single_gaussian_variance",
        perturbation="gaussian+disagreement",
        step_size=step_size("gaussian+disagreement"),
        quantity="variance",
        random_members=config.teachers.num_members,
    )
    for perturbation in ("none", "mixup"):
        tempered = {"perturbation": perturbation, "temperature": 4.0}
        add(f"single_{perturbation}_tau4", **tempered)
        add(f"be_{perturbation}_tau4", student="batch_ensemble", **tempered)
        for student in ("hydra", "mimo", "packed"):
            add(f"{student}_{perturbation}_tau4", student=student, **tempered)
        # Hydra+, with weights of our choice.
        add(
            f"hydra_plus_{perturbation}_tau4",
            student="hydra",
            hydra_mean_share=0.5,
            hydra_diversity=0.1,
            **tempered,
        )
        for loss in ("mle", "proxy"):
            add(
                f"dirichlet_{loss}_{perturbation}",
                student="dirichlet",
                dirichlet_loss=loss,
                perturbation=perturbation,
            )
        add(
            f"functional_{perturbation}",
            student="functional",
            perturbation=perturbation,
        )
        if variant == "cifar10_small":
            # With a batch of 64 the functions are so far apart that the discrepancy
            # hardly shows how to bring them together; see RESULTS.md.
            config.students[f"functional_{perturbation}"].update(
                {"batch_size": 8, "learning_rate": 0.02, "functional_sigma": 0.3}
            )
        adamw = {"optimizer": "adamw", "learning_rate": 1e-3, "weight_decay": 1e-2}
        for name, num_steps in (("bridge", 5), ("residual", 1)):
            add(
                f"{name}_{perturbation}",
                student="bridge",
                perturbation=perturbation,
                bridge_steps=num_steps,
                bridge_width=64,
                **adamw,
            )
        add(
            f"flow_{perturbation}",
            student="flow",
            perturbation=perturbation,
            flow_width=64,
            **adamw,
        )
    for perturbation in ("none", "mixup", "tdiv_sdiv"):
        add(
            f"latent_be_{perturbation}_tau4",
            student="latent_batch_ensemble",
            perturbation=perturbation,
            temperature=4.0,
            alpha=1.0,
            nesterov=True,
            clean_pass=False,
        )
    if teachers == "one":  # which has no other to disagree with
        for name in list(config.students):
            if any(word in name for word in ("disagreement", "tdiv", "variance")):
                del config.students[name]
    if variant == "debug":  # with the kinds that no other configuration has
        for name in set(config.students) - {"single_none", "bridge_none", "flow_none"}:
            del config.students[name]
    return default.choose(config, "debug" if variant == "debug" else "")
