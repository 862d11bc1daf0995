"""Every key that exists, with its unit and meaning. Other configs state differences only. `ltrobust config` lists them.

The values are the long-tailed CIFAR-10 recipe at full scale (configs/cifar10.py), except that the data are `digits`.
"""

from typing import Any

from ml_collections import ConfigDict

from ltrobust import methods, models


def get_config() -> ConfigDict:
    config: Any = ConfigDict()
    config.seed = 0  # of initial weights, order of images, augmentation and training attacks

    config.data = ConfigDict()
    # digits, cifar10, cifar100, mnist, fashion_mnist, emnist_balanced and its other parts, svhn_cropped, stl10,
    # tiny_imagenet, imagenet, imagenet10, folder, image_list; `ltrobust data NAME` says what each needs
    config.data.name = "digits"
    config.data.dir = (
        ""  # folder of the archive or of TFDS's records, "": TFDS's own; folder: holds train/CLASS, test/CLASS
    )
    # image_list only: text files with a line "PATH LABEL" for each image, with paths from data.dir
    config.data.lists = ConfigDict()
    config.data.lists.train = ""
    config.data.lists.validation = ""  # "": the validation part is taken from the training list
    config.data.lists.test = ""
    config.data.lists.classes = ""  # a file with a line for each class, its name; "": numbers
    config.data.resize = 0  # image_list only: shorter side before the centre is cut out; 0: 256/224 of image_size
    config.data.cache_dir = "~/.cache/ltrobust"  # decoded copies, made on first use
    config.data.image_size = 32  # folder, imagenet, image_list: pixels of either side of the images
    config.data.channels = 3  # files only: 1 (grey), 3 (RGB): what images are converted to
    config.data.skip_unreadable = False  # files only: count those that cannot be read, and continue without them
    config.data.cache_check = "sample"  # files only: sample, full: how much of contents is compared
    # Where training images are: device: on every device; host: sent there step by step; auto: host if they are decoded
    # from files as they are needed, or fill more than half of a device's memory. Results are the same, bit for bit.
    config.data.residence = "auto"
    config.data.workers = 0  # processes that decode files for host-fed training; 0: one a core
    config.data.imbalance_ratio = 50.0  # n_max / n_min of the subset; 0: every image that there is
    config.data.profile = "exp"  # exp, step
    # Classes from the most frequent to the rarest: "": 0, 1, 2, ...; reversed; random:SEED; or numbers, "2,0,1"
    config.data.class_order = ""
    config.data.split_seed = 0  # 0: the images of RoBal, AT-BSL and REAT
    config.data.validation_fraction = 0.05  # of each class's training images; 0 for no validation part
    config.data.validation_floor = 10  # validation images of each class, at least
    config.data.validation_cap = 0.2  # of each class's training images, at most

    config.threat = ConfigDict()
    config.threat.norm = "linf"  # linf, l2
    config.threat.radius = 8.0  # in 1/255

    config.model = ConfigDict()
    # resnet18, preact_resnet18, mobilenet_v2, small_resnet; wrn_28_10, wrn_34_10, dm_wrn_28_10, and other depths and
    # widths; for 224x224 images imagenet_resnet18, imagenet_resnet34, imagenet_resnet50, convnext_tiny; a registered
    # network; package.module:CLASS
    config.model.name = "resnet18"
    config.model.width = 16  # channels of the first stage, small_resnet only
    config.model.depth = 1  # blocks per stage, small_resnet only
    config.model.stem_stride = 1  # of the first convolution, small_resnet only
    config.model.activation = "relu"  # relu, silu; wide residual networks only
    config.model.dtype = "float32"  # compute type: float32, bfloat16; parameters are always float32
    config.model.sync_batch_norm = True  # batch statistics over all devices (True) or each device's share (False)
    config.model.remat = False  # True: training computes blocks again for gradients: less memory, more time
    config.model.update(models.defaults())  # settings of registered networks, if there are any

    # A phase trains the teacher only if the student's settings ask for one.
    config.teacher = _phase()
    config.teacher.method = "pgd_at"
    config.teacher.subset = "balanced"
    config.teacher.epochs = 30
    config.teacher.remainder = "carry"
    config.teacher.optimizer.drops = (0.6, 0.8)

    config.student = _phase()
    config.student.method = "self_distillation"
    config.student.subset = "all"
    config.student.epochs = 100
    config.student.remainder = "drop"
    config.student.optimizer.drops = (0.74, 0.89, 0.99)  # epochs 75, 90, 100, counted from 1

    # Frozen networks that the student's method asks for. Without a path, `teacher` is the run's own teacher phase.
    config.teachers = ConfigDict()
    config.teachers.teacher = _outside_teacher()
    config.teachers.clean_teacher = _outside_teacher()  # naturally trained: mtard, b_mtard, iad2

    # Settings of each method and wrapper that has any; both phases share them. They are the keyword arguments of the
    # functions in ltrobust/methods, which say what each of them means: `ltrobust config methods`.
    config.methods = ConfigDict(methods.defaults())

    config.eval = ConfigDict()
    config.eval.protocol = "quick"  # see ltrobust/evaluation/protocols.py
    config.eval.checkpoint = "student"  # to be evaluated: student, teacher, or a path to a workdir or a phase's folder
    config.eval.batch_size = 0  # images per call on each device; 0: 128 on a GPU or TPU, 512 on all devices of a CPU
    config.eval.limit = 0  # test images per class, 0 for all
    config.eval.seed = 0  # of the attacks' random draws
    config.eval.networks = ()  # to be evaluated, such as ("student/last",); (): all of them
    config.eval.keep_images = False  # True: keep every adversarial image beside the verdicts; False: a small sample
    # After training, evaluations besides this one: each a dict of keys of `eval` and `threat` that it changes, such as
    # {"eval.protocol": "standard", "eval.limit": 100}
    config.eval.also = ()

    # Options of XLA's compiler for training, such as xla_tpu_dot_dot_fusion = "false"; they may change last bits.
    # Evaluations are compiled without them. See docs/project/performance.md.
    config.compiler = ConfigDict()

    config.log = ConfigDict()
    config.log.wandb = ""  # project of Weights & Biases that epochs are sent to, which needs the extra wandb; "": none

    config.checkpoint = ConfigDict()
    config.checkpoint.minutes = 10.0  # between checkpoints; the end of a phase is always saved
    config.checkpoint.keep = 2  # newest checkpoints kept per phase; with 1 a damaged one cannot be replaced
    config.checkpoint.dir = ""  # any folder that etils.epath reaches, such as gs://BUCKET/RUN; "": in the workdir
    return config


