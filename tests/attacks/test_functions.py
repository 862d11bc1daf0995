"""`ltrobust.attacks`: one form, the protocols' attacks, exact balls, closed forms, and images that do not meet."""

import dataclasses
import functools
import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ltrobust as lt
from ltrobust.attacks import ball, inputs
from ltrobust.evaluation import protocols
from ltrobust.evaluation.drive import Driver, Subject

THREATS = {"linf": lt.Threat("linf", 8), "l2": lt.Threat("l2", 128)}
ATTACKS = [name for name in lt.attacks.__all__ if name != "draws"]
# One of each search besides PGD, of which all others are settings; the last two have no radius.
SEARCHES, FREE = ("apgd", "apgd_t", "fab", "square"), ("cw_l2", "deepfool")
# Short runs; the others keep their defaults.
SHORT = {
    "pgd": {"steps": 5},
    "mim": {"steps": 5},
    "cw": {"steps": 5},
    "lsa": {"steps": 5},
    "temperature_pgd": {"steps": 5},
    "apgd": {"steps": 12},
    "apgd_t": {"steps": 8, "targets": 3},
    "fab": {"steps": 8, "targets": 3},
    "square": {"queries": 40},
    "cw_l2": {"steps": 20},
    "deepfool": {"steps": 5},
}
# Function -> attack of a protocol, and settings that the function does not have by default.
SAME = {
    "fgsm": ("quick", "fgsm", {}),
    "pgd": ("quick", "pgd20", {}),
    "cw": ("quick", "cw20_k50", {}),
    "lsa": ("quick", "lsa20", {}),
    "mim": ("diagnose", "mim20", {}),
    "temperature_pgd": ("diagnose", "pgd20@5", {"scale": 5.0}),
    "apgd": ("standard", "apgd-ce", {}),
    "apgd_t": ("standard", "apgd-t", {}),
    "fab": ("standard", "fab-t", {}),
    "square": ("standard", "square", {}),
    "cw_l2": ("legacy_taet/b1", "cw_l2", {}),
    "deepfool": ("legacy_taet/b1", "deepfool", {}),
}


def linf(name):
    """A radius at which few steps break some of the fixture's images, and not all."""
    return lt.Threat("linf", 32 if name == "square" else 8)


def attacked(name, linear, threat, *, key=3, **settings):
    """What the attack finds of all images of a linear network."""
    function = getattr(lt.attacks, name)
    given = {"key": key, **SHORT.get(name, {}), **settings}
    return function(linear.logits, linear.images, linear.labels, threat, **given)


def attack(name, linear, threat, **settings):
    """`attacked`, as an array."""
    return np.asarray(attacked(name, linear, threat, **settings))


def predicted(linear, images):
    return np.asarray(jnp.argmax(linear.logits(jnp.asarray(images)), axis=1))


def binary(number=32, side=4):
    """A linear network of two classes, its weights [D], and images away from the bounds."""
    keys = jax.random.split(jax.random.key(0), 2)
    weights = jax.random.normal(keys[0], (side * side,))
    images = jax.random.uniform(keys[1], (number, side, side, 1), minval=0.3, maxval=0.7)

    def logits(points):
        score = (points.reshape(len(points), -1) - 0.5) @ weights
        return jnp.stack([score, -score], axis=1)

    return logits, np.asarray(weights), np.asarray(images), np.asarray(jnp.argmax(logits(images), axis=1))


def test_all_attacks_have_one_form():
    for name in ATTACKS:
        function = getattr(lt.attacks, name)
        parameters = inspect.signature(function).parameters
        assert list(parameters)[:4] == ["logits_fn", "images", "labels", "threat"], name
        assert list(parameters)[4] == "key", name
        assert list(parameters)[-1] == "ids", name
        assert all(one.kind is one.KEYWORD_ONLY for one in list(parameters.values())[4:]), name
        assert function.__doc__.count("\n") >= 3, name
    assert set(SAME) == set(ATTACKS), "every attack is compared with that of a protocol"


