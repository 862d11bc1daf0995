"""Networks of other people: what is called and how, what is refused, what methods may ask of them."""

import contextlib
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import own
import planned
import pytest
from flax import nnx

from configs import digits
from ltrobust import models
from ltrobust.data.run_data import Examples, RunData
from ltrobust.models import external
from ltrobust.models.layers import Head
from ltrobust.training import devices

IMAGES = (8, 8, 1)


@pytest.fixture(autouse=True)
def _as_before():
    before = dict(models.REGISTERED)
    yield
    models.REGISTERED.clear()
    models.REGISTERED.update(before)


def built(network: Any, **changes: Any) -> nn.Module:
    """The network as `models.create` builds it, for three classes of 8x8 grey images."""
    arguments = {"num_classes": 3, "dtype": "float32", "axis_name": None, "head": Head(), "options": {}} | changes
    return external.build(network, network.__name__, **arguments)


def check(module: nn.Module, outputs: int = 3, *, synchronised: bool = False) -> None:
    external.check(module, IMAGES, outputs=outputs, synchronised=synchronised)


class Modes(nn.Module):
    """BatchNorm under one of the names of the mode; the network returns what it was called with."""

    num_classes: int


def with_mode(argument: str) -> type[nn.Module]:
    """A network whose `__call__` has that argument."""

    def call(self, images, **given):
        (value,) = given.values()
        training = value == external.MODES[argument]
        x = nn.BatchNorm(use_running_average=not training)(images)
        return nn.Dense(self.num_classes)(x.reshape(len(x), -1))

    scope: dict[str, Any] = {"call": call}
    exec(
        f"def __call__(self, images, *, {argument}: bool):\n    return call(self, images, {argument}={argument})", scope
    )
    return type("Net", (Modes,), {"__call__": nn.compact(scope["__call__"])})


@pytest.mark.parametrize("argument", external.MODES)
def test_the_mode_is_given_under_the_name_that_the_network_has(argument):
    module = built(with_mode(argument))
    check(module)
    params, stats = models.initialise(module, jax.random.key(0), IMAGES)
    images = jax.random.uniform(jax.random.key(1), (5, *IMAGES))
    evaluated, same = models.forward(module, params, stats, images, bn="eval")
    trained, moved = models.forward(module, params, stats, images, bn="train")
    frozen, kept = models.forward(module, params, stats, images, bn="batch_frozen")
    assert same is stats
    assert kept is stats
    np.testing.assert_array_equal(trained, frozen)
    assert not np.allclose(evaluated, trained)
    mean = jnp.mean(images, axis=(0, 1, 2))
    np.testing.assert_allclose(moved["BatchNorm_0"]["mean"], 0.01 * mean, rtol=1e-5)


def test_a_network_without_modes_has_no_statistics():
    module = built(own.Plain)
    check(module)
    params, stats = models.initialise(module, jax.random.key(0), IMAGES)
    assert stats == {}
    images = jnp.ones((2, *IMAGES))
    outputs = [models.forward(module, params, stats, images, bn=bn) for bn in ("eval", "train", "batch_frozen")]
    for logits, left in outputs:
        assert logits.dtype == jnp.float32
        assert left == {}
        np.testing.assert_array_equal(logits, outputs[0][0])


def test_settings_reach_the_network_and_lists_become_tuples():
    models.register(own.Plain)
    assert models.defaults() == {"Plain": {"width": 4, "widths": (4,)}}
    module = models.create("Plain", num_classes=3, options={"width": 6, "widths": [1, 2]})
    assert (module.width, module.widths) == (6, (1, 2))  # pyright: ignore
    hash(module)
    with pytest.raises(ValueError, match=r"model Plain has no setting depth; its settings: width, widths"):
        models.create("Plain", num_classes=3, options={"depth": 6})


