"""Faults of the command line and of configurations: met before anything is compiled or written."""

import contextlib
import io
import resource
import socket
import sys

import jax
import pytest
from injection import ALONE, TINY, Place, Reported, Texts, fault, last_words, raised

from ltrobust import methods
from ltrobust.commands import moved, sweep
from ltrobust.runtime import processes
from ltrobust.training import devices


def override(title: str, *settings: str, value: Texts, remedy: Texts, allowed: Texts = "") -> None:
    """A row for values on the command line that are refused before a workdir is made."""
    how = ", ".join(f"`--config.{setting}`" for setting in settings)

    @fault(title, how, value=value, allowed=allowed, remedy=remedy)
    def inject(place: Place) -> Reported:
        return place.refused(*TINY, *(f"--config.{setting}" for setting in settings))

    inject.__module__ = __name__


override("unknown key", "student.epoch=3", value="student.epoch", allowed="configs/default.py", remedy="student.epochs")
override(
    "type error in an override",
    "student.epochs=three",
    value=("student.epochs=three", "'three'"),
    allowed="int()",
    remedy="",
)
override(
    "unknown data set",
    "data.name=cifar11",
    value="'cifar11'",
    allowed=("tiny_imagenet", "folder"),
    remedy="did you mean cifar10",
)
override(
    "unknown model",
    "model.name=resnet19",
    value=("teacher", "'resnet19'"),
    allowed=("small_resnet", "wrn_D_W"),
    remedy="did you mean resnet18",
)
override(
    "network that cannot be imported",
    "model.name=nowhere:Net",
    value=("teacher", "'nowhere:Net'"),
    allowed="package.module:CLASS",
    remedy="that Python finds",
)
override(
    "unknown method",
    "student.method=at-bsl",
    value=("student", "'at-bsl'"),
    allowed=("pgd_at", "self_distillation"),
    remedy="did you mean at_bsl",
)
override(
    "unknown wrapper", "student.wrappers=('freeze',)", value=("student", "'freeze'"), allowed=("awp", "cfa"), remedy=""
)
override(
    "unknown protocol",
    "eval.protocol=autoattack",
    value="'autoattack'",
    allowed=("quick", "legacy_taet/b1"),
    remedy="did you mean standard",
)
override(
    "unknown attack start",
    "student.attack.start=middle",
    value=("student", "'middle'"),
    allowed=("uniform", "gauss"),
    remedy="",
)
override(
    "unknown optimiser",
    "student.optimizer.name=adamm",
    value=("student", "'adamm'"),
    allowed=("optax", "sgd", "adamw"),
    remedy="did you mean adam",
)
override(
    "teacher that needs a teacher",
    "teacher.method=self_distillation",
    value=("teacher.method", "'self_distillation'"),
    remedy="pgd_at",
)
override(
    "external teacher that is not there",
    "student.method=ard",
    "teachers.teacher.path=nowhere",
    value=("student.initialize", "'teacher'", "teachers.teacher.path"),
    remedy=("'scratch'", "path empty"),
)
override(
    "method without its second teacher",
    "student.method=mtard",
    value=("student.method", "mtard"),
    remedy="teachers.clean_teacher.path",
)
override(
    "batch in parts for a loss of the whole batch",
    "student.method=reat",
    "student.accumulate=2",
    value=("student.accumulate", "2", "reat"),
    allowed="mean over examples",
    remedy="give 1",
)
override("wrapper named twice", "student.wrappers=('awp','awp')", value=("student", "pgd_at+awp"), remedy="once")
override(
    "wrapper that cannot be combined",
    "student.method=at_bsl",
    "student.wrappers=('robust_lt','fair_ard')",
    value=("student", "fair_ard", "at_bsl+robust_lt"),
    allowed="mean over examples",
    remedy=("ard", "mtard"),
)
override(
    "wrappers in an order that does not fit",
    "student.method=trades",
    "student.wrappers=('awp','cfa')",
    value=("student", "cfa", "trades+awp"),
    allowed="perturbs weights",
    remedy="name cfa before awp",
)
override(
    "unknown variant",
    "student.method=trades",
    "methods.trades.variant=paper",
    value=("student", "trades.variant", "'paper'"),
    allowed=("as_described", "as_released"),
    remedy="",
)
override(
    "imbalance ratio that leaves a class empty",
    "data.imbalance_ratio=1000",
    value=("1000.0", "class 6"),
    allowed="at most 99",
    remedy="lower the ratio",
)
override(
    "order of the classes that leaves some out",
    "data.class_order=3,1,2",
    value=("data.class_order", "'3,1,2'"),
    allowed="each of 0 to 9 once",
    remedy="give '', 'reversed', 'random:SEED'",
)
override(
    "order of the classes with too large a seed",
    "data.class_order=random:4294967296",
    value=("data.class_order", "'random:4294967296'"),
    allowed="seed from 0 to 4294967295",
    remedy="give '', 'reversed', 'random:SEED'",
)
override(
    "validation part asked for and empty",
    "data.validation_cap=0.001",
    value=("data.validation_fraction", "data.validation_cap 0.001"),
    remedy=("raise the cap", "fraction to 0"),
)
override(
    "batch larger than the training part",
    "student.batch_size=100000",
    value=("student", "100000"),
    allowed=("458 images", "[1, 458]"),
    remedy="choose a size",
)
override("seed below 0", "seed=-1", value="seed is -1", allowed="at least 0", remedy="")
override(
    "learning rate that is not positive",
    "student.optimizer.learning_rate=0.0",
    value=("student", "learning rate is 0.0"),
    allowed="positive",
    remedy="",
)
override(
    "optimiser that needs more than gradients",
    "student.optimizer.name=lbfgs",
    value=("student", "lbfgs"),
    allowed="nothing but gradients and a schedule",
    remedy=("sgd", "adam"),
)
override(
    "network to be evaluated that no run has",
    "eval.networks=('student',)",
    value="'student'",
    allowed=("teacher/last", "student/averaged"),
    remedy="did you mean student/last",
)
override(
    "further evaluation that would change training",
    "eval.also=({'student.epochs': 3},)",
    value=("eval.also", "student.epochs"),
    allowed="keys of eval and threat",
    remedy="give a dict",
)
override("eval.limit below 0", "eval.limit=-1", value="eval.limit is -1", allowed="at least 0", remedy="")
override(
    "radius at which a protocol does not exist",
    "eval.protocol=legacy_at_bsl",
    value=("'legacy_at_bsl'", "linf 32/255"),
    allowed="linf 8/255",
    remedy=("give that radius", "standard"),
)


