"""Evaluates a PyTorch checkpoint of a ResNet-18, PreActResNet-18 or wide ResNet on CIFAR.

python examples/evaluate_pytorch.py --weights=FILE --model=resnet18 --data=cifar10 --data_dir=DIR --store=DIR

The weights must be named as in the code they come from (see ltrobust/models/torch_weights.py). Names do not say whether
that code normalised its input: --mean and --std put it back. The clean accuracy tells; compare it before the attacks.
"""

import functools
import sys
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags, logging

from ltrobust import models
from ltrobust.data import sources
from ltrobust.data.run_data import first_of_each_class
from ltrobust.evaluator import evaluate
from ltrobust.models import torch_weights
from ltrobust.threat import Threat

_WEIGHTS = flags.DEFINE_string("weights", None, ".safetensors, .pt, .pth, .tar or .bin file.", required=True)
_MODEL = flags.DEFINE_string("model", "resnet18", "Network of the weights; also preact_resnet18, or wrn_34_10.")
_DATA = flags.DEFINE_enum("data", "cifar10", ["cifar10", "cifar100"], "Data set, whose test images are used.")
_DATA_DIR = flags.DEFINE_string("data_dir", "", "Folder of TFDS; empty: its own default.")
_PROTOCOL = flags.DEFINE_string("protocol", "standard", "Name of an evaluation protocol.")
_RADIUS = flags.DEFINE_float("radius", 8, "L-infinity radius in 1/255.")
_LIMIT = flags.DEFINE_integer("limit", 0, "First so many test images of every class; 0: all.", lower_bound=0)
_STORE = flags.DEFINE_string("store", None, "Folder for verdicts; the same command goes on from what is there.")
_BATCH_SIZE = flags.DEFINE_integer("batch_size", 128, "Images per compiled call.", lower_bound=1)
_MEAN = flags.DEFINE_list("mean", ["0"], "Subtracted from pixels in [0,1]; one number or one per channel.")
_STD = flags.DEFINE_list("std", ["1"], "What pixels are divided by after that; one number or one per channel.")


def main(arguments: list[str]) -> None:
    if len(arguments) > 1:
        raise app.UsageError(f"not understood: {' '.join(arguments[1:])}; settings are given as --name=value.")
    logging.set_verbosity(logging.WARNING)
    try:
        run()
    except (ValueError, OSError, FloatingPointError) as error:
        sys.exit(f"\nltrobust: {error}")


def run() -> None:
    """Prints the clean accuracy, then the protocol's table."""
    test = sources.load(_DATA.value, "test", data_dir=_DATA_DIR.value)
    rows = first_of_each_class(test.labels, _LIMIT.value)
    images, labels = test.images[rows], test.labels[rows]
    module = models.create(_MODEL.value, num_classes=test.num_classes)
    weights = torch_weights.from_torch(torch_weights.read(_WEIGHTS.value), _MODEL.value, num_classes=test.num_classes)
    logits = functools.partial(normalised_logits, module, weights)
    predict = jax.jit(lambda batch: jnp.argmax(logits(batch), axis=-1))
    batches = np.array_split(images.astype(np.float32) / 255, -(-len(images) // _BATCH_SIZE.value))
    right = np.concatenate([np.asarray(predict(batch)) for batch in batches]) == labels
    print(
        f"clean accuracy {100 * right.mean():.2f} % on {len(labels)} images. If that is not what was published, the "
        "weights\nare not used as they were trained: names cannot reveal an input normalisation (--mean, --std) or "
        "another shortcut.",
        flush=True,
    )
    threat, settings = Threat("linf", _RADIUS.value), {"protocol": _PROTOCOL.value, "store": _STORE.value}
    found = evaluate(logits, images, labels, threat=threat, batch_size=_BATCH_SIZE.value, ids=rows, **settings)
    print(found.summary())


def normalised_logits(module: Any, weights: tuple[Any, Any], images: jax.Array) -> jax.Array:
    """Logits of images in [0,1], with the training code's normalisation as part of the attacked network."""
    mean, deviation = (np.array([float(number) for number in flag.value], np.float32) for flag in (_MEAN, _STD))
    return models.forward(module, *weights, (images - mean) / deviation, bn="eval")[0]


if __name__ == "__main__":
    app.run(main)
