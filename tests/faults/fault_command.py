"""Faults of the command line and of configurations: met before anything is compiled or written."""

import resource
import socket

import jax
from injection import ALONE, TINY, Place, Told, fault, raised

from ltrobust import processes


def override(title: str, *settings: str) -> None:
    """A row for values on the command line that are refused before a workdir is made."""
    how = ", ".join(f"`--config.{setting}`" for setting in settings)

    @fault(title, how)
    def inject(place: Place) -> Told:
        return place.refused(*TINY, *(f"--config.{setting}" for setting in settings))

    inject.__module__ = __name__


override("unknown key", "student.epoch=3")
override("type error in an override", "student.epochs=three")
override("unknown data set", "data.name=cifar11")
override("unknown model", "model.name=resnet19")
override("unknown method", "student.method=at-bsl")
override("unknown wrapper", "student.wrappers=('freeze',)")
override("unknown protocol", "eval.protocol=autoattack")
override("unknown attack start", "student.attack.start=middle")
override("unknown optimiser", "student.optimizer.name=adamm")
override("teacher that needs a teacher", "teacher.method=self_distillation")
override("teacher from elsewhere that is not there", "student.method=ard", "teachers.teacher.path=nowhere")
override("method without its second teacher", "student.method=mtard")
override("wrapper named twice", "student.wrappers=('awp','awp')")
override("wrapper that cannot be combined", "student.method=at_bsl", "student.wrappers=('robust_lt','fair_ard')")
override("unknown variant", "student.method=trades", "methods.trades.variant=paper")
override("imbalance ratio that leaves a class empty", "data.imbalance_ratio=1000")
override("validation part asked for and empty", "data.validation_cap=0.001")
override("batch larger than the training part", "student.batch_size=100000")
override("eval.limit below 0", "eval.limit=-1")
override("radius at which a protocol does not exist", "eval.protocol=legacy_at_bsl")


@fault("batch not divisible by the devices", "`--config.student.batch_size=62` on 4 devices")
def batch_not_divisible(place: Place) -> Told:
    place.patch.undo()
    return place.refused(*TINY, "--config.student.batch_size=62")


@fault("group of keys given a value", "`--config.student.optimizer=3`")
def group(place: Place) -> Told:
    return place.refused("--config=configs/digits.py", "--config.student.optimizer=3")


@fault("word that is no flag", "`main.py ... surplus`")
def surplus(place: Place) -> Told:
    return place.refused(*TINY, "surplus")


@fault("unknown mode", "`--mode=test`")
def unknown_mode(place: Place) -> Told:
    return place.refused(*TINY, "--mode=test")


@fault("configuration file missing", "`--config=configs/nothing.py`")
def config_missing(place: Place) -> Told:
    return place.refused("--config=configs/nothing.py")


@fault("misspelt configuration", "`--config=foldr.py`")
def config_misnamed(place: Place) -> Told:
    return place.refused("--config=foldr.py")


@fault("misspelt recipe", "`--config=configs/published.py:robl_n`")
def recipe_misspelt(place: Place) -> Told:
    return place.refused("--config=configs/published.py:robl_n")


@fault("recipe of a file that has none", "`--config=configs/digits.py:small`")
def no_recipes(place: Place) -> Told:
    return place.refused("--config=configs/digits.py:small")


@fault("model named in place of its group of keys", "`--config.model=small_resnet`")
def model_as_group(place: Place) -> Told:
    return place.refused("--config=configs/digits.py", "--config.model=small_resnet")


@fault("configuration that is a dict", "`get_config` returns `{'seed': 0}`")
def config_dict(place: Place) -> Told:
    (place.folder / "dict.py").write_text("def get_config():\n    return {'seed': 0}\n")
    return place.refused(f"--config={place.folder / 'dict.py'}")


@fault("NumPy number in a configuration", "`config.threat.radius = np.float32(8)`")
def config_numpy(place: Place) -> Told:
    lines = ("import numpy as np", "from configs import default", "", "def get_config():")
    lines += ("    config = default.get_config()", "    config.threat.radius = np.float32(8)", "    return config", "")
    (place.folder / "mine.py").write_text("\n".join(lines))
    return place.refused(f"--config={place.folder / 'mine.py'}")


@fault("misspelt key in a configuration file", "`config.threat.raduis = 8.0`")
def config_misspelt(place: Place) -> Told:
    lines = ("from configs import default", "", "def get_config():", "    config = default.get_config()")
    (place.folder / "mine.py").write_text(
        "\n".join([*lines, "    config.threat.raduis = 8.0", "    return config", ""])
    )
    return place.refused(f"--config={place.folder / 'mine.py'}")


@fault("configuration file that is no program", "`--config=FILE` with the text `config = (`")
def config_broken(place: Place) -> Told:
    (place.folder / "broken.py").write_text("config = (")
    return place.refused(f"--config={place.folder / 'broken.py'}")


@fault("configuration that raises", "`--config=FILE` whose `get_config` divides by 0")
def config_raises(place: Place) -> Told:
    (place.folder / "raises.py").write_text("def get_config():\n    return 1 / 0\n")
    return place.refused(f"--config={place.folder / 'raises.py'}")


@fault("read-only workdir", "the workdir lies under a file, and is no folder")
def workdir_under_a_file(place: Place) -> Told:
    (place.folder / "file").write_text("")
    return place.refused(*ALONE, workdir=place.folder / "file" / "run")


@fault("checkpoint that does not exist", "`--mode=evaluate --config.eval.checkpoint=DIR/nowhere`")
def checkpoint_missing(place: Place) -> Told:
    return place.refused(*TINY, "--mode=evaluate", f"--config.eval.checkpoint={place.folder / 'nowhere'}")


@fault("nothing trained yet", "`--mode=evaluate` in an empty workdir")
def nothing_trained(place: Place) -> Told:
    return place.refused(*TINY, "--mode=evaluate")


@fault("coordinator's port in use", "another program listens on the port of `--coordinator`")
def port_in_use(place: Place) -> Told:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        told = raised(ValueError, lambda: processes.start(f"127.0.0.1:{port}", 2, 0))
    return Told(told.happens, told.message.replace(str(port), "PORT"))


@fault("platform without a device", "`JAX_PLATFORMS=cuda` on a machine without a GPU")
def no_device(place: Place) -> Told:
    def missing():
        raise AssertionError  # as JAX raises without the library

    place.patch.setattr(jax, "devices", missing)
    before = jax.config.jax_platforms
    jax.config.update("jax_platforms", "cuda")
    try:
        return raised(ValueError, processes.check_devices)
    finally:
        jax.config.update("jax_platforms", before)


@fault("few file handles", "`ulimit -n 24`")
def few_files(place: Place) -> Told:
    place.patch.setattr(resource, "getrlimit", lambda kind: (24, 24))
    return place.refused(*TINY)