@fault(
    "batch not divisible by the devices",
    "`--config.student.batch_size=62` on 4 devices",
    value=("student.batch_size", "62"),
    allowed="4 devices",
    remedy="multiple of 4",
)
def batch_not_divisible(place: Place) -> Reported:
    mesh = devices.make_mesh(jax.devices())
    place.patch.setattr(devices, "make_mesh", lambda: mesh)
    return place.refused(*TINY, "--config.student.batch_size=62")


@fault(
    "unknown number of CPU devices",
    "`--cpu_devices=two`",
    value=("--cpu_devices", "'two'"),
    allowed="at least 1",
    remedy="auto",
)
def unknown_cpu_devices(place: Place) -> Reported:
    return place.refused(*TINY, "--cpu_devices=two")


@fault(
    "option that the compiler does not know",
    "a configuration file with `config.compiler.xla_tpu_no_such_option = True`",
    value=("xla_tpu_no_such_option", "cpu"),
    remedy="Leave the option out",
)
def unknown_compiler_option(place: Place) -> Reported:
    file = place.folder / "mine.py"
    file.write_text(
        "from configs import digits\n\n\ndef get_config():\n    config = digits.get_config()\n"
        "    config.compiler.xla_tpu_no_such_option = True\n    return config\n"
    )
    return place.refused(f"--config={file}", *TINY[1:])


