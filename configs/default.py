"""Every setting there is, with its meaning. Other configs start from this one.

Any of them can be given on the command line: `--config.teachers.num_epochs=100`,
`--config.students.be_conf_ods.step_size=0.008`.

With `:debug` after its name (`--config=configs/default.py:debug`) this and every
other config here runs in seconds: see `debug`.
"""

import ml_collections
from ml_collections.config_dict import placeholder


def get_config(variant: str = "") -> ml_collections.ConfigDict:
    """The defaults; `placeholder` is a setting without a value (None)."""
    config = ml_collections.ConfigDict()

    config.seed = 0  # of the data split and everything that is drawn
    config.dtype = "float32"  # what networks compute in; or "bfloat16"
    config.teachers_workdir = placeholder(str)  # use the teachers trained there
    config.checkpoint_minutes = 5.0  # at most this long between checkpoints; 0: one at
    # the end of every epoch
    config.checkpoint_steps = placeholder(int)  # and one in every N steps; None: none
    config.nonfinite = "stop"  # a loss or gradient that is not finite ends training; or
    # "skip": such a batch is left out and counted, at the cost of a check in every step
    config.steps_per_dispatch = 1  # GPU, TPU: more for networks of very short steps
    config.tensorboard = False  # True: event files of training too, in tensorboard/
    config.wandb_project = placeholder(str)  # Weights & Biases: log training there
    config.mesh = mesh = ml_collections.ConfigDict()
    mesh.member = 1  # devices to split the members over
    mesh.data = 1  # devices to split each batch over; in all member x data of them
    mesh.shard_optimizer = False  # students: split the optimizer's memory over all

    config.data = data = ml_collections.ConfigDict()
    data.source = "digits"  # "synthetic", "tfds", "folder", "npz", "cifar", "svhn",
    # "parquet": see edp/data/sources.py
    data.name = placeholder(str)  # tfds: name of the dataset, as "cifar10"
    data.data_dir = placeholder(str)  # tfds: directory of prepared datasets
    data.train_split = "train"  # tfds: split for training and validation
    data.test_split = "test"  # tfds: split for testing
    data.path = placeholder(str)  # npz: the file; all others: the directory
    data.image_shape = (8, 8, 1)  # height, width, channels: checked
    data.num_classes = 10  # K: checked
    data.train_size = placeholder(int)  # None: all that validation leaves
    data.validation_size = placeholder(int)  # taken from training
    data.test_size = placeholder(int)  # None: all
    data.validation = "stratified"  # drawn with the seed; or "last", in order
    data.stream = False  # tfds, folder, parquet: True decodes images when needed
    data.num_workers = 0  # stream: decoding processes; 0: threads of this process
    data.resize = "none"  # stream, images of any size: "random_crop" of 8% to 100% of
    # the area in training, central 224/256 of the shorter side in evaluation
    data.downsample = 1  # not streamed: side of the squares of pixels to average
    data.mean = (0.5,)  # per channel (or one for all), of pixels in [0, 1];
    data.std = (0.25,)  # applied by the network itself
    data.crop_padding = 0  # pixels padded before a random crop; 0: no crop
    data.flip = False  # random horizontal flips

    config.model = model = ml_collections.ConfigDict()
    model.name = "convnet"  # "convnet", "resnet", "wide_resnet" or "resnet50"
    model.width = placeholder(int)  # convnet, resnet: channels of the first stage
    model.depth = placeholder(int)  # resnet: 6n + 2; wide_resnet: 6n + 4
    model.widen_factor = placeholder(int)  # wide_resnet: k of WRN-depth-k
    model.remat = placeholder(bool)  # all but convnet: less memory, more time
    model.batchnorm_groups = placeholder(int)  # None: statistics of the whole batch; G:
    # of each of G equal parts of it, as on G devices that do not communicate

    model.dropout_rate = placeholder(float)  # None: no dropout; of all networks, while
    # they are trained: before the last layer and in residual blocks

    config.teachers = teachers = ml_collections.ConfigDict()
    teachers.num_members = 4  # M
    teachers.kind = "deep"  # M networks; or "snapshot": one, at the end of each of M
    # cosine cycles of the learning rate, of num_epochs / M epochs each, whatever the
    # schedule (Huang et al., 2017); or "dropout": one, under M masks that are drawn
    # once, with model.dropout_rate (Gal and Ghahramani, 2016)
    teachers.bootstrap = False  # True: each member sees N of the N training images,
    # drawn once with replacement (bagging, Breiman 1996)
    teachers.batch_size = 128  # examples per member and step
    teachers.num_epochs = 200
    teachers.select = "last"  # the epoch kept; or "best": of each member, that of the
    # highest validation accuracy, computed after every epoch
    teachers.member_strategy = placeholder(str)  # "vmap", "unroll"; None: by backend
    teachers.members_at_once = placeholder(int)  # None: all; few: less memory
    _set_optimizer(teachers)

    config.distill = distill = ml_collections.ConfigDict()
    distill.student = "single"  # or "batch_ensemble" (as many members as teachers),
    # "latent_batch_ensemble" (that in training, one plain network afterwards),
    # "hydra" (one network, a last layer for each teacher),
    # "dirichlet" (one network that tells a distribution of probabilities),
    # "functional" (one network, another function for each draw of its random input)
    distill.perturbation = "none"  # "gaussian", "mixup", "ods", "conf_ods",
    # "disagreement", "tdiv_sdiv"; or several joined by +, as "mixup+disagreement"
    distill.step_size = 1 / 255  # η, of pixels in [0, 1]; moves are of length η√D
    distill.quantity = "variance"  # disagreement: what it ascends; also
    # "mutual_information", "pairwise_kl", "projection"
    distill.num_steps = 1  # disagreement: gradient steps
    distill.step_length = placeholder(float)  # disagreement: None: η√D / num_steps
    distill.members_at_once = placeholder(int)  # disagreement: None: all; few: less
    # memory, each member's forward pass computed twice
    distill.random_members = placeholder(int)  # disagreement: None: all; 2: of two
    # members drawn anew per batch, at half the cost for M = 4
    distill.mixup_alpha = 1.0  # mixup: a of Beta(a, a), of which the shares are drawn
    distill.temperature = 1.0  # τ, of targets, student and perturbation
    distill.alpha = 0.9  # weight of the distillation term; 1 − α of the labels
    distill.clean_pass = True  # False: the label term too on perturbed inputs (of
    # mixtures with mixed labels)
    distill.factor_init = "normal"  # batch_ensemble: or "sign", "ones"
    distill.rank_one_lr_factor = 0.5  # batch_ensemble: of the learning rate
    distill.hydra_single_share = 0.5  # hydra: of training, with one head for the mean
    distill.dirichlet_loss = "proxy"  # dirichlet: or "mle"
    distill.dirichlet_start_temperature = 10.0  # mle: T at first, 1 in the end;
    distill.dirichlet_annealing = (0.0, 0.5)  # between these shares of the training
    distill.functional_sigma = 1.0  # functional: σ of the random input
    distill.functional_samples = 8  # functional: draws per training step
    distill.functional_teachers = placeholder(int)  # functional: None: all; few: drawn
    # anew per step
    distill.functional_inference_samples = 8  # functional: draws per prediction
    distill.batch_size = 128
    distill.num_epochs = 250
    distill.select = "last"  # the epoch kept; or "best": that of the highest validation
    # accuracy, of students with several members their mean
    _set_optimizer(distill)

    # Name -> what differs from `distill`; see `student`.
    config.students = ml_collections.ConfigDict()
    config.students.single_none = student(config)

    config.evaluation = evaluation = ml_collections.ConfigDict()
    evaluation.batch_size = 256
    evaluation.max_subsets = 256  # of teachers, per ensemble size; more: a sample
    evaluation.diversity_size = 1000  # inputs on which networks are compared
    evaluation.gallery_size = 6  # inputs shown in the report
    evaluation.step_sizes = ()  # η at which each perturbation is analysed besides its
    # students' own, as (1 / 255, 2 / 255, 4 / 255, 8 / 255)
    evaluation.ood_sets = ()  # out-of-distribution datasets: "digits", "noise", TFDS
    # names as "svhn_cropped", a folder of images, an .npz or an .npy of images
    evaluation.ood_size = 1000  # images of each, and of the test set beside them
    evaluation.corruptions = ()  # of test images: ("all",), or names from
    # edp/data/corruptions.py as ("fog", "gaussian_noise")
    evaluation.corruption_size = 1000  # test images, of each at five severities
    return choose(config, variant)


