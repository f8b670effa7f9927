"""Default settings, each with its meaning. Other configurations start from this one.

Each setting can be given on the command line: `--config.teachers.num_epochs=100`,
`--config.students.be_conf_ods.step_size=0.008`, `--config.checkpoint_steps=None`.

With `:debug` after its name (`--config=configs/default.py:debug`) this and every other
shipped configuration runs in seconds; see `configs.debug`.
"""

import ml_collections
from ml_collections.config_dict import placeholder

from . import choose as choose
from . import debug as debug
from . import group as group
from . import student as student


def get_config(variant: str = "") -> ml_collections.ConfigDict:
    """Returns the defaults; `placeholder` is a setting without a value (None)."""
    config = ml_collections.ConfigDict()

    # Seed of the data split and of all random numbers.
    config.seed = 0
    # Compute type of the networks: "float32" or "bfloat16".
    config.dtype = "float32"
    # Workdir whose teachers are used; None: train them.
    config.teachers_workdir = placeholder(str)
    # Maximum minutes between checkpoints; 0: one after every epoch.
    config.checkpoint_minutes = 5.0
    # Also checkpoint every N steps; None: do not.
    config.checkpoint_steps = placeholder(int)
    # On a non-finite loss or gradient: "stop" training, or "skip" and count the batch
    # (checked in every step, which costs time).
    config.nonfinite = "stop"
    # GPU, TPU: steps per dispatched program; more help networks with very short steps.
    config.steps_per_dispatch = 1
    # Write TensorBoard event files to tensorboard/.
    config.tensorboard = False
    # Weights & Biases project to log training to; None: do not.
    config.wandb_project = placeholder(str)

    config.mesh = mesh = ml_collections.ConfigDict()
    # Devices to split the members over; member x data devices are used.
    mesh.member = 1
    # Devices to split each batch over.
    mesh.data = 1
    # Students: shard the optimizer state over all devices.
    mesh.shard_optimizer = False

    config.data = data = ml_collections.ConfigDict()
    # "digits", "synthetic", "tfds", "folder", "npz", "cifar", "svhn" or "parquet"; see
    # edp/data/sources.py.
    data.source = "digits"
    # tfds: name of the dataset, such as "cifar10".
    data.name = placeholder(str)
    # tfds: directory where it is, or will be, prepared.
    data.data_dir = placeholder(str)
    # tfds: split for training and validation.
    data.train_split = "train"
    # tfds: split for testing.
    data.test_split = "test"
    # npz: file; all other sources of files: directory.
    data.path = placeholder(str)
    # Height, width, channels; checked against the data.
    data.image_shape = (8, 8, 1)
    # Number of classes K; checked against the data.
    data.num_classes = 10
    # Training images; None: all that are not for validation.
    data.train_size = placeholder(int)
    # Validation images, taken from the training split.
    data.validation_size = placeholder(int)
    # Of the validation images, those that only calibrate prediction sets; None: none.
    data.calibration_size = placeholder(int)
    # Test images; None: all.
    data.test_size = placeholder(int)
    # Validation images: "stratified", drawn with the seed; or "last", the last in
    # order.
    data.validation = "stratified"
    # tfds, folder, parquet: True leaves images encoded until they are read.
    data.stream = False
    # Streaming: decoding processes; 0: threads of this process.
    data.num_workers = 0
    # Streaming, images of any size: "random_crop" of 8% to 100% of the area in
    # training, the central 224/256 of the shorter side in evaluation.
    data.resize = "none"
    # Not streamed: side of the pixel squares that are averaged.
    data.downsample = 1
    # Mean and standard deviation of pixels in [0, 1], per channel or one for all; the
    # network normalises with them.
    data.mean = (0.5,)
    data.std = (0.25,)
    # File of soft labels of the training images [N, K], the target of the teachers'
    # loss and of the students' label term; None: the data's labels.
    data.soft_labels = placeholder(str)
    # Pixels padded before a random crop; 0: no crop.
    data.crop_padding = 0
    # Random horizontal flips.
    data.flip = False

    config.model = model = ml_collections.ConfigDict()
    # "convnet", "resnet", "wide_resnet", "resnet50" or "vit".
    model.name = "convnet"
    # convnet, resnet: channels of the first stage; vit: features of a token.
    model.width = placeholder(int)
    # resnet: 6n + 2; wide_resnet: 6n + 4; vit: number of blocks.
    model.depth = placeholder(int)
    # wide_resnet: k of WRN-depth-k.
    model.widen_factor = placeholder(int)
    # resnet: stride of the first convolution; None: 1. With 2, a quarter of the time.
    model.stem_strides = placeholder(int)
    # vit: attention heads; divides the width.
    model.heads = placeholder(int)
    # vit: side of a patch in pixels; divides the images' sides.
    model.patch_size = placeholder(int)
    # All but convnet: rematerialise activations (less memory, more time).
    model.remat = placeholder(bool)
    # BatchNorm statistics over each of G equal parts of the batch, as on G devices that
    # do not communicate; None: over the whole batch.
    model.batchnorm_groups = placeholder(int)
    # Dropout of all networks in training, before the last layer and in residual blocks;
    # None: no dropout.
    model.dropout_rate = placeholder(float)

    config.teachers = teachers = ml_collections.ConfigDict()
    # Number of members M.
    teachers.num_members = 4
    # "deep": M networks. "snapshot": one, at the end of each of M cosine cycles of
    # num_epochs / M epochs, whatever the schedule (Huang et al., 2017). "checkpoint":
    # one, after each of the last epochs (Chen et al., 2017). "dropout": one, or
    # `networks`, under M fixed masks, with model.dropout_rate (Gal and Ghahramani,
    # 2016). "prior": M networks, each with a frozen random one (Osband et al., 2018).
    # "swag": M samples of the weights' distribution in the last epochs of one, or of
    # `networks` (MultiSWAG), at a constant rate (Maddox et al., 2019). "packed": M
    # narrow networks (Laurent et al., 2023).
    teachers.kind = "deep"
    # dropout, swag: networks, each under M / networks masks, or with as many samples.
    teachers.networks = 1
    # prior: β, the standard deviation of the random networks' logits.
    teachers.prior_scale = 1.0
    # packed: α; each network has α/M of the channels.
    teachers.packed_width = 2.0
    # checkpoint: epochs between two members.
    teachers.epochs_between = 1
    # swag: first epoch at the constant rate, whose weights are collected; before it,
    # `cosine`. None: that of the last quarter.
    teachers.swag_start = placeholder(int)
    # swag: K, the last epochs whose deviations are kept, for the low-rank part.
    teachers.swag_rank = 20
    # swag: factor of the samples' deviations from the mean; 0: SWA.
    teachers.swag_scale = 1.0
    # swag: the constant learning rate, at most learning_rate.
    teachers.swag_learning_rate = 0.05
    # True: each member trains on its own N draws with replacement from the N training
    # images (bagging, Breiman 1996).
    teachers.bootstrap = False
    # a above 0: mixup of images and labels (Zhang et al., 2018), each member with its
    # own pairs and one λ ~ Beta(a, a) per batch; 0: none.
    teachers.mixup_alpha = 0.0
    # Examples per member and step.
    teachers.batch_size = 128
    teachers.num_epochs = 200
    # Epoch to keep: "last", or "best" for the highest validation accuracy of each
    # member (dropout: the mean of all), computed after every epoch.
    teachers.select = "last"
    # Members are computed by "vmap" or "unroll"; None: by backend.
    teachers.member_strategy = placeholder(str)
    # Members per forward pass; None: all; fewer need less memory.
    teachers.members_at_once = placeholder(int)
    _set_optimizer(teachers)
    # Name -> group of members, of which num_members is the sum; see `group`.
    teachers.groups = ml_collections.ConfigDict()

    # Settings of all students; `students` overrides them by name.
    config.distill = distill = ml_collections.ConfigDict()
    # "single"; "batch_ensemble" (as many members as teachers); "latent_batch_ensemble"
    # (the same in training, one plain network afterwards); "hydra" (a head per
    # teacher); "mimo" (one network that reads M images); "packed" (M narrow networks);
    # "dirichlet" (predicts a distribution of probabilities); "functional" (one function
    # per draw of a random input); "bridge" (member 0, whose logits a small network
    # moves to the mean's); "flow" (member 0, from whose features a small network
    # samples the members' logits).
    distill.student = "single"
    # "none", "gaussian", "mixup", "ods", "conf_ods", "disagreement", "tdiv_sdiv"; or
    # several joined by +, such as "mixup+disagreement".
    distill.perturbation = "none"
    # η, in pixel units of [0, 1]; the perturbation has length η√D.
    distill.step_size = 1 / 255
    # disagreement: quantity to ascend: "variance", "mutual_information", "pairwise_kl"
    # or "projection".
    distill.quantity = "variance"
    # disagreement: gradient steps.
    distill.num_steps = 1
    # disagreement: length of each step; None: η√D / num_steps.
    distill.step_length = placeholder(float)
    # disagreement: members per gradient; None: all; fewer need less memory, but compute
    # each member's forward pass twice.
    distill.members_at_once = placeholder(int)
    # disagreement: random members, redrawn per batch, whose gradient is used; None:
    # all. Two of M = 4 halve the cost.
    distill.random_members = placeholder(int)
    # mixup: mixing weights are drawn from Beta(a, a).
    distill.mixup_alpha = 1.0
    # τ of targets, student and perturbation.
    distill.temperature = 1.0
    # Weight of the distillation loss; 1 − α is that of the labels.
    distill.alpha = 0.9
    # False: one forward pass of the student; the label term too is computed on
    # perturbed inputs (with mixed labels for mixtures).
    distill.clean_pass = True
    # single: how its targets pool the teachers: "arithmetic", the mean probability,
    # or "geometric".
    distill.target_pool = "arithmetic"
    # "fitted": each teacher's logits are divided by a temperature of its own, fitted on
    # the validation images, before τ; "none": not divided.
    distill.member_temperatures = "none"
    # batch_ensemble: initial rank-one factors: "normal", "sign" or "ones".
    distill.factor_init = "normal"
    # batch_ensemble: learning rate of rank-one factors, relative to the other weights.
    distill.rank_one_lr_factor = 0.5
    # hydra: share of the training with one head, for the mean.
    distill.hydra_single_share = 0.5
    # hydra: share of the heads' mean in the distillation term (Hydra+).
    distill.hydra_mean_share = 0.0
    # hydra: weight of the similarity of the heads' weights (Hydra+).
    distill.hydra_diversity = 0.0
    # mimo: times that an image is shown to each head in a step.
    distill.mimo_repetitions = 1
    # packed: α; each network has α/M of the channels.
    distill.packed_alpha = 2.0
    # dirichlet: "proxy" or "mle".
    distill.dirichlet_loss = "proxy"
    # dirichlet, mle: initial temperature T; it is annealed to 1.
    distill.dirichlet_start_temperature = 10.0
    # dirichlet, mle: shares of the training between which T is annealed.
    distill.dirichlet_annealing = (0.0, 0.5)
    # functional: σ of the random input.
    distill.functional_sigma = 1.0
    # functional: draws per training step.
    distill.functional_samples = 8
    # functional: teachers per step, redrawn; None: all.
    distill.functional_teachers = placeholder(int)
    # functional: draws per prediction.
    distill.functional_inference_samples = 8
    # bridge: steps N from member 0 to the mean; 1: a regression without noise.
    distill.bridge_steps = 5
    # bridge: share of the training, at its end, in which the steps are distilled into
    # one; 0: predictions take N steps.
    distill.bridge_one_step_share = 0.3
    # bridge: β₁ and β₂ of the noise.
    distill.bridge_betas = (1e-4, 1e-4)
    # bridge: features of a block of the score network.
    distill.bridge_width = 128
    # flow: features of a block of the network of velocities.
    distill.flow_width = 128
    # flow: samples per prediction; None: as many as teachers.
    distill.flow_samples = placeholder(int)
    distill.batch_size = 128
    distill.num_epochs = 250
    # Epoch to keep: "last", or "best" for the highest validation accuracy (the mean of
    # the members' accuracies, for students with several).
    distill.select = "last"
    _set_optimizer(distill)

    # Name -> settings that differ from `distill`; see `student`.
    config.students = ml_collections.ConfigDict()
    config.students.single_none = student(config)

    config.evaluation = evaluation = ml_collections.ConfigDict()
    evaluation.batch_size = 256
    # Subsets of teachers per ensemble size; if there are more, a random sample.
    evaluation.max_subsets = 256
    # Inputs for the comparison of networks.
    evaluation.diversity_size = 1000
    # With data.calibration_size: the score of prediction sets ("thr", "aps" or "raps"),
    # and the probabilities with which they are to contain the label.
    evaluation.set_score = "thr"
    evaluation.set_coverages = (0.9,)
    # Inputs whose gradients measure how alike the teachers' attributions are; 0: none.
    evaluation.attribution_size = 0
    # Inputs shown in the report.
    evaluation.gallery_size = 6
    # Further η at which to analyse each perturbation besides its students' own, such as
    # (1 / 255, 2 / 255, 4 / 255, 8 / 255).
    evaluation.step_sizes = ()
    # OOD sets: "digits", "noise", names of TFDS sets such as "svhn_cropped", a folder
    # of images, an .npz, or an .npy of images.
    evaluation.ood_sets = ()
    # Images of each OOD set, and of the test set it is compared with.
    evaluation.ood_size = 1000
    # Corruptions of test images: ("all",), or names from edp/data/corruptions.py such
    # as ("fog", "gaussian_noise"); and folders of published ones, such as
    # ("./CIFAR-10-C",).
    evaluation.corruptions = ()
    # Test images per corruption, at each of five severities.
    evaluation.corruption_size = 1000
    # File of soft labels of the test images [N, K], such as cifar10h-probs.npy.
    evaluation.soft_labels = placeholder(str)
    return choose(config, variant)