@fault(
    "group of keys given a value",
    "`--config.student.optimizer=3`",
    value=("student.optimizer", "3"),
    remedy="student.optimizer.name",
)
def group(place: Place) -> Reported:
    return place.refused("--config=configs/digits.py", "--config.student.optimizer=3")


@fault("word that is no flag", "`main.py ... surplus`", value="surplus", remedy="--config.key=value")
def surplus(place: Place) -> Reported:
    return place.refused(*TINY, "surplus")


@fault(
    "unknown mode", "`--mode=test`", value="--mode=test", allowed=("train", "evaluate", "diagnose", "report"), remedy=""
)
def unknown_mode(place: Place) -> Reported:
    return place.refused(*TINY, "--mode=test")


def misused(place: Place, *words: str) -> Reported:
    """A wrong call of a verb."""
    status, text = place.main(*words)
    assert status == 2, (status, text)
    assert not any(place.folder.iterdir())
    return Reported("exit status 2, nothing is written", last_words(text))


@fault("unknown verb", "`ltrobust trian`", value="'trian'", allowed=("evaluate", "sweep"), remedy="did you mean train")
def unknown_verb(place: Place) -> Reported:
    return misused(place, "trian")


@fault("unknown flag of a verb", "`main.py compare a b --jsn=x`", value="--jsn=x", remedy="compare --help")
def unknown_flag(place: Place) -> Reported:
    return misused(place, "compare", "a", "b", "--jsn=x")


@fault(
    "command by its old name",
    "`python -m ltrobust.compare a b`",
    value="ltrobust.compare",
    remedy="python -m ltrobust compare a b",
)
def old_name(place: Place) -> Reported:
    printed = io.StringIO()
    with contextlib.redirect_stderr(printed), pytest.raises(SystemExit) as end:
        moved.check(["python", "-m", "ltrobust.compare", "a", "b"], ["-m", "a", "b"])
    assert end.value.code == 2
    return Reported("exit status 2", printed.getvalue().removeprefix("ltrobust: "))


@fault("sweep that is not there", "`ltrobust sweep sweep.py`", value="sweep.py", allowed="CONFIG", remedy="Python file")
def no_sweep(place: Place) -> Reported:
    place.patch.chdir(place.folder)
    return place.raised(ValueError, lambda: sweep.main(["sweep.py", "--out=runs"], "ltrobust sweep"))


def swept(place: Place, variants: str, more: str = "", *words: str) -> Reported:
    """What is said of a sweep with these variants."""
    text = f"CONFIG = 'configs/digits.py'\nVARIANTS = {variants}\nAXES = {{'seed': (0, 1)}}\n{more}\n"
    (place.folder / "sweep.py").write_text(text)
    place.patch.chdir(place.folder)
    return place.raised(ValueError, lambda: sweep.main(["sweep.py", "--out=runs", *words], "ltrobust sweep"))


@fault(
    "sweep with a key that does not exist",
    "`VARIANTS = {'a': {'student.epoch': 3}}`",
    value=("sweep.py", "a-seed0", "student.epoch"),
    allowed="configs/default.py",
    remedy="did you mean student.epochs",
)
def sweep_key(place: Place) -> Reported:
    return swept(place, "{'a': {'student.epoch': 3}}")


@fault(
    "sweep whose variant would be written outside of its folder",
    "`VARIANTS = {'../a': {}}`",
    value=("sweep.py", "'../a'"),
    allowed="without slashes",
    remedy="a name is",
)
def sweep_name(place: Place) -> Reported:
    return swept(place, "{'../a': {}}")


@fault(
    "sweep whose primary comparison has no order",
    "`PRIMARY = {'a'}`",
    value=("sweep.py", "PRIMARY {'a'}"),
    allowed="a, b",
    remedy="give a tuple of two different variants",
)
def sweep_primary(place: Place) -> Reported:
    return swept(place, "{'a': {}, 'b': {}}", "PRIMARY = {'a'}")


