"""Faults of the public entry `ltrobust.evaluate`, and of networks."""

import jax
import jax.numpy as jnp
import numpy as np
from fault_store import ROWS, SHORT
from injection import Place, Told, fault, raised
from linear import apply, fixture

import ltrobust
from ltrobust.evaluation import protocols, sanity, sanity_probes
from ltrobust.evaluation.drive import Driver, Subject
from ltrobust.evaluation.progress import Progress
from ltrobust.evaluation.sanity_runs import Runs
from ltrobust.evaluation.session import Session
from ltrobust.models import torch_weights


def logits_fn(images: jax.Array) -> jax.Array:
    return apply(jnp.asarray(fixture()[0]), images)


def call(function=logits_fn, **changes):
    """`ltrobust.evaluate` on 40 images, with something changed."""
    _, images, labels = fixture()
    given = {"images": images[ROWS], "labels": labels[ROWS], "protocol": "quick", "progress": False} | changes
    return ltrobust.evaluate(function, **given)


def refused(title: str, how: str, error: type[Exception] = ValueError, **changes) -> None:
    """A row for arguments that are refused."""

    @fault(title, how)
    def inject(place: Place) -> Told:
        return raised(error, lambda: call(**{key: make() for key, make in changes.items()}))

    inject.__module__ = __name__


def make_driver(batch_size: int, function=apply) -> Driver:
    return Driver(
        function,
        function,
        threat=ltrobust.Threat(),
        num_classes=10,
        batch_size=batch_size,
        seed=0,
        place=jax.device_put,
        devices=1,
    )


def clean(driver: Driver, rows: np.ndarray):
    weights, images, labels = fixture()
    return driver.clean(Subject(weights, images[rows], labels[rows], rows))


def images() -> np.ndarray:
    return fixture()[1][ROWS]


def with_nan() -> np.ndarray:
    changed = images().copy()
    changed[3, 0, 0, 0] = np.nan
    return changed


refused(
    "labels outside of the logits' classes",
    "labels up to 9, logits of 5 classes",
    function=lambda: lambda x: logits_fn(x)[:, :5],
)
refused("labels below 0", "a label -1", labels=lambda: np.full(len(ROWS), -1))
refused("labels of the wrong length", "39 labels of 40 images", labels=lambda: fixture()[2][ROWS][1:])
refused("labels as floats", "labels of type float32", labels=lambda: fixture()[2][ROWS].astype(np.float32))
refused("one-hot labels", "labels of shape [40, 10]", labels=lambda: np.eye(10, dtype=int)[fixture()[2][ROWS]])
refused("pixels from 0 to 255 as floats", "images times 255", images=lambda: images() * np.float32(255))
refused("images as float64", "images of type float64", images=lambda: images().astype(float))
refused("images as float64, from 0 to 255", "images times 255", images=lambda: 255 * images().astype(float))
refused("images with channels first", "[40, 3, 8, 8]", images=lambda: images().transpose(0, 3, 1, 2))
refused("normalised images", "images minus 0.5", images=lambda: images() - np.float32(0.5))
refused("images divided by 255 twice", "images over 255", images=lambda: images() / np.float32(255))
refused("a NumPy function", "`np.asarray` in it", function=lambda: lambda x: np.asarray(x).reshape(len(x), -1)[:, :10])
refused("a protocol of another name", "`protocol='autoattack'`", protocol=lambda: "autoattack")
refused("images without a channel axis", "images of shape [40, 8, 8]", images=lambda: images()[..., 0])
refused("NaN in the data", "one pixel is NaN", images=with_nan)
refused("no images", "arrays of length 0", images=lambda: images()[:0], labels=lambda: fixture()[2][:0])
refused("logits of one class", "a function to [B, 1]", function=lambda: lambda x: logits_fn(x)[:, :1])
refused("no logits", "a function to predictions [B]", function=lambda: lambda x: jnp.argmax(logits_fn(x), axis=1))
refused("ids of the wrong length", "39 ids of 40 images", ids=lambda: ROWS[1:])
refused("ids that occur twice", "all ids 0", ids=lambda: np.zeros(len(ROWS), int))
refused("batch size 0", "`batch_size=0`", batch_size=lambda: 0)
refused("NaN in the logits", "logits times NaN", FloatingPointError, function=lambda: lambda x: logits_fn(x) * jnp.nan)


@fault("several networks in a PyTorch file", "`model` and `model_ema` in one file")
def several_networks(place: Place) -> Told:
    arrays = {"conv1.weight": np.zeros((64, 3, 3, 3), np.float32)}
    content = {"model": arrays, "model_ema": arrays, "epoch": 3}
    return raised(ValueError, lambda: torch_weights.from_torch(content, "resnet18"))


@fault("NaN in the logits of attacked images only", "NaN where the first pixel is not that of the clean image")
def nan_under_attack(place: Place) -> Told:
    first = jnp.asarray(images()[:, 0, 0, 0])

    def function(points: jax.Array) -> jax.Array:
        known = jnp.any(points[:, 0, 0, 0, None] == first, axis=1) | (
            points[:, 0, 0, 0] == jnp.round(points[:, 0, 0, 0] * 255) / 255
        )
        return jnp.where(known[:, None], logits_fn(points), jnp.nan)

    place.patch.setitem(protocols.PROTOCOLS, "short", SHORT)
    return raised(FloatingPointError, lambda: call(function, protocol="short"))


@fault(
    "device out of memory in the clean pass", "batches of more than 64 images raise the runtime's RESOURCE_EXHAUSTED"
)
def out_of_memory(place: Place) -> Told:
    def narrow(variables, points):
        if len(points) > 64:
            raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 1 bytes.")
        return apply(variables, points)

    driver = make_driver(256, narrow)
    printed = []
    place.patch.setattr("builtins.print", lambda *words: printed.append(" ".join(words)))
    rows = np.arange(0, 1000, 3)
    found = clean(driver, rows)
    np.testing.assert_array_equal(found.predictions, fixture()[2][rows])
    return Told("the batch is halved until it fits; verdicts do not depend on it", "; ".join(printed))


@fault("device without memory for the smallest batch", "every batch raises the runtime's RESOURCE_EXHAUSTED")
def no_memory(place: Place) -> Told:
    def fail(*arguments):
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 1 bytes.")

    driver = make_driver(64, fail)
    return raised(MemoryError, lambda: clean(driver, ROWS))


@fault("dead network", "all logits 0, under PGD-20 and the checks of the sanity panel that look at the network alone")
def dead_network(place: Place) -> Told:
    weights, images, labels = fixture()
    driver, subject = make_driver(64), Subject(0 * weights, images[ROWS], labels[ROWS], ROWS)
    session = Session(driver, subject, driver.clean(subject), None, Progress("", len(ROWS)))
    session.run(protocols.PGD20)
    runs = Runs(session, SHORT)
    items = (*sanity_probes.items(runs), sanity.ties(runs), sanity.dead_classes(runs))
    failed = [item for item in items if item.status == "fail"]
    return Told(sanity.verdict(items), "; ".join(str(item).partition(";")[0] for item in failed))
