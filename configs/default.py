"""Every key that exists, with its unit and meaning. Other configs state differences only.

The values are the long-tailed CIFAR-10 recipe at full scale (docs/reproducing.md), except that the data are `digits`.
"""

from typing import Any

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    config: Any = ConfigDict()
    config.seed = 0  # of initial weights, order of images, augmentation and training attacks

    config.data = ConfigDict()
    config.data.name = "digits"  # digits, cifar10, cifar100, mnist, svhn_cropped, stl10, tiny_imagenet, folder
    config.data.dir = (
        ""  # folder of the archive or of TFDS's records, "": TFDS's own; folder: holds train/CLASS, test/CLASS
    )
    config.data.cache_dir = "~/.cache/ltrobust"  # decoded copies, made on first use
    config.data.image_size = 32  # folder only: pixels of either side that images are resized to (bilinear)
    config.data.channels = 3  # folder only: 1 (grey), 3 (RGB): what images are converted to
    config.data.skip_unreadable = False  # folder only: count files that cannot be read, and go on without them
    config.data.cache_check = "sample"  # folder only: sample, full: contents compared with those of the decoded copy
    config.data.imbalance_ratio = 50.0  # n_max / n_min of the subset; 0: every image that there is
    config.data.profile = "exp"  # exp, step
    config.data.split_seed = 0  # 0: the images of RoBal, AT-BSL and REAT
    config.data.validation_fraction = 0.05  # of each class's training images, 0 for no validation part ...
    config.data.validation_floor = 10  # ... but at least so many ...
    config.data.validation_cap = 0.2  # ... and at most this fraction

    config.threat = ConfigDict()
    config.threat.norm = "linf"  # linf, l2
    config.threat.radius = 8.0  # in 1/255

    config.model = ConfigDict()
    # resnet18, preact_resnet18, mobilenet_v2, small_resnet, wrn_28_10, wrn_34_10, dm_wrn_28_10; other depths and widths
    config.model.name = "resnet18"
    config.model.width = 16  # channels of the first stage, small_resnet only
    config.model.depth = 1  # blocks per stage, small_resnet only
    config.model.stem_stride = 1  # of the first convolution, small_resnet only
    config.model.activation = "relu"  # relu, silu; wide residual networks only
    config.model.dtype = "float32"  # compute type: float32, bfloat16; parameters are always float32
    config.model.sync_batch_norm = True  # batch statistics over all devices (True) or each device's share (False)

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

    # Settings of each method that has any; both phases share them.
    config.methods = ConfigDict()
    config.methods.trades = ConfigDict()
    config.methods.trades.beta = 6.0  # weight of the KL
    config.methods.trades.variant = "as_described"  # as_described: train-mode passes x, x'; as_released: x, x', x
    config.methods.mart = ConfigDict()
    config.methods.mart.beta = 5.0  # weight of the weighted KL
    config.methods.mart.variant = "as_described"  # as_released: the public code's guards against zeros
    config.methods.fat = ConfigDict()
    config.methods.fat.patience = 3  # steps of the attack from misclassified iterates
    config.methods.fat.variant = "as_described"  # as_released, by CFA: after so many, no step from any iterate
    config.methods.robal = ConfigDict()  # the values are RoBal-N's on CIFAR-10
    config.methods.robal.margin = 0.1  # m
    config.methods.robal.scale = 10.0  # s of the label loss
    config.methods.robal.tau_b = 1.2  # weight of log(n_c / N) in the label loss
    config.methods.robal.tau_m = 0.0  # weight of log(n_c / n_min) in the margins
    config.methods.robal.beta = 6.0  # weight of the KL
    config.methods.robal.floor = 1 / 32  # added to the length of each class's weights
    config.methods.robal.test_scale = 10.0  # of the cosines at test time
    config.methods.robal.tau_p = 0.1  # weight of log(n_c / N), subtracted at test time; 0: nothing
    config.methods.robal.variant = "as_described"  # train-mode passes x, x'; as_released: x', x, x, x'
    config.methods.reat = ConfigDict()
    config.methods.reat.variant = "as_described"  # pairwise tail term; as_released: one divergence per anchor
    config.methods.taet = ConfigDict()
    config.methods.taet.clean_fraction = 0.4  # of the epochs: clean training before the equalization
    config.methods.taet.mean_weight = 0.1  # of the mean of the class losses
    config.methods.taet.variance_weight = 0.1  # of their variance
    config.methods.taet.share_weight = 0.1  # of the sum of their squared shares
    config.methods.taet.variant = "as_described"  # as_released: absent classes count as loss 0, x passes first
    config.methods.awp = ConfigDict()  # a wrapper
    config.methods.awp.gamma = 0.005  # length of the perturbation relative to the weights
    config.methods.awp.warmup_epochs = 0  # without a perturbation
    config.methods.awp.direction = "gradient"  # gradient, optimizer: the optimiser's step for the negative gradient
    config.methods.robust_lt = ConfigDict()  # a wrapper
    config.methods.robust_lt.spread = 0.3  # of the radii over the classes: 0 equal, 1 none for the most frequent class
    config.methods.robust_lt.ramp = 0.8  # fraction of the phase over which radii grow; 0: none
    config.methods.self_distillation = ConfigDict()
    config.methods.self_distillation.alpha = 1.0  # weight of the logit KL
    config.methods.self_distillation.beta = 1.0  # weight of indirect gradient matching
    config.methods.self_distillation.label_weight = 1.0  # weight of the label loss
    config.methods.self_distillation.label_loss = "bsl"  # bsl (balanced softmax), ce
    config.methods.self_distillation.temperature = 1.0  # of the logit KL
    config.methods.self_distillation.teacher_input = "adv"  # adv, clean: what the teacher sees in the logit KL
    config.methods.self_distillation.inner_objective = "ce"  # ce, bsl, teacher_kl
    config.methods.self_distillation.ramp = "linear"  # of beta: linear (epoch / epochs), none
    config.methods.self_distillation.clean_forward = True  # statistics-only pass on clean images if beta > 0
    config.methods.self_distillation.minus_bn = "train"  # train, batch_frozen: BatchNorm of the x - delta pass
    config.methods.self_distillation.clip_minus = False  # cut x - delta to [0, 1]

    # kl_scale multiplies every KL between teacher and student; public code has other scales, see docs/methods.md.
    config.methods.ard = ConfigDict()
    config.methods.ard.teacher_weight = 1.0  # of the KL; the rest is the cross-entropy on clean images
    config.methods.ard.temperature = 1.0  # of the KL
    config.methods.ard.kl_scale = 1.0
    config.methods.iad = ConfigDict()
    config.methods.iad.own_from = 60  # epochs before the student's own answer counts
    config.methods.iad.guide_power = 0.1  # of the teacher's probability of the true class
    config.methods.iad.kl_scale = 1.0
    config.methods.iad.variant = "as_described"  # as_described: passes x', x; as_released: x', x', x and late x again
    config.methods.iad2 = ConfigDict()
    config.methods.iad2.own_from = 40  # as for iad
    config.methods.iad2.guide_power = 0.1  # as for iad
    config.methods.iad2.kl_scale = 1.0
    config.methods.iad2.variant = "as_described"  # as_described: passes x', x; as_released: early x' alone
    config.methods.rslad = ConfigDict()
    config.methods.rslad.adv_weight = 5 / 6  # of the KL on adversarial images; the rest is on clean ones
    config.methods.rslad.kl_scale = 0.1
    config.methods.adaad = ConfigDict()
    config.methods.adaad.adv_weight = 1.0  # as for rslad
    config.methods.adaad.inner_objective = "teacher_kl"  # teacher_kl (through both networks), ce (the cheap form)
    config.methods.adaad.passes = "clean_adv"  # clean_adv, adv_clean: order of the train-mode passes
    config.methods.adaad.kl_scale = 1.0
    config.methods.adaiad = ConfigDict()
    config.methods.adaiad.own_from = 60  # as for iad
    config.methods.adaiad.guide_power = 0.1  # as for iad
    config.methods.adaiad.temperature = 30.0  # of the teacher's KL
    config.methods.adaiad.kl_scale = 1.0
    config.methods.adaiad.variant = "as_described"  # as_described: passes x, x'; as_released: x, x', x and late x again
    config.methods.mtard = ConfigDict()
    config.methods.mtard.rate = 0.025  # at which the loss weights follow the losses
    config.methods.mtard.rate_drops = ()  # fractions of the phase after which it is a tenth
    config.methods.mtard.kl_scale = 0.1
    config.methods.b_mtard = ConfigDict()
    config.methods.b_mtard.rate = 0.025  # as for mtard
    config.methods.b_mtard.heat_rate = 0.001  # by which the teachers' temperatures move in a step
    config.methods.b_mtard.rate_drops = ()  # of both rates
    config.methods.b_mtard.kl_scale = 0.1
    # Class-wise robustness
    config.methods.chi2_class_dro = ConfigDict()
    config.methods.chi2_class_dro.rho = 0.2  # radius of the ball of class distributions; 0: the uniform one
    config.methods.chi2_class_dro.average = -1.0  # kept of class losses at a step; below 0: by C, 0: batch means
    config.methods.label_aug = ConfigDict()
    config.methods.label_aug.extra = 1  # outputs beyond the classes: 1, or 0 (pgd_at)
    config.methods.label_aug.delta = 0.15  # what the added output gets of the label
    config.methods.dafa = ConfigDict()
    config.methods.dafa.beta = 6.0  # weight of the KL
    config.methods.dafa.warmup_fraction = 70 / 110  # of the epochs: TRADES, before the class weights
    config.methods.dafa.scale = 1.0  # of what a class's weight moves; 1.5 on CIFAR-100
    config.methods.dafa.floor = 0.1  # least weight of a class
    config.methods.dafa.variant = "as_described"  # as_released: of a tie, both classes lose weight
    config.methods.wat = ConfigDict()
    config.methods.wat.beta = 6.0  # weight of the KL
    config.methods.wat.rate = 0.1  # at which weights follow the sums of the validation losses
    config.methods.wat.normalized = False  # divides the loss by the weights' mean and the last weight, about 2
    config.methods.frl = ConfigDict()  # the values are FRL's without remargin; with it slack is 0.07
    config.methods.frl.beta = 1.5  # weight of the KL
    config.methods.frl.slack = 0.1  # what a class's error may lie above the mean of classes
    config.methods.frl.rate = 0.05  # of the multipliers of the clean error; twice that for the other
    config.methods.frl.halve_every = 40  # epochs after which the rate halves
    config.methods.frl.limit = 0.5  # of the sum of multipliers, below 1
    config.methods.frl.remargin = False  # whether radii change too
    config.methods.frl.margin_rate = 0.2  # of the radii's exponents
    config.methods.frl.variant = "as_described"  # as_released: the rate halves one update earlier
    config.methods.bat = ConfigDict()
    config.methods.bat.beta = 6.0  # weight of the KL
    config.methods.bat.variant = "as_described"  # as_released: x_K is the last clean point if only x_K is misclassified
    config.methods.faal = ConfigDict()
    config.methods.faal.base = "pgd_at"  # pgd_at, trades: the loss whose classes are weighted
    config.methods.faal.radius = 0.5  # of the class distribution from the uniform one, in nats
    config.methods.faal.beta = 6.0  # weight of the KL, with base trades
    config.methods.faal.count_factor = True  # margins times the batch's images of a class
    # Wrappers
    config.methods.igdm = ConfigDict()
    config.methods.igdm.alpha = 10.0  # weight of the term
    config.methods.igdm.ramp_epochs = 0  # over which the weight rises; 0: the phase's length
    config.methods.igdm.minus_bn = "train"  # train, batch_frozen: BatchNorm of the x - delta pass
    config.methods.igdm.clip_minus = False  # cut x - delta to [0, 1]
    config.methods.fair_ard = ConfigDict()
    config.methods.fair_ard.exponent = 2.0  # how strongly hard classes count
    config.methods.fair_ard.lower = 5 / 6  # bounds of the class weights
    config.methods.fair_ard.upper = 5 / 2
    config.methods.fair_ard.variant = "as_described"  # counts over a class's images; as_released: over N / C
    config.methods.cfa = ConfigDict()  # around pgd_at, trades and fat
    config.methods.cfa.margins = True  # whether radii differ by class
    config.methods.cfa.margin_base = 0.5  # l1 of the radii (l1 + t_c) eps; 0.3 with trades, 0.7 with fat
    config.methods.cfa.regularization = True  # whether the weight of the regularisation differs by class (trades)
    config.methods.cfa.regularization_base = 0.5  # l2 of (l2 + t_c) beta
    config.methods.cfa.normalized = True  # divides each image's loss by 1 + beta_c (trades)
    config.methods.cfa.plain_epochs = 10  # first epochs at eps and beta
    config.methods.cfa.kept = 0.85  # of the averaged weights at an epoch that is taken in; 0: no averaging
    config.methods.cfa.threshold = 0.2  # robust validation accuracy that every class of such an epoch has
    config.methods.cfa.average_after = 49  # epochs before any is taken in
    config.methods.weak_class_reweight = ConfigDict()
    config.methods.weak_class_reweight.kappa = 1.0  # added to the weakest class's weight of 1; 0: nothing
    config.methods.weak_class_reweight.kept = 0.7  # of the averaged class accuracies at an epoch
    config.methods.weak_class_reweight.plain_fraction = 0.1  # of the phase: first epochs with equal weights

    config.eval = ConfigDict()
    config.eval.protocol = "quick"  # see ltrobust/evaluation/protocols.py
    config.eval.checkpoint = "student"  # --mode=evaluate: student, teacher, or a path to a workdir or a phase's folder
    config.eval.batch_size = 512  # images per compiled call
    config.eval.limit = 0  # test images per class, 0 for all
    config.eval.seed = 0  # of the attacks' random draws
    config.eval.keep_images = False  # whether adversarial images are kept beside the verdicts

    config.checkpoint = ConfigDict()
    config.checkpoint.minutes = 10.0  # between checkpoints; the end of a phase is always saved
    config.checkpoint.keep = 2  # newest checkpoints kept per phase; with 1 a damaged one cannot be replaced
    config.checkpoint.dir = ""  # any folder that etils.epath reaches, such as gs://BUCKET/RUN; "": in the workdir
    return config