@fault("part of a sweep not named", "`--table --only=,`", value="--only=,", allowed="a, b", remedy="variants:")
def sweep_only(place: Place) -> Reported:
    return swept(place, "{'a': {}, 'b': {}}", "", "--table", "--only=,")


@fault(
    "sweep with an option of Slurm that does not exist",
    "`SLURM = {'time': 60, 'partion': 'gpu'}`",
    value=("sweep.py", "'partion'"),
    allowed=("gpus_per_node", "sbatch"),
    remedy="did you mean partition",
)
def sweep_slurm(place: Place) -> Reported:
    return swept(place, "{'a': {}}", "SLURM = {'time': 60, 'partion': 'gpu'}")


@fault(
    "unknown launcher of a sweep",
    "`--launcher=pbs`",
    value="--launcher=pbs",
    allowed=("local", "slurm"),
    remedy="leave it out",
)
def sweep_launcher(place: Place) -> Reported:
    return swept(place, "{'a': {}}", "", "--launcher=pbs")


@fault(
    "launcher without its package",
    "`--launcher=local` where `submitit` is not installed",
    value="submitit is not installed",
    remedy="pip install -c constraints.txt -e '.[slurm]'",
)
def sweep_submitit(place: Place) -> Reported:
    place.patch.setitem(sys.modules, "submitit", None)
    return swept(place, "{'a': {}}", "", "--launcher=local")


@fault(
    "Slurm without its commands",
    "`--launcher=slurm` where there is no `sbatch`",
    value="--launcher=slurm",
    allowed=("sbatch", "srun"),
    remedy="give --launcher=local",
)
def sweep_sbatch(place: Place) -> Reported:
    place.patch.setenv("PATH", str(place.folder))
    return swept(place, "{'a': {}}", "SLURM = {'time': 60}", "--launcher=slurm")


@fault(
    "configuration file missing",
    "`--config=configs/nothing.py`",
    value="'configs/nothing.py'",
    allowed=("digits", "published"),
    remedy=("configs/NAME.py", "path of your file"),
)
def config_missing(place: Place) -> Reported:
    return place.refused("--config=configs/nothing.py")


@fault(
    "file of one's own methods missing",
    "`--code=methods.py`",
    value="'methods.py'",
    allowed="FILE.py",
    remedy="name of a module",
)
def code_missing(place: Place) -> Reported:
    return place.refused("--code=methods.py")


@fault("file of one's own methods not named", "`--code=`", value="--code is empty", allowed="FILE.py", remedy="give")
def code_empty(place: Place) -> Reported:
    return place.refused("--code=")


@fault(
    "own method whose setting has no default",
    "`def my_at(inner, *, gamma)` in `--code=my_at.py`",
    value=("gamma", "my_at"),
    remedy="give it one",
)
def code_broken(place: Place) -> Reported:
    file = place.folder / "my_at.py"
    file.write_text("from ltrobust import methods\n\n\n@methods.register\ndef my_at(inner, *, gamma): ...\n")
    place.patch.setattr(sys, "dont_write_bytecode", True)
    place.patch.setattr(sys, "path", list(sys.path))
    return place.refused(f"--code={file}")


@fault(
    "own network with dropout",
    "`nn.Dropout` in a network of `--code=my_net.py`",
    value=("student", "Drops"),
    allowed="no key",
    remedy="Leave them out",
)
def dropout(place: Place) -> Reported:
    file = place.folder / "my_net.py"
    file.write_text(
        "import flax.linen as nn\n\n\nclass Drops(nn.Module):\n    num_classes: int\n\n    @nn.compact\n"
        "    def __call__(self, images, train):\n        x = images.reshape(len(images), -1)\n"
        "        return nn.Dense(self.num_classes)(nn.Dropout(0.5, deterministic=not train)(x))\n"
    )
    place.patch.setattr(sys, "dont_write_bytecode", True)
    place.patch.setattr(sys, "path", list(sys.path))
    return place.refused(*ALONE, f"--code={file}", "--config.model.name=my_net:Drops")