@pytest.fixture(scope="module")
def evaluated(linear):
    """Threat -> 64 images of the linear network, and the driver that evaluates them; one for all attacks."""
    some = linear.rows(slice(0, 640, 10))
    apply = lambda variables, points: some.logits(points)  # noqa: E731
    options = {"num_classes": 10, "batch_size": 64, "seed": 5, "place": jax.device_put, "devices": 1}
    return functools.cache(lambda threat: (some, Driver(apply, apply, threat=threat, **options)))


@pytest.mark.parametrize("name", ATTACKS)
def test_a_function_finds_what_the_attack_of_the_protocol_finds(evaluated, name):
    protocol, column, settings = SAME[name]
    threat, seed = linf(name), 5
    some, driver = evaluated(threat)
    (kind,) = [one for one in protocols.get(protocol).attacks if one.name == column]
    kind = dataclasses.replace(kind, **SHORT.get(name, {}))
    rows = np.arange(64)
    subject = Subject((), some.images, some.labels, ids=7 * rows)
    logits = np.asarray(driver.clean(subject).logits)
    result = attack(name, some, threat, key=lt.attacks.draws(seed, column), ids=7 * rows, **settings)
    seen = 0
    for verdicts in driver.attack(subject, kind, rows, logits):
        np.testing.assert_array_equal(result[verdicts.rows], verdicts.images)
        seen += len(verdicts.rows)
    assert seen == 64
    assert np.any(result != some.images)


def test_attacks_of_protocols_are_values():
    # Equal settings are one key, and nobody changes them later.
    for kind in (
        one for protocol in ("quick", "standard", "legacy_taet/b1") for one in protocols.get(protocol).attacks
    ):
        same = dataclasses.replace(kind)
        assert (same, hash(same)) == (kind, hash(kind))
        with pytest.raises(dataclasses.FrozenInstanceError):
            kind.steps = 3


def test_defaults_are_the_settings_of_the_protocols():
    """The comparison above makes short runs."""
    for name, (protocol, column, changed) in SAME.items():
        (kind,) = [one for one in protocols.get(protocol).attacks if one.name == column]
        parameters = inspect.signature(getattr(lt.attacks, name)).parameters
        shared = {field.name for field in dataclasses.fields(kind)} & set(parameters) - set(changed)
        assert shared & {"steps", "queries"} or name == "fgsm", name
        for setting in shared:
            assert parameters[setting].default == getattr(kind, setting), (name, setting)
        assert parameters["key"].default in (0, inspect.Parameter.empty), name


@pytest.mark.parametrize("norm", THREATS)
@pytest.mark.parametrize("name", ["fgsm", "pgd", "mim", *SEARCHES])
def test_results_are_in_ball_and_bounds(linear, name, norm):
    threat, some = THREATS[norm], linear.rows(slice(0, 64))
    images = np.round(some.images)  # on the bounds, where a ball is cut
    labels = predicted(some, images)
    result = attack(name, some._replace(images=images, labels=labels), threat)
    assert (result.dtype, result.shape) == (np.float32, images.shape)
    assert result.min() >= 0
    assert result.max() <= 1
    excess = ball.violation(jnp.asarray(result), jnp.asarray(images), threat.epsilon, threat)
    np.testing.assert_array_less(excess, 1e-6)
    if norm == "linf":
        radius = np.float32(threat.epsilon)
        assert np.all((result >= images - radius) & (result <= images + radius))


def test_one_step_on_a_linear_network_is_the_closed_form():
    logits, weights, images, labels = binary()
    away = np.where(labels == 0, -1, 1)[:, None] * weights
    result = lt.attacks.fgsm(logits, images, labels, THREATS["linf"])
    expected = images + np.float32(8 / 255) * np.sign(away).reshape(images.shape)
    np.testing.assert_allclose(result, expected, atol=1e-7)
    result = lt.attacks.fgsm(logits, images, labels, THREATS["l2"])
    expected = images + 128 / 255 * (away / np.linalg.norm(weights)).reshape(images.shape)
    np.testing.assert_allclose(result, expected, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["apgd", "apgd_t", "fab", "pgd", "cw"])
