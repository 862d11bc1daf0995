"""Faults of the public entry `ltrobust.evaluate`, and of networks."""

import jax
import jax.numpy as jnp
import numpy as np
from fault_store import ROWS, SHORT
from injection import Place, Reported, Texts, fault, raised
from linear import apply, fixture

import ltrobust
from ltrobust.evaluation import protocols
from ltrobust.evaluation.drive import Driver, Subject
from ltrobust.evaluation.progress import AttackProgress
from ltrobust.evaluation.session import Session
from ltrobust.sanity import panel, probes
from ltrobust.sanity.runs import Runs

NHWC = "[batch, height, width, channel]"


def logits_fn(images: jax.Array) -> jax.Array:
    return apply(jnp.asarray(fixture()[0]), images)


def call(function=logits_fn, **changes):
    """`ltrobust.evaluate` on 40 images, with something changed."""
    _, images, labels = fixture()
    given = {"images": images[ROWS], "labels": labels[ROWS], "protocol": "quick", "progress": False} | changes
    return ltrobust.evaluate(function, **given)


def refused(
    title: str,
    how: str,
    error: type[Exception] = ValueError,
    *,
    value: Texts,
    remedy: Texts,
    allowed: Texts = "",
    **changes,
) -> None:
    """A row for arguments that are refused."""

    @fault(title, how, value=value, allowed=allowed, remedy=remedy)
    def inject(place: Place) -> Reported:
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
    value="[0, 9]",
    allowed=("5 classes", "0 to 4"),
    remedy="Every label needs a logit",
)
refused(
    "labels below 0",
    "a label -1",
    labels=lambda: np.full(len(ROWS), -1),
    value="[-1, -1]",
    allowed=("10 classes", "0 to 9"),
    remedy="Every label needs a logit",
)
refused(
    "labels of the wrong length",
    "39 labels of 40 images",
    labels=lambda: fixture()[2][ROWS][1:],
    value="int64 [39]",
    allowed="integers [40]",
    remedy="one class for each image",
)
refused(
    "labels as floats",
    "labels of type float32",
    labels=lambda: fixture()[2][ROWS].astype(np.float32),
    value="float32 [40]",
    allowed="integers [40]",
    remedy="labels.astype(int)",
)
refused(
    "one-hot labels",
    "labels of shape [40, 10]",
    labels=lambda: np.eye(10, dtype=int)[fixture()[2][ROWS]],
    value="int64 [40, 10]",
    allowed="integers [40]",
    remedy="labels.argmax(axis=1)",
)
refused(
    "pixels from 0 to 255 as floats",
    "images times 255",
    images=lambda: images() * np.float32(255),
    value="[8.650837898254395, 227.3316192626953]",
    allowed="[0.0, 1.0]",
    remedy="by 255",
)
refused(
    "images as float64",
    "images of type float64",
    images=lambda: images().astype(float),
    value="float64 [40, 8, 8, 3]",
    allowed=("float32", NHWC),
    remedy="images.astype('float32')",
)
refused(
    "images as float64, from 0 to 255",
    "images times 255",
    images=lambda: 255 * images().astype(float),
    value="float64 [40, 8, 8, 3]",
    allowed=("float32", NHWC),
    remedy="images.astype('float32') / 255",
)
refused(
    "images with channels first",
    "[40, 3, 8, 8]",
    images=lambda: images().transpose(0, 3, 1, 2),
    value=("[40, 3, 8, 8]", "channels first"),
    allowed=NHWC,
    remedy=("images.transpose(0, 2, 3, 1)", "inside the network"),
)
refused(
    "normalised images",
    "images minus 0.5",
    images=lambda: images() - np.float32(0.5),
    value="[-0.4660751521587372, 0.39149653911590576]",
    allowed="[0.0, 1.0]",
    remedy="normalisation inside",
)
refused(
    "images divided by 255 twice",
    "images over 255",
    images=lambda: images() / np.float32(255),
    value="[0.000133, 0.0035]",
    allowed="[0,1]",
    remedy="divided by 255 twice",
)
refused(
    "a NumPy function",
    "`np.asarray` in it",
    function=lambda: lambda x: np.asarray(x).reshape(len(x), -1)[:, :10],
    value=("logits_fn", "TracerArrayConversionError"),
    allowed=("jax.numpy", "[B,H,W,C]", "[B,K]"),
    remedy="ltrobust.from_torch",
)
refused(
    "a protocol of another name",
    "`protocol='autoattack'`",
    protocol=lambda: "autoattack",
    value="'autoattack'",
    allowed=("quick", "legacy_taet/b1"),
    remedy="did you mean standard",
)
refused(
    "images without a channel axis",
    "images of shape [40, 8, 8]",
    images=lambda: images()[..., 0],
    value="[40, 8, 8]",
    allowed=NHWC,
    remedy="",
)
refused(
    "NaN in the data",
    "one pixel is NaN",
    images=with_nan,
    value="[nan, nan]",
    allowed="[0.0, 1.0]",
    remedy="Leave out what is not finite",
)
refused(
    "no images",
    "arrays of length 0",
    images=lambda: images()[:0],
    labels=lambda: fixture()[2][:0],
    value="0 images",
    allowed="at least 1",
    remedy="",
)
refused(
    "logits of one class",
    "a function to [B, 1]",
    function=lambda: lambda x: logits_fn(x)[:, :1],
    value="1 class(es)",
    allowed="at least 2",
    remedy="",
)
refused(
    "no logits",
    "a function to predictions [B]",
    function=lambda: lambda x: jnp.argmax(logits_fn(x), axis=1),
    value=("logits_fn", "[3]", "[3, 8, 8, 3]"),
    allowed="[batch, classes]",
    remedy="two logits",
)
refused(
    "ids of the wrong length",
    "39 ids of 40 images",
    ids=lambda: ROWS[1:],
    value="int64 [39]",
    allowed="integers [40]",
    remedy="one for each image",
)
refused(
    "ids that occur twice",
    "all ids 0",
    ids=lambda: np.zeros(len(ROWS), int),
    value="id 0 occurs twice",
    remedy="a unique id",
)
refused(
    "batch size 0", "`batch_size=0`", batch_size=lambda: 0, value="batch_size is 0", allowed="at least 1", remedy=""
)
refused(
    "NaN in the logits",
    "logits times NaN",
    FloatingPointError,
    function=lambda: lambda x: logits_fn(x) * jnp.nan,
    value="NaN logits",
    remedy=("weights", "input normalisation"),
)