def _set_optimizer(section: ml_collections.ConfigDict) -> None:
    """SGD with momentum; L2 decay on all but rank-one factors (latent: those to 1)."""
    section.schedule = "cosine"  # "step_linear", "cosine" or "constant"
    section.learning_rate = 0.1  # its peak
    section.warmup_epochs = 5.0  # cosine
    section.milestones = (100, 180)  # step_linear: epochs E1 and E2
    section.momentum = 0.9
    section.nesterov = False
    section.weight_decay = 5e-4
    section.accumulate_steps = 1  # batches whose mean gradient makes one step


def student(
    config: ml_collections.ConfigDict, **overrides
) -> ml_collections.ConfigDict:
    """A student: `config.distill` with `overrides`.

    Every key of `distill` is there, so that each can be set on the command line;
    one left at None is taken from `distill`.
    """
    settings = ml_collections.ConfigDict()
    for key in config.distill:
        settings[key] = placeholder(config.distill.get_type(key))
    settings.update(overrides)
    return settings


def choose(
    config: ml_collections.ConfigDict, variant: str
) -> ml_collections.ConfigDict:
    """The config as it is for the variant "", cut down by `debug` for "debug"."""
    if variant not in ("", "debug"):
        raise ValueError(f"variant {variant!r}; accepted: debug, or none")
    return debug(config) if variant else config


