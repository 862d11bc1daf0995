"""Which part of self-distillation does what: CIFAR-10-LT at ratio 50, ResNet-18, full scale. Nobody has run it yet.

    ltrobust sweep configs/sweeps/ablation_cifar10.py --out=runs/ablation_cifar10

The training part has 13,287 images (rarest class 90, mean 1,329, most frequent 4,750). The student makes 10,300
updates, the default teacher 1,532; variants named `..._equal` give other teachers as many. Learning-rate drops are
fractions of the phase, so they keep their place when its length changes. Plan three seeds for A0 to A6.
"""

CONFIG = "configs/cifar10.py"
AXES = {"seed": (0,)}

SD = "methods.self_distillation."
AT_BSL = {f"{SD}alpha": 0.0, f"{SD}beta": 0.0}
EQUAL = {"teacher.steps": 1532}
POLICIES = ("randaugment", "autoaugment")
# Multiples of n_min: 1, 2, sqrt(ratio), mean / n_min, ratio.
COUNTS = (90, 180, 654, 1329, 4750)

# Question -> variant -> what it changes.
QUESTIONS = {
    "AT-BSL, the reference; no teacher is trained": {"a0": AT_BSL},
    "logit KL only": {"a1": {f"{SD}beta": 0.0}},
    "gradient matching only": {"a2": {f"{SD}alpha": 0.0}},
    "both": {"a3": {}},
    "Must the teacher be balanced, or does any teacher help?": {
        "a4_all": {"teacher.subset": "all"},
        "a4_all_equal": {"teacher.subset": "all"} | EQUAL,
        "a4_at_bsl": {"teacher.subset": "all", "teacher.method": "at_bsl"},
        "a4_at_bsl_equal": {"teacher.subset": "all", "teacher.method": "at_bsl"} | EQUAL,
    },
    "How large is the balanced subset?": {
        **{f"a6_{count}": {"teacher.balanced.count": count} for count in COUNTS},
        **{
            f"a6_{count}_equal": {"teacher.balanced.count": count, "teacher.validate_every": 10} | EQUAL
            for count in COUNTS
        },
    },
    "Does the teacher alone remove the bias?": {"a7": {f"{SD}label_loss": "ce"}},
    "What does the teacher see?": {"a8": {f"{SD}teacher_input": "clean"}},
    "What does the attack climb?": {
        f"a9_{objective}": {f"{SD}inner_objective": objective} for objective in ("bsl", "teacher_kl")
    },
    "Pre-training or distillation?": {
        "a10": {"student.initialize": "teacher"},
        "a10_at_bsl": {"student.initialize": "teacher"} | AT_BSL,
    },
    "How short may the teacher's training be?": {
        f"a11_{epochs}": {"teacher.epochs": epochs} for epochs in (15, 60, 100)
    },
    "weights of both terms": {
        **{
            f"a12_alpha{alpha:g}_beta{beta:g}": {f"{SD}alpha": alpha, f"{SD}beta": beta}
            for alpha in (0.3, 1.0, 3.0)
            for beta in (0.3, 1.0, 3.0)
            if (alpha, beta) != (1.0, 1.0)
        },
        **{f"a12_alpha0_beta{beta:g}": {f"{SD}alpha": 0.0, f"{SD}beta": beta} for beta in (30.0, 100.0)},
    },
    "temperature of the logit KL": {f"a13_{heat:g}": {f"{SD}temperature": heat} for heat in (2.0, 4.0)},
    "Does the teacher overfit to repeated images?": {"a14": {"teacher.balanced.redraw": True}},
    "augmentation of student, teacher, both": {
        f"a15_{phases}_{policy}": {f"{phase}.augmentation.policy": policy for phase in phases.split("_")}
        for policy in POLICIES
        for phases in ("student", "teacher", "student_teacher")
    },
    "imbalance": {f"a16_{ratio:g}": {"data.imbalance_ratio": ratio} for ratio in (10.0, 20.0, 100.0)},
    "another architecture": {"a17": {"model.name": "wrn_34_10"}},
    "negative controls": {
        "a18_natural_teacher": {"teacher.attack.radius": 0.0, "teacher.attack.steps": 0},
        "a18_shuffled_labels": {"teacher.shuffle_labels": True},
    },
    "AT-BSL with the updates of both phases": {"a19": {"student.method": "at_bsl", "student.steps": 11832}},
}
VARIANTS = {name: changes for variants in QUESTIONS.values() for name, changes in variants.items()}