@pytest.mark.parametrize("norm", THREATS)
def test_on_a_linear_network_attacks_break_the_images_within_reach(linear, name, norm):
    threat, some = THREATS[norm], linear.rows(slice(0, 1000, 8))
    distances = some.distances(norm)
    settings = {"steps": 40} | ({"targets": 9} if name in ("apgd_t", "fab") else {})
    broken = predicted(some, attack(name, some, threat, **settings)) != some.labels
    assert not np.any(broken & (distances > threat.epsilon + 1e-6))
    assert np.mean(broken[distances < 0.95 * threat.epsilon]) > 0.97


def test_attacks_without_a_radius_step_over_the_boundary_at_its_distance():
    logits, weights, images, labels = binary()
    margins = np.abs((images.reshape(len(images), -1) - 0.5) @ weights)
    distances = margins / np.linalg.norm(weights)
    assert distances.max() > 8 / 255
    result = np.asarray(lt.attacks.deepfool(logits, images, labels, THREATS["linf"]))
    moved = np.linalg.norm((result - images).reshape(len(images), -1), axis=1)
    np.testing.assert_allclose(moved, 1.02 * distances, rtol=1e-3)
    assert np.all(np.argmax(logits(result), axis=1) != labels)
    result = np.asarray(lt.attacks.cw_l2(logits, images, labels, THREATS["linf"], steps=200))
    moved = np.linalg.norm((result - images).reshape(len(images), -1), axis=1)
    assert np.all(np.argmax(logits(result), axis=1) != labels)
    assert np.all(moved >= distances - 1e-6)
    assert np.median(moved / distances) < 2
    other = lt.attacks.cw_l2(logits, images, labels, THREATS["l2"], steps=200)
    np.testing.assert_array_equal(result, other)


@pytest.mark.parametrize("name", ["pgd", *SEARCHES, *FREE])
def test_an_image_does_not_depend_on_its_batch(linear, name):
    rows = np.random.RandomState(0).permutation(128)[:64]
    whole = attack(name, linear.rows(slice(0, 128)), linf(name))
    part = attack(name, linear.rows(slice(0, 128)).rows(rows), linf(name), ids=rows)
    np.testing.assert_array_equal(part, whole[rows])
    assert np.any(part != linear.images[rows])


def test_seeds_and_keys_of_both_kinds_address_draws_alike():
    expected = jax.random.key_data(jax.random.key(4))
    for key in (4, np.int64(4), jax.random.key(4), jax.random.PRNGKey(4)):
        np.testing.assert_array_equal(jax.random.key_data(inputs.root_of(key)), expected)


@pytest.mark.parametrize("name", ["pgd", "apgd", "square"])
def test_key_and_id_decide_the_draws(linear, name):
    some, ids = linear.rows(slice(0, 64)), np.arange(64)
    result = jax.jit(lambda key, ids: attacked(name, some, linf(name), key=key, ids=ids))
    first = result(jax.random.key(4), ids)
    assert np.any(result(jax.random.key(5), ids) != first)
    assert np.any(result(jax.random.key(4), ids + 1) != first)


@pytest.mark.parametrize("name", ["pgd", "fab"])
def test_a_call_may_be_compiled_with_everything_traced(linear, name):
    some, threat = linear.rows(slice(0, 64)), THREATS["linf"]
    function = getattr(lt.attacks, name)

    @jax.jit
    def compiled(weights, images, labels, key, ids):
        logits_fn = some._replace(weights=weights).logits
        return function(logits_fn, images, labels, threat, key=key, ids=ids, **SHORT[name])

    result = compiled(some.weights, some.images, some.labels, jax.random.key(3), jnp.arange(64))
    np.testing.assert_allclose(result, attack(name, some, threat), atol=1e-6)


def test_no_gradient_comes_through(linear):
    some = linear.rows(slice(0, 8))
    total = lambda images: jnp.sum(lt.attacks.pgd(some.logits, images, some.labels, THREATS["linf"], key=0, steps=2))  # noqa: E731
    assert not np.any(jax.grad(total)(jnp.asarray(some.images)))