@fault(
    "own method with a metric of the step's name",
    "a student's `Outcome(..., {'loss': value})` in `--code=my_at.py`",
    value=("student", "my_at", "metric", "'loss'"),
    allowed="examples, loss, robust_correct",
    remedy="give it another name",
)
def metric_of_every_method(place: Place) -> Reported:
    file = place.folder / "my_at.py"
    file.write_text(
        "import dataclasses\nfrom ltrobust import methods\n\n\n@methods.register\ndef my_at(inner):\n"
        "    base = methods.REGISTRY['pgd_at'](inner)\n\n    def loss(*given):\n"
        "        value, outcome = base.loss(*given)\n"
        "        return value, dataclasses.replace(outcome, metrics={'loss': value})\n\n"
        "    return dataclasses.replace(base, loss=loss)\n"
    )
    place.patch.setattr(sys, "dont_write_bytecode", True)
    place.patch.setattr(sys, "path", list(sys.path))
    place.patch.setattr(methods, "REGISTRY", dict(methods.REGISTRY))
    return place.refused(*TINY, f"--code={file}", "--config.student.method=my_at")


@fault(
    "misspelt configuration",
    "`--config=foldr.py`",
    value="'foldr.py'",
    allowed=("digits", "published"),
    remedy="did you mean folder",
)
def config_misnamed(place: Place) -> Reported:
    return place.refused("--config=foldr.py")


@fault(
    "misspelt recipe",
    "`--config=configs/published.py:robl_n`",
    value=("configs/published.py:robl_n", "'robl_n'"),
    allowed=("trades", "robust_lt_robal"),
    remedy="did you mean robal_n",
)
def recipe_misspelt(place: Place) -> Reported:
    return place.refused("--config=configs/published.py:robl_n")


@fault(
    "recipe of a file that has none",
    "`--config=configs/digits.py:small`",
    value="configs/digits.py:small",
    allowed="no recipes",
    remedy="give configs/digits.py",
)
def no_recipes(place: Place) -> Reported:
    return place.refused("--config=configs/digits.py:small")


@fault(
    "model named in place of its group of keys",
    "`--config.model=small_resnet`",
    value=("model", "small_resnet"),
    remedy="model.name",
)
def model_as_group(place: Place) -> Reported:
    return place.refused("--config=configs/digits.py", "--config.model=small_resnet")


@fault(
    "configuration that is a dict",
    "`get_config` returns `{'seed': 0}`",
    value=("DIR/dict.py", "a dict"),
    allowed="ConfigDict",
    remedy="configs.default.get_config()",
)
def config_dict(place: Place) -> Reported:
    (place.folder / "dict.py").write_text("def get_config():\n    return {'seed': 0}\n")
    return place.refused(f"--config={place.folder / 'dict.py'}")


@fault(
    "NumPy number in a configuration",
    "`config.threat.radius = np.float32(8)`",
    value=("DIR/mine.py", "'radius'", "numpy.float32"),
    allowed="plain number",
    remedy=("float(x)", "int(x)"),
)
def config_numpy(place: Place) -> Reported:
    lines = ("import numpy as np", "from configs import default", "", "def get_config():")
    lines += ("    config = default.get_config()", "    config.threat.radius = np.float32(8)", "    return config", "")
    (place.folder / "mine.py").write_text("\n".join(lines))
    return place.refused(f"--config={place.folder / 'mine.py'}")


@fault(
    "misspelt key in a configuration file",
    "`config.threat.raduis = 8.0`",
    value=("DIR/mine.py", "threat.raduis"),
    remedy="threat.radius",
)
def config_misspelt(place: Place) -> Reported:
    lines = ("from configs import default", "", "def get_config():", "    config = default.get_config()")
    (place.folder / "mine.py").write_text(
        "\n".join([*lines, "    config.threat.raduis = 8.0", "    return config", ""])
    )
    return place.refused(f"--config={place.folder / 'mine.py'}")