def _outside_teacher() -> Any:
    """Settings of an external teacher."""
    entry: Any = ConfigDict()
    entry.path = ""  # a workdir (its student), a phase's folder of checkpoints, or a PyTorch file, or FILE::NAME
    entry.weights = "last"  # last, selected, averaged: which of a checkpoint's
    entry.architecture = ""  # of a PyTorch file, as model.name
    entry.activation = "relu"  # of a PyTorch file: relu, silu
    entry.mean = ()  # of a PyTorch file's input normalisation, for each channel; (): none, or the file's own
    entry.std = ()  # as mean
    return entry


def _phase() -> Any:
    """Keys that teacher and student share, with the values that they share."""
    phase: Any = ConfigDict()
    phase.method = ""  # pgd_at, at_bsl, one of those with settings in config.methods, or a registered one
    phase.wrappers = ()  # around the method, the first one innermost: awp, robust_lt, igdm, fair_ard, cfa ...
    phase.subset = ""  # all, balanced: which images of the training part it sees
    phase.balanced = ConfigDict()
    phase.balanced.count = 0  # images per class; 0: from gamma
    phase.balanced.gamma = 0.0  # images per class as a multiple of the rarest class; 0: sqrt(n_max / n_min)
    phase.balanced.up_sample = True  # whether rare images may repeat
    phase.balanced.redraw = False  # a new subset every epoch
    phase.balanced.seed = 0  # of the draw
    phase.shuffle_labels = False  # negative control
    phase.initialize = (
        "scratch"  # scratch; teacher: its last weights; or a path: those of a workdir's student, of a phase
    )
    phase.epochs = 0  # length of the phase
    phase.steps = 0  # updates; if above 0 it replaces epochs
    phase.batch_size = 128  # over all devices
    phase.accumulate = 1  # parts in which a step computes its batch, one after another, to save memory
    phase.remainder = ""  # drop: last partial batch of an epoch; carry: into the next epoch
    phase.optimizer = ConfigDict()
    phase.optimizer.name = "sgd"  # any optax optimiser
    phase.optimizer.momentum = 0.9  # sgd only
    phase.optimizer.nesterov = False  # sgd only
    phase.optimizer.options = ConfigDict()  # further keyword arguments of the optax optimiser
    phase.optimizer.weight_decay = 5e-4  # coupled L2 on all parameters
    phase.optimizer.learning_rate = 0.1  # before the schedule
    phase.optimizer.schedule = "drops"  # drops, cosine, constant
    phase.optimizer.drops = ()  # fractions of the epochs after which the rate is multiplied by drop_factor
    phase.optimizer.drop_factor = 0.1  # what the rate is multiplied by at a drop
    phase.optimizer.warmup_epochs = 0  # linear from 0
    phase.ema_decay = 0.0  # per step, of averaged weights; 0 for none
    phase.augmentation = ConfigDict()
    # none, base (crop and flip), randaugment, autoaugment (both before crop and flip); random_resized_crop (and flip),
    # of an image_list only
    phase.augmentation.policy = "base"
    phase.augmentation.crop_padding = 4  # pixels
    phase.augmentation.flip = True  # horizontal, with probability 1/2
    # Strengths of random brightness, contrast and saturation, 0 (off) to 1; last. As published for ImageNet-LT: 0.4
    phase.augmentation.jitter = (0.0, 0.0, 0.0)
    phase.attack = ConfigDict()
    phase.attack.steps = 10  # of PGD
    phase.attack.step_size = 2.0  # in 1/255
    phase.attack.start = "gauss"  # none, gauss, uniform, uniform_raw, one_sided
    phase.attack.bn = "eval"  # eval, batch_frozen: BatchNorm in the attack's passes
    phase.attack.radius = -1.0  # in 1/255; below 0: the threat's, 0: standard training
    phase.validate_every = 1  # epochs
    phase.selection_floor = 10  # validation images that every class needs for a selection of weights by validation
    return phase