@pytest.mark.slow
def test_two_classes_are_enough_for_all_losses_but_dlr():
    logits, _, images, labels = binary(4)
    for name in ("apgd", "apgd_t", "fab"):
        result = getattr(lt.attacks, name)(logits, images, labels, lt.Threat("linf", 32), key=0, steps=8)
        assert np.any(np.argmax(logits(result), axis=1) != labels)
    with pytest.raises(ValueError, match="'dlr' needs at least 3 classes, there are 2"):
        lt.attacks.apgd(logits, images, labels, THREATS["linf"], key=0, loss="dlr")


IMAGES, LABELS = np.zeros((2, 4, 4, 1), np.float32), np.array([0, 1])


def two(images):
    flat = jnp.mean(images, axis=(1, 2, 3))
    return jnp.stack([flat, -flat], axis=1)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"images": IMAGES.astype(np.uint8)}, r"images must be float32 .* use images.astype\('float32'\) / 255"),
        ({"images": np.full_like(IMAGES, 2.0)}, r"images lie in \[2.0, 2.0\]"),
        ({"images": np.zeros((2, 3, 8, 8), np.float32)}, "channels first"),
        ({"images": IMAGES[:0], "labels": LABELS[:0]}, "there are 0 images"),
        ({"labels": np.array([0, 2])}, r"labels lie in \[0, 2\]; 2 classes allow 0 to 1"),
        ({"labels": np.eye(2)}, r"labels must be integers \[2\].* labels.argmax"),
        ({"threat": "linf"}, "threat is 'linf'; give a Threat"),
        ({"logits_fn": lambda images: np.asarray(images)}, "cannot be traced by JAX"),
        ({"logits_fn": lambda images: two(images)[:, :1]}, r"1 class\(es\); an attack needs at least 2"),
        ({"key": -1}, r"key is -1; give a seed from 0 to 2\^31 - 1"),
        ({"key": 0.5}, "key is 0.5"),
        ({"key": jnp.zeros(3)}, r"key is an array float32 \[3\]"),
        ({"ids": np.array([0.5, 1])}, r"ids must be integers \[2\]"),
        ({"ids": np.array([0, -1])}, r"ids lie in \[-1, 0\]"),
        ({"key": jnp.zeros(3, jnp.uint32)}, r"key is an array uint32 \[3\], no raw key; give a seed"),
        ({"steps": 0}, r"steps is 0; give an integer from 1 to 2\^31 - 1"),
        ({"step": 0}, "step is 0; give a finite number above 0"),
        ({"start": "centre"}, "attack start is 'centre'"),
        ({"start": ["none"]}, r"attack start is \['none'\]; did you mean none"),
        ({"loss": "hinge"}, "PGD loss is 'hinge'"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else value,  # workers need the same names
)
def test_mistakes_are_named(changes, message):
    given = {"logits_fn": two, "images": IMAGES, "labels": LABELS, "threat": THREATS["linf"], "key": 0} | changes
    with pytest.raises(ValueError, match=message):
        lt.attacks.pgd(**given)


NAN, INF = float("nan"), float("inf")
# Setting -> functions that have it, and values out of its range.
STEPPED = ["pgd", "mim", "cw", "lsa", "temperature_pgd"]
NO_COUNT = [0, -1, 2.9, 2.0, True, "5", None, 2**31]
NOT_POSITIVE, NEGATIVE = [0, 1e-50, -1.0, NAN, INF, 1e39, True, "5"], [-1.0, NAN, INF, np.float32(-1)]
BAD = [
    *[("steps", [*STEPPED, "apgd", "apgd_t", "fab", *FREE], value) for value in NO_COUNT],
    *[("targets", ["apgd_t", "fab"], value) for value in [2.5, *NO_COUNT]],
    *[("queries", ["square"], value) for value in [10.5, *NO_COUNT]],
    *[("step", STEPPED, value) for value in NOT_POSITIVE],
    *[("scale", ["lsa", "temperature_pgd"], value) for value in NOT_POSITIVE],
    *[(name, ["cw_l2"], value) for name in ("c", "rate") for value in NOT_POSITIVE],
    *[("decay", ["mim"], value) for value in NEGATIVE],
    *[("kappa", ["cw", "cw_l2"], value) for value in NEGATIVE],
    *[("overshoot", ["deepfool"], value) for value in NEGATIVE],
]