@fault(
    "configuration file that is not a program",
    "`--config=FILE` with the text `config = (`",
    value=("DIR/broken.py", "SyntaxError", "line 1"),
    remedy="",
)
def config_broken(place: Place) -> Reported:
    (place.folder / "broken.py").write_text("config = (")
    return place.refused(f"--config={place.folder / 'broken.py'}")


@fault(
    "configuration that raises",
    "`--config=FILE` whose `get_config` divides by 0",
    value=("DIR/raises.py", "ZeroDivisionError"),
    remedy="",
)
def config_raises(place: Place) -> Reported:
    (place.folder / "raises.py").write_text("def get_config():\n    return 1 / 0\n")
    return place.refused(f"--config={place.folder / 'raises.py'}")


@fault(
    "read-only workdir",
    "the workdir lies under a file, and is not a folder",
    value=("workdir DIR/file/run", "Not a directory"),
    remedy="--workdir=DIR",
)
def workdir_under_a_file(place: Place) -> Reported:
    (place.folder / "file").write_text("")
    return place.refused(*ALONE, workdir=place.folder / "file" / "run")


@fault(
    "checkpoint that does not exist",
    "`--mode=evaluate --config.eval.checkpoint=DIR/nowhere`",
    value=("eval.checkpoint", "'DIR/nowhere'"),
    allowed=("student", "teacher", "a workdir"),
    remedy="--workdir=DIR",
)
def checkpoint_missing(place: Place) -> Reported:
    return place.refused(*TINY, "--mode=evaluate", f"--config.eval.checkpoint={place.folder / 'nowhere'}")


@fault(
    "nothing trained yet",
    "`--mode=evaluate` in an empty workdir",
    value=("eval.checkpoint", "DIR/run/checkpoints/student"),
    allowed=("teacher", "a workdir", "folder of checkpoints"),
    remedy="--workdir=DIR",
)
def nothing_trained(place: Place) -> Reported:
    return place.refused(*TINY, "--mode=evaluate")


@fault(
    "coordinator's port in use",
    "another program listens on the port of `--coordinator`",
    value=("127.0.0.1:PORT", "process 0", "Address already in use"),
    remedy="another port",
)
def port_in_use(place: Place) -> Reported:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        reported = raised(ValueError, lambda: processes.start(f"127.0.0.1:{port}", 2, 0))
    return Reported(reported.happens, reported.message.replace(str(port), "PORT"))


@fault(
    "platform without a device",
    "`JAX_PLATFORMS=cuda` on a machine without a GPU",
    value="JAX_PLATFORMS=cuda",
    allowed="devices that are there",
    remedy=("Unset JAX_PLATFORMS", "jax[cuda13]"),
)
def no_device(place: Place) -> Reported:
    def missing():
        raise AssertionError  # as JAX raises without the library

    place.patch.setattr(jax, "devices", missing)
    before = jax.config.jax_platforms
    jax.config.update("jax_platforms", "cuda")
    try:
        return raised(ValueError, processes.check_devices)
    finally:
        jax.config.update("jax_platforms", before)


@fault("few file handles", "`ulimit -n 24`", value="24 files", allowed="at least 64", remedy="ulimit -n 4096")
def few_files(place: Place) -> Reported:
    place.patch.setattr(resource, "getrlimit", lambda kind: (24, 24))
    return place.refused(*TINY)


@fault(
    "Weights & Biases without its package",
    "`--config.log.wandb=robust` where `wandb` is not installed",
    value="log.wandb is 'robust'",
    remedy="pip install -e '.[wandb]'",
)
def no_wandb(place: Place) -> Reported:
    place.patch.setitem(sys.modules, "wandb", None)
    return place.refused(*TINY, "--config.log.wandb=robust")