# By name of the model, its smallest form.
_SMALLEST = {
    "convnet": {"width": 4},
    "resnet": {"depth": 8, "width": 4},
    "wide_resnet": {"depth": 10, "widen_factor": 1},
    "resnet50": {"blocks": (1, 1, 1, 1)},
}


def debug(config: ml_collections.ConfigDict) -> ml_collections.ConfigDict:
    """Cuts a config down to seconds of the whole pipeline, on made-up images.

    Two of the smallest networks and at most three students, one epoch each of four
    steps; schedules, optimizers and methods are the config's.
    """
    data = config.data
    data.source = "synthetic"
    data.stream, data.resize, data.num_workers, data.downsample = False, "none", 0, 1
    data.train_size, data.validation_size, data.test_size = 40, 20, 20
    data.num_classes = min(data.num_classes, 10)
    data.image_shape = (16, 16, data.image_shape[-1])
    config.model.update(_SMALLEST[config.model.name])
    config.teachers.num_members = 2

    def is_perturbed(name):
        own = config.students[name].perturbation
        return (own or config.distill.perturbation) != "none"

    for name in sorted(config.students, key=is_perturbed)[3:]:  # a plain one stays
        del config.students[name]
    for section in (config.teachers, config.distill, *config.students.values()):
        section.num_epochs = 1
        section.batch_size = 10
        section.accumulate_steps = 1
        for key in ("random_members", "functional_teachers"):
            if section.get(key) is not None:
                section[key] = 2
    config.evaluation.diversity_size = 20
    config.evaluation.gallery_size = 2
    config.evaluation.ood_size = config.evaluation.corruption_size = 20
    if config.evaluation.ood_sets:
        config.evaluation.ood_sets = ("digits", "noise")
    return config