def _outside_teacher() -> Any:
    """Where a teacher comes from, if from elsewhere."""
    entry: Any = ConfigDict()
    entry.path = ""  # a workdir (its student), a phase's folder of checkpoints, or a PyTorch file, or FILE::NAME
    entry.weights = "last"  # last, selected, averaged: which of a checkpoint's
    entry.architecture = ""  # of a PyTorch file, as model.name
    entry.activation = "relu"  # of a PyTorch file: relu, silu
    entry.mean = ()  # of a PyTorch file's input normalisation, for each channel; (): none, or the file's own
    entry.std = ()
    return entry


def _phase() -> Any:
    """Keys that teacher and student share, with the values that they share."""
    phase: Any = ConfigDict()
    phase.method = ""  # pgd_at, at_bsl, reat, or one of those with settings in config.methods
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
    phase.epochs = 0
    phase.steps = 0  # updates; if above 0 it replaces epochs
    phase.batch_size = 128  # over all devices
    phase.remainder = ""  # drop: last partial batch of an epoch; carry: into the next epoch
    phase.optimizer = ConfigDict()
    phase.optimizer.name = "sgd"  # any optax optimiser
    phase.optimizer.momentum = 0.9  # sgd only
    phase.optimizer.nesterov = False  # sgd only
    phase.optimizer.options = ConfigDict()  # further keyword arguments of the optax optimiser
    phase.optimizer.weight_decay = 5e-4  # coupled L2 on all parameters
    phase.optimizer.learning_rate = 0.1
    phase.optimizer.schedule = "drops"  # drops, cosine, constant
    phase.optimizer.drops = ()  # fractions of the epochs after which the rate is multiplied by drop_factor
    phase.optimizer.drop_factor = 0.1
    phase.optimizer.warmup_epochs = 0  # linear from 0
    phase.ema_decay = 0.0  # per step, of averaged weights; 0 for none
    phase.augmentation = ConfigDict()
    phase.augmentation.policy = (
        "base"  # none, base (crop and flip), randaugment, autoaugment (both before crop and flip)
    )
    phase.augmentation.crop_padding = 4  # pixels
    phase.augmentation.flip = True  # horizontal, with probability 1/2
    phase.attack = ConfigDict()
    phase.attack.steps = 10
    phase.attack.step_size = 2.0  # in 1/255
    phase.attack.start = "gauss"  # none, gauss, uniform, uniform_raw, one_sided
    phase.attack.bn = "eval"  # eval, batch_frozen: BatchNorm in the attack's passes
    phase.attack.radius = -1.0  # in 1/255; below 0: the threat's, 0: standard training
    phase.validate_every = 1  # epochs
    phase.selection_floor = 10  # validation images that every class needs for a selection of weights by validation
    return phase
