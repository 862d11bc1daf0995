"""Evaluates all weights of a checkpoint, on the available devices, and writes a result card.

    ltrobust evaluate --workdir=DIR [--config.eval.protocol=standard] [--config.KEY=VALUE ...]
    ltrobust evaluate --weights=FILE --workdir=DIR [--config=FILE] [--key=NAME] [--config.KEY=VALUE ...]
    ltrobust evaluate --torch=package.module:function [--weights=FILE] --workdir=DIR [--config=FILE] ...

Without --config the configuration is the one that the workdir's config.json records. --config.eval.checkpoint is
student, teacher, another workdir, or a folder of checkpoints.

--weights evaluates a file of weights instead, .safetensors or PyTorch's, as the network that config.model names, on the
configuration's data. Where the file holds several sets of weights, it names them, and --key chooses.

--torch evaluates a PyTorch module on the configuration's data. The function returns it, and may have arguments:
--torch='torchvision.models:resnet18(num_classes=10)'. A file of yours is --torch=FILE.py:function. --weights then fills
the module.
"""

from collections.abc import Sequence
from typing import Any

from ltrobust.commands.launch import launch
from ltrobust.commands.parser import UsageError, taken_all

FLAGS = {
    "torch": ("MODULE:FUNCTION", "evaluate the PyTorch module that this function returns"),
    "weights": ("FILE", "evaluate this file of weights, as the module of --torch or the network config.model"),
    "key": ("NAME", "which of several sets of weights in the file"),
}


def main(arguments: Sequence[str], program: str) -> None:
    """Evaluates and writes.

    Raises:
      UsageError: a mistake in the words.
    """
    given, words = taken_all(arguments, FLAGS)
    if given["key"] and not given["weights"]:
        raise UsageError(f"--key is {given['key']!r}, but no file is given; add --weights=FILE.")

    def work(*of_launch: Any, **settings: Any) -> None:
        from ltrobust import run as runs  # with JAX, which help does not need
        from ltrobust.commands import torch_module, weights_file

        if source := given.pop("torch"):
            torch_module.evaluate(*of_launch, source=source, **given, **settings)
        elif given["weights"]:
            weights_file.evaluate(*of_launch, **given, **settings)
        else:
            runs.evaluate(*of_launch, **settings)

    launch(words, program, __doc__, work, trains=False, more=FLAGS)