@fault(
    "NaN in the logits of attacked images only",
    "NaN where the first pixel is not that of the clean image",
    value="NaN logits",
    remedy=("weights", "input normalisation"),
)
def nan_under_attack(place: Place) -> Reported:
    first = jnp.asarray(images()[:, 0, 0, 0])

    def function(points: jax.Array) -> jax.Array:
        known = jnp.any(points[:, 0, 0, 0, None] == first, axis=1) | (
            points[:, 0, 0, 0] == jnp.round(points[:, 0, 0, 0] * 255) / 255
        )
        return jnp.where(known[:, None], logits_fn(points), jnp.nan)

    place.patch.setitem(protocols.PROTOCOLS, "short", SHORT)
    return raised(FloatingPointError, lambda: call(function, protocol="short"))


@fault(
    "device out of memory in the clean pass",
    "batches of more than 64 images raise the runtime's RESOURCE_EXHAUSTED",
    value="out of memory",
    remedy=("128 images", "64 images"),
)
def out_of_memory(place: Place) -> Reported:
    def narrow(variables, points):
        if len(points) > 64:
            raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 1 bytes.")
        return apply(variables, points)

    driver = make_driver(256, narrow)
    printed = []
    place.patch.setattr("builtins.print", lambda *words: printed.append(" ".join(words)))
    rows = np.arange(0, 1000, 3)
    result = clean(driver, rows)
    np.testing.assert_array_equal(result.predictions, fixture()[2][rows])
    return Reported("the batch is halved until it fits; verdicts do not depend on it", "; ".join(printed))


@fault(
    "device without memory for the smallest batch",
    "every batch raises the runtime's RESOURCE_EXHAUSTED",
    value="64 images",
    remedy=("end other programs", "model.dtype=bfloat16", "larger device"),
)
def no_memory(place: Place) -> Reported:
    def fail(*arguments):
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 1 bytes.")

    driver = make_driver(64, fail)
    return raised(MemoryError, lambda: clean(driver, ROWS))


@fault(
    "dead network",
    "all logits 0, under PGD-20 and the checks of the sanity panel that look at the network alone",
    value=("P17", "cross-entropy 100.00 %", "P23", "100.00 % of 40 images", "P27", "9 classes never predicted"),
    remedy="",
)
def dead_network(place: Place) -> Reported:
    weights, images, labels = fixture()
    driver, subject = make_driver(64), Subject(0 * weights, images[ROWS], labels[ROWS], ROWS)
    session = Session(driver, subject, driver.clean(subject), None, AttackProgress("", len(ROWS)))
    session.run(protocols.PGD20)
    runs = Runs(session, SHORT)
    items = (*probes.items(runs), panel.ties(runs), panel.dead_classes(runs))
    failed = [item for item in items if item.status == "fail"]
    verdict = panel.verdict(items)
    assert verdict == "not trustworthy"
    return Reported(verdict, "; ".join(str(item).partition(";")[0] for item in failed))