def _set_optimizer(section: ml_collections.ConfigDict) -> None:
    """Sets the optimizer, its schedule and what regularises the training.

    Rank-one factors are not decayed (latent BatchEnsembles: decayed to 1).
    """
    # "sgd", with L2 decay added to the gradient; or "adamw", with decoupled decay, for
    # which 1e-3 and 1e-2 are usual values of learning_rate and weight_decay.
    section.optimizer = "sgd"
    # "cosine", "step_linear" or "constant".
    section.schedule = "cosine"
    # Peak learning rate.
    section.learning_rate = 0.1
    # cosine: warm-up.
    section.warmup_epochs = 5.0
    # step_linear: epochs E1 and E2.
    section.milestones = (100, 180)
    # adamw: β₁.
    section.momentum = 0.9
    section.nesterov = False
    section.weight_decay = 5e-4
    # Batches whose mean gradient makes one step; a last, incomplete group makes none.
    section.accumulate_steps = 1
    # Decay per step of a moving average of the weights (EMA), which is then evaluated
    # and kept in place of the last ones, such as 0.999; None: no average.
    section.ema_decay = placeholder(float)
    # ε of the labels' targets, (1 − ε) y + ε/K, in the teachers' loss and in the
    # students' label term.
    section.label_smoothing = 0.0