@pytest.mark.parametrize("name", ["own:Plain", "own:instance", "own:function"])
def test_a_network_is_named_by_its_module(name, monkeypatch):
    monkeypatch.setattr(own, "instance", own.Plain(num_classes=99, width=5), raising=False)
    monkeypatch.setattr(own, "function", lambda num_classes, width=5: own.Plain(num_classes, width), raising=False)
    module = models.create(name, num_classes=3)
    assert module == own.Plain(3, width=4 if name == "own:Plain" else 5)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nowhere.at_all:Net", "model 'nowhere.at_all:Net' cannot be imported: Module.*: No module named 'nowhere'"),
        ("own:Nothing", "imported: Attr.*: module 'own' has no attribute 'Nothing'. Give package.module:CLASS"),
        ("own:", "cannot be imported: AttributeError: module 'own' has no attribute ''"),
        ("math:pi", "model 'math:pi' is 3.14.*; give a class of flax.linen.Module"),
        ("pathlib:Path", "give a class of flax.linen.Module"),
    ],
)
def test_names_that_are_no_network_are_refused(name, message):
    with pytest.raises(ValueError, match=message):
        models.create(name, num_classes=3)


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("def broken(:", r"SyntaxError: invalid syntax \(my_broken.py, line 1\). Give package.module:CLASS"),
        ("undefined", "NameError: name 'undefined' is not defined. Give"),
        ("assert False", "cannot be imported: AssertionError. Give"),
    ],
)
def test_whatever_goes_wrong_in_the_import_is_said(code, message, tmp_path, monkeypatch):
    (tmp_path / "my_broken.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ValueError, match=message):
        models.create("my_broken:Net", num_classes=3)


@pytest.mark.parametrize("name", ["resnet18", "wrn_10_2", "dtype"])
def test_names_of_networks_and_keys_are_taken(name):
    with pytest.raises(ValueError, match=f"the name {name} is taken; give your network another one"):
        models.register(type(name, (own.Plain,), {}))


class InNNX(nnx.Module):
    def __init__(self, num_classes, *, rngs):
        self.norm = nnx.BatchNorm(1, rngs=rngs)
        self.out = nnx.Linear(1, num_classes, rngs=rngs)

    def __call__(self, images, use_running_average):
        return self.out(self.norm(images, use_running_average=use_running_average).max(axis=(1, 2)))


class FromNNX(nn.Module):
    num_classes: int

    @nn.compact
    def __call__(self, images, use_running_average: bool):
        net = nnx.bridge.ToLinen(InNNX, args=(self.num_classes,), name="net")
        return net(images, use_running_average=use_running_average)


def test_nnx_through_its_bridge():
    module = built(FromNNX)
    check(module)
    params, stats = models.initialise(module, jax.random.key(0), IMAGES)
    images = jax.random.uniform(jax.random.key(1), (2, *IMAGES))
    evaluated, _ = models.forward(module, params, stats, images, bn="eval")
    trained, moved = models.forward(module, params, stats, images, bn="train")
    assert jax.tree.structure(moved) == jax.tree.structure(stats)
    assert not np.allclose(evaluated, trained)
    assert models.count_parameters(params) == 2 + 2 * 3
    assert models.class_norms(params, 3) is not None


# What does not keep the contract


class Base(nn.Module):
    num_classes: int

    def logits(self, images):
        return nn.Dense(self.num_classes)(images.reshape(len(images), -1))


class Drops(Base):
    @nn.compact
    def __call__(self, images, train):
        return nn.Dropout(0.5, deterministic=not train)(self.logits(images))


class Restless(Base):
    @nn.compact
    def __call__(self, images, train):
        self.variable("batch_stats", "calls", lambda: jnp.zeros(())).value += 1
        return self.logits(images)


class Counts(Base):
    @nn.compact
    def __call__(self, images):
        self.variable("cache", "calls", lambda: jnp.zeros(()))
        return self.logits(images)


class Modeless(Base):
    @nn.compact
    def __call__(self, images):
        return nn.BatchNorm(use_running_average=False)(self.logits(images))


class Two(Base):
    @nn.compact
    def __call__(self, images):
        return self.logits(images), images


class Demanding(Base):
    @nn.compact
    def __call__(self, images, mask):
        return self.logits(images) * mask


class Listed(Base):
    widths: Any = None

    @nn.compact
    def __call__(self, images):
        return self.logits(images)


class Wide(nn.Module):
    @nn.compact
    def __call__(self, images):
        return nn.Dense(7)(images.reshape(len(images), -1))


class Alone(Base):
    @nn.compact
    def __call__(self, images, train):
        return self.logits(nn.BatchNorm(use_running_average=not train)(images))


class NoImages(Base):
    def __call__(self):
        return jnp.zeros((2, 3))


class ByKeyword(Base):
    @nn.compact
    def __call__(self, *, images):
        return self.logits(images)


class ByPosition(Base):
    @nn.compact
    def __call__(self, images, train, /):
        return self.logits(images)


class NoCall(Base):
    pass


class TooLarge(Base):
    @nn.compact
    def __call__(self, images):
        return self.logits(images.reshape(len(images), 3, -1))


class Asserts(Base):
    @nn.compact
    def __call__(self, images, train):
        assert not train
        return self.logits(images)


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (Drops(3), "network Drops draws random numbers in a training pass, as dropout does; methods pass no key"),
        (Restless(3), "network Restless changes variables in an evaluation pass: .*batch_stats"),
        (Counts(3), "network Counts has variables 'cache'; only params and batch_stats are kept in training"),
        (Modeless(3), "network Modeless has running statistics, and its __call__ has no argument for the mode; add"),
        (Two(3), "network Two returns a tuple; return the logits alone"),
        (Demanding(3), "network Demanding needs the argument mask; __call__ takes images, and one of train, training"),
        (Listed(3, [1]), "network Listed has a field that cannot be hashed; use tuples instead of lists"),
        (Wide(), r"network Wide returns float32 of shape \(2, 7\) for 2 images; expected floats of shape \(2, 3\)"),
        (NoImages(3), r"network NoImages cannot be called as network\(images\): too many positional arguments"),
        (ByKeyword(3), r"network ByKeyword cannot be called as network\(images\): too many positional arguments"),
        (ByPosition(3), r"network ByPosition cannot be called as network\(images, train=False\): .*'train'"),
        (NoCall(3), r"network NoCall cannot be called on images \[2, 8, 8, 1\]: \w+: .*__call__"),
        (TooLarge(3), r"network TooLarge cannot be called on images \[2, 8, 8, 1\]: TypeError: cannot reshape"),
        (Asserts(3), r"network Asserts cannot be called on images \[2, 8, 8, 1\]: AssertionError"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else "",
)
def test_what_cannot_be_trained_is_refused(module, message):
    with pytest.raises(ValueError, match=message):
        check(module)


def test_several_devices_need_an_axis_for_their_statistics():
    check(Alone(3))
    with pytest.raises(ValueError, match="network Alone has no field axis_name for its BatchNorm, so several devices"):
        check(Alone(3), synchronised=True)
    check(built(own.Normed, axis_name="devices"), synchronised=True)
    check(built(own.Plain, axis_name="devices"), synchronised=True)


def seven(axis_name=None):
    return models.create("small_resnet", num_classes=7, width=2, sync_axis=axis_name)


def nothing(num_classes):
    return lambda images: images[:, :num_classes]


def test_a_function_that_returns_no_module_is_refused(monkeypatch):
    monkeypatch.setattr(own, "nothing", nothing, raising=False)
    with pytest.raises(ValueError, match=r"model own:nothing is a function; give a flax\.linen\.Module"):
        models.create("own:nothing", num_classes=3)


def alone(num_classes):
    return models.create("small_resnet", num_classes=num_classes, width=2)


def shared(num_classes, axis_name=None):
    return models.create("small_resnet", num_classes=num_classes, width=2, sync_axis=axis_name)


@pytest.mark.parametrize("registered", [True, False])
@pytest.mark.parametrize(
    ("network", "count", "message"),
    [
        (seven, 1, r"network ResNet returns float32 of shape \(2, 7\) for 2 images; expected floats of shape \(2, 3\)"),
        (alone, 1, None),
        (alone, 2, "network ResNet was built without sync_axis, so several devices cannot share statistics; take an"),
        (shared, 2, None),
    ],
)
def test_a_function_that_returns_a_network_of_the_package_is_checked_too(
    network, count, message, registered, monkeypatch
):
    config = digits.get_config()
    if registered:
        models.register(network)
    else:
        monkeypatch.setattr(own, network.__name__, network, raising=False)
    config.model.name = network.__name__ if registered else f"own:{network.__name__}"
    labels = np.repeat(np.arange(3), [90, 70, 60])
    blank = np.zeros((len(labels), 8, 8, 3), np.uint8)
    run_data = RunData(Examples(blank, labels), Examples(blank[:3], labels[:3]), ("a", "b", "c"))
    mesh = devices.make_mesh(jax.devices()[:count])
    with pytest.raises(ValueError, match=message) if message else contextlib.nullcontext():
        planned.make_phase(config, "teacher", run_data, mesh)
    if message and count > 1:
        config.model.sync_batch_norm = False
        planned.make_phase(config, "teacher", run_data, mesh)


def test_what_needs_a_field_says_so():
    with pytest.raises(
        ValueError, match=r"model\.dtype is 'bfloat16', and Plain has no field dtype; give float32, or add"
    ):
        built(own.Plain, dtype="bfloat16")
    with pytest.raises(ValueError, match="the method asks for a head of cosines, and Plain has no field head"):
        built(own.Plain, head=Head("cosine"))
    with pytest.raises(
        ValueError, match=r"the method asks for 1 output\(s\) beyond the classes, and Wide has no field"
    ):
        built(Wide, head=Head(extra=1))
    with pytest.raises(ValueError, match="setting mask of network masked has no default; give it one"):
        models.register(masked)


def masked(num_classes, mask):
    return own.Plain(num_classes, mask)


# Heads and features


def test_an_output_more_is_a_class_more():
    module = built(own.Plain, head=Head(extra=1))
    check(module, outputs=4)


@pytest.mark.slow
def test_a_network_with_a_head_takes_what_methods_ask_for():
    images = jax.random.uniform(jax.random.key(1), (2, *IMAGES))
    for head in (Head(), Head(extra=2), Head("cosine", floor=0.1)):
        module = built(own.Normed, head=head)
        check(module, outputs=3 + head.extra)
        params, stats = models.initialise(module, jax.random.key(0), IMAGES)
        assert list(params["head"]) == [head.kind]
        logits, features, left = models.forward_features(module, params, stats, images, bn="train")
        assert features.shape == (2, 4)
        assert jax.tree.structure(left) == jax.tree.structure(stats)
        np.testing.assert_array_equal(logits, models.forward(module, params, stats, images, bn="train")[0])
    assert np.abs(logits).max() <= 1


def test_features_that_a_network_does_not_offer_are_named():
    module = built(own.Plain)
    params, stats = models.initialise(module, jax.random.key(0), IMAGES)
    with pytest.raises(ValueError, match=r"the method reads features, and Plain offers none; end the network with"):
        models.forward_features(module, params, stats, jnp.ones((2, *IMAGES)), bn="train")


class Sows(own.Normed):
    """Sows what it likes under the name of the features."""

    @nn.compact
    def __call__(self, images: jax.Array, train: bool) -> jax.Array:
        self.sow("intermediates", "features", images)
        x = jnp.mean(images, axis=(1, 2))
        return nn.Dense(3)(x) if self.head is None else self.head(2 * x)


def test_features_are_those_of_the_head_and_have_two_axes():
    images = jax.random.uniform(jax.random.key(1), (2, *IMAGES))
    module = built(Sows)
    params, stats = models.initialise(module, jax.random.key(0), IMAGES)
    _, features, _ = models.forward_features(module, params, stats, images, bn="train")
    np.testing.assert_allclose(features, 2 * images.mean(axis=(1, 2)), rtol=1e-6)
    params, stats = models.initialise(Sows(), jax.random.key(0), IMAGES)
    with pytest.raises(ValueError, match=r"features \[B, F\], and Sows sows some of shape \(2, 8, 8, 1\); end the"):
        models.forward_features(Sows(), params, stats, images, bn="train")


def test_rows_of_the_classifier_are_found_where_there_is_one():
    for network in (own.Plain, own.Normed):
        params, _ = models.initialise(built(network), jax.random.key(0), IMAGES)
        kernel = params["answers"]["kernel"] if "answers" in params else params["head"]["linear"]["kernel"]
        np.testing.assert_allclose(models.class_norms(params, 3), np.linalg.norm(kernel, axis=0), rtol=1e-6)
    two = {"a": {"kernel": np.ones((2, 3))}, "b": {"kernel": np.ones((2, 3))}}
    assert models.class_norms(two, 3) is None
    np.testing.assert_allclose(models.class_norms({"a": {"kernel": np.ones((4, 3))}}, 2, 3), [2, 2])
    hidden = {"linear": {"kernel": np.ones((9, 8))}, "head": np.ones(3)}
    assert models.class_norms(hidden, 3) is None
    np.testing.assert_allclose(models.class_norms(hidden | {"out": {"kernel": np.ones((4, 3))}}, 3), [2, 2, 2])
    convolution = {"linear": {"kernel": np.ones((1, 1, 4, 3))}, "cosine": np.ones(3)}
    assert models.class_norms(convolution, 3) is None
    assert models.class_norms({"head": {"linear": {"kernel": {"kernel": np.ones((2, 8))}}}}, 3) is None


def test_images_of_another_shape_are_refused():
    params, stats = models.initialise(built(own.Plain), jax.random.key(0), IMAGES)
    with pytest.raises(ValueError, match=r"images have shape \(2, 8, 8, 3\); the network was initialised for another"):
        models.forward(built(own.Plain), params, stats, jnp.ones((2, 8, 8, 3)), bn="eval")


class Typed(nn.Module):
    num_classes: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, images):
        return nn.Dense(self.num_classes, dtype=self.dtype)(images.reshape(len(images), -1))


def test_a_field_dtype_is_what_the_network_computes_in():
    module = built(Typed, dtype="bfloat16")
    check(module)
    params, stats = models.initialise(module, jax.random.key(0), IMAGES)
    images = jax.random.uniform(jax.random.key(1), (2, *IMAGES))
    logits, _ = models.forward(module, params, stats, images, bn="eval")
    exact, _ = models.forward(built(Typed), params, stats, images, bn="eval")
    assert logits.dtype == jnp.float32
    np.testing.assert_allclose(logits, exact, atol=0.03)
    assert not np.array_equal(logits, exact)
    assert jax.tree.leaves(params)[0].dtype == jnp.float32