@pytest.mark.parametrize(("setting", "names", "value"), BAD, ids=[f"{setting}={value!r}" for setting, _, value in BAD])
def test_settings_out_of_range_are_named(setting, names, value):
    for name in names:
        with pytest.raises(ValueError, match=rf"^{setting} is .*; give (an integer from 1 to|a finite number) "):
            getattr(lt.attacks, name)(two, IMAGES, LABELS, THREATS["linf"], key=0, **{setting: value})


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("apgd", {"loss": "targeted_dlr"}, "APGD loss is 'targeted_dlr'; known: ce, dlr"),
        ("lsa", {"scale": (1.0, 0)}, r"scale\[1\] is 0; give a finite number above 0"),
        ("lsa", {"scale": np.array([NAN, 1])}, r"scale\[0\] is nan; give a finite number above 0"),
        ("temperature_pgd", {"scale": (1.0, -1.0)}, r"scale\[1\] is -1.0; give a finite number above 0"),
        ("lsa", {"scale": (1.0, 2.0, 3.0)}, r"PGD scale has shape \[3\]; give one number, or 2, one for each class"),
        ("temperature_pgd", {"scale": ()}, r"PGD scale has shape \[0\]; give one number, or 2"),
    ],
    ids=["loss", "scale-zero", "scale-nan", "scale-negative", "scale-three", "scale-none"],
)
def test_other_settings_are_named(name, settings, message):
    with pytest.raises(ValueError, match=message):
        getattr(lt.attacks, name)(two, IMAGES, LABELS, THREATS["linf"], key=0, **settings)


def test_numbers_of_numpy_and_jax_are_settings():
    for count in (2, np.int64(2), np.array(2), jnp.int32(2)):
        inputs.check_whole("steps", count)
    for number in (0, 0.0, 1, np.float32(1), np.float16(1), np.array(1.0), jnp.float32(1), jnp.bfloat16(1)):
        inputs.check_number("kappa", number, zero=True)
    for scale in (1, (1.0, 2), [1.0], np.ones(2), jnp.ones(2), np.array(1.0)):
        inputs.check_scale(scale)
    jax.jit(lambda scale, scales: (inputs.check_scale(scale), inputs.check_scale(scales)))(1.0, jnp.ones(2))


def test_ids_default_to_positions():
    np.testing.assert_array_equal(inputs.ids_of(None, 3), [0, 1, 2])


@pytest.mark.parametrize("dtype", ["int32", "uint32"])
def test_ids_may_be_an_array_of_jax(dtype):
    ids = inputs.ids_of(jnp.arange(3, dtype=dtype), 3)
    assert ids.dtype == np.uint32
    np.testing.assert_array_equal(ids, [0, 1, 2])
    with pytest.raises(ValueError, match=r"ids must be integers \[2\]"):
        inputs.ids_of(jnp.arange(3, dtype=dtype), 2)


def test_ids_of_jax_below_0_are_named():
    with pytest.raises(ValueError, match=r"ids lie in \[-1, 1\]; .* 0 to 2\^32 - 1"):
        inputs.ids_of(jnp.arange(3) - 1, 3)


def test_a_traced_call_may_hold_concrete_labels_and_ids(linear):
    some = linear.rows(slice(0, 2))
    labels, ids, given = jnp.asarray(some.labels), jnp.arange(2), {"key": 3, "steps": 1}
    result = jax.jit(lambda x: lt.attacks.pgd(some.logits, x, labels, THREATS["linf"], ids=ids, **given))(some.images)
    assert np.any(result != some.images)
