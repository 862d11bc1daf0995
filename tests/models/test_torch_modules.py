"""PyTorch modules in JAX: PyTorch's logits and gradients, and what is refused. Most of it needs torchax."""

import copy
import importlib.util

import golden
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ltrobust as lt
from ltrobust.models import torch_reference, torchax_import

torch = pytest.importorskip("torch", reason="needs PyTorch: pip install -e '.[torch]'")
import torch_toy  # noqa: E402 - needs PyTorch
from torch.nn import functional as F  # noqa: E402

IMAGES = np.random.RandomState(0).randint(0, 256, (6, 16, 16, 3)).astype(np.uint8)
POINTS = IMAGES.astype(np.float32) / 255
# Made before torchax is imported, which registers a device that PyTorch would move the module to.
PARALLEL = torch.nn.DataParallel(torch.nn.Flatten())
needs_torchax = pytest.mark.skipif(
    importlib.util.find_spec("torchax") is None, reason="needs torchax: pip install -e '.[torch]'"
)


def pytorchs(module, points=POINTS):
    """PyTorch's own logits."""
    with torch.no_grad():
        return copy.deepcopy(module).eval()(torch.from_numpy(points.transpose(0, 3, 1, 2).copy())).numpy()


@needs_torchax
@pytest.mark.parametrize("kind", [torch_toy.Residual, torch_toy.Attention])
def test_logits_and_gradients_are_pytorchs(kind):
    module = torch_toy.seeded(kind).train()
    network = lt.from_torch(module)
    parity = network.compare(IMAGES)
    assert module.training, "the module itself is not changed"
    assert all(weight.requires_grad for weight in module.parameters())
    assert parity.logits < 1e-5
    assert parity.gradients < 1e-4
    np.testing.assert_allclose(jax.jit(network)(POINTS), pytorchs(module), rtol=1e-4, atol=1e-5)
    # Each image for itself, as attacks need it.
    np.testing.assert_allclose(network(jnp.asarray(POINTS[:1])), pytorchs(module)[:1], rtol=1e-4, atol=1e-5)


@needs_torchax
def test_wrappers_are_taken_off_and_half_precision_becomes_float32():
    module = torch_toy.seeded(torch_toy.Residual)
    expected = np.asarray(lt.from_torch(module, IMAGES)(POINTS))
    inner = copy.deepcopy(module)
    inner.stem = torch.compile(inner.stem, backend="eager")
    inner.head = copy.deepcopy(PARALLEL)
    inner.head.module = copy.deepcopy(module.head)
    parallel = copy.deepcopy(PARALLEL)
    parallel.module = module
    in_place = copy.deepcopy(module)
    in_place.compile(backend="eager")
    for wrapped in (parallel, torch.compile(module, backend="eager"), inner, in_place):
        np.testing.assert_array_equal(lt.from_torch(wrapped)(POINTS), expected)
    for half in (copy.deepcopy(module).half(), copy.deepcopy(module).bfloat16()):
        network = lt.from_torch(half, IMAGES)
        assert next(half.parameters()).dtype != torch.float32, "the module itself is not changed"
        np.testing.assert_array_equal(
            network(POINTS), lt.from_torch(copy.deepcopy(half).float())(POINTS), err_msg="rounded weights"
        )


@needs_torchax
def test_hooks_tensors_without_registration_and_in_place_operations_count():
    module = torch_toy.Then(lambda logits: F.relu(2 * logits, inplace=True) + 1)
    module.scale = torch.arange(5.0)  # an attribute, neither parameter nor buffer
    module.register_forward_hook(lambda module, _, logits: logits * module.scale)
    lt.from_torch(module, IMAGES)


@needs_torchax
@pytest.mark.parametrize(
    ("function", "message"),
    [
        (F.dropout, r"Then is random at evaluation: it draws by aten.bernoulli_"),
        (lambda z: z + torch.rand(5), r"random at evaluation: it draws by aten.rand.default"),
        (lambda z: z * np.random.rand(), r"random at evaluation: it draws by a generator outside of PyTorch"),  # noqa: NPY002
        (lambda z: (z, z), r"gives a tuple for images \[4, 3, 16, 16\]; it must give a tensor of logits"),
        (lambda z: z[:, 0], r"gives \[4\] for images \[4, 3, 16, 16\]; it must give a tensor of logits"),
        (lambda z: (z > 0).int(), r"gives torch.int32; it must give logits, not classes"),
        (lambda z: z.detach(), r"gives logits without a gradient; remove torch.no_grad\(\)"),
        (lambda z: z if z.sum() > 0 else -z, r"depends on values of the images \(ConcretizationTypeError\)"),
        (torch_toy.pooled, r"uses the operation aten::adaptive_max_pool2d, which torchax lacks"),
        (
            lambda z: torch_toy.StraightThrough.apply(z),
            r"differs from PyTorch by .* of the largest logit \(allowed: 0.001\) and 1.0e\+00 of the input gradient",
        ),
    ],
)
def test_what_cannot_be_evaluated_is_refused_with_the_reason(function, message):
    with pytest.raises(ValueError, match=message):
        lt.from_torch(torch_toy.Then(function), IMAGES)


class Centred(torch_toy.Then):
    """Subtracts what the function makes of the batch."""

    def forward(self, x):
        return self.conv(x - self.function(x)).mean((2, 3))


@needs_torchax
def test_a_class_and_other_sizes_of_batches_are_refused():
    with pytest.raises(ValueError, match=r"the network is the class Linear; give an instance, such as Linear\(\)"):
        lt.evaluate(torch.nn.Linear, IMAGES, np.zeros(6, int))
    network = lt.from_torch(torch_toy.Then(lambda logits: logits.reshape(4, 5)))
    with pytest.raises(ValueError, match=r"Then cannot be translated to JAX \(TypeError: "):
        network(jnp.asarray(POINTS[:3]))


@pytest.mark.parametrize("images", [POINTS, POINTS[:1], POINTS[[0, 0, 0]]])
@pytest.mark.parametrize("function", [lambda x: x.mean(0), lambda x: x[:1], lambda x: x[-1:]])
def test_images_that_influence_each_other_are_refused(function, images):
    with pytest.raises(ValueError, match=r"Centred gives an image other logits .* such as by means over the batch"):
        torch_reference.compute(Centred(function).eval(), images)
    module = torch_toy.seeded(torch_toy.Residual).eval()
    torch_reference.compute(module, images)
    module.norm = torch.nn.BatchNorm2d(8, track_running_stats=False)
    with pytest.raises(ValueError, match=r"such as by norm without running statistics\. Compute each image by itself"):
        torch_reference.compute(module.eval(), images)


def test_a_module_of_one_batch_size_is_refused():
    module = torch_toy.Then(lambda logits: logits.reshape(4, 5)).eval()
    with pytest.raises(ValueError, match=r"Then cannot be called on batches of 1 and 6 images \(RuntimeError: "):
        torch_reference.compute(module, POINTS[:4])


@needs_torchax
@pytest.mark.filterwarnings("ignore:.*torch.jit.script:DeprecationWarning")
def test_weights_and_images_that_cannot_be_used_are_refused():
    module = torch_toy.seeded(torch_toy.Residual)
    integers = copy.deepcopy(module)
    integers.scale = torch.nn.Parameter(torch.ones(3, dtype=torch.int8), requires_grad=False)
    for network, images, message in (
        (3, None, r"the network is a builtins.int; give a torch.nn.Module"),
        (torch.jit.script(torch.nn.Flatten()), None, r"not compiled by torch.jit"),
        (copy.deepcopy(module).to("meta"), None, r"the weight stem.weight is on the meta device, without data"),
        (integers, None, r"the weight scale is torch.int8; give the module as it was before quantisation"),
        (
            torch_toy.Attention(),
            IMAGES[..., :1],
            r"Attention cannot be called on images \[4, 1, 16, 16\].*expected input.* 3 channels",
        ),
        (module, IMAGES[..., 0], r"images have shape \[4, 16, 16\]; give at least one"),
    ):
        with pytest.raises(ValueError, match=message):
            lt.from_torch(network, images)


@needs_torchax
@pytest.mark.slow
def test_a_module_is_evaluated_by_one_call(tmp_path):
    module = torch_toy.seeded(torch_toy.Residual)
    labels = pytorchs(module).argmax(-1)
    settings = {"protocol": "validation", "threat": lt.Threat("linf", 1), "batch_size": 8, "progress": False}
    evaluation = lt.evaluate(module, IMAGES, labels, store=tmp_path / "store", **settings)
    assert evaluation.clean.all()
    network = lt.from_torch(module)
    again = lt.evaluate(network, IMAGES, labels, store=tmp_path / "store", **settings)
    for column, predictions in evaluation.predictions.items():
        np.testing.assert_array_equal(again.predictions[column], predictions)
    with pytest.raises(ValueError, match=r"5 classes allow 0 to 4"):
        lt.evaluate(module, IMAGES, labels + 5, **settings)


@needs_torchax
@pytest.mark.golden
@pytest.mark.slow
def test_a_golden_network_as_a_module_is_judged_as_by_the_public_autoattack(shared_data):
    rows, (_, _, _, record) = np.arange(24), golden.load(shared_data, "cnn_a")
    threat = lt.Threat("linf", float(record["radius_255"]))
    module = golden.torch_module(record, "cnn_a")
    np.testing.assert_allclose(pytorchs(module, record["images"] / np.float32(255)), record["logits"], atol=2e-5)
    evaluation = lt.evaluate(module, record["images"][rows], record["labels"][rows], threat=threat, progress=False)
    np.testing.assert_array_equal(evaluation.robust, record["robust_standard"][rows])


def test_overloads_that_pytorch_removed_have_placeholders_during_the_import():
    class Packet:
        def __getattr__(self, name):
            if name == "default":
                return "there"
            raise AttributeError(name)

    packet, original = Packet(), Packet.__getattr__
    with torchax_import.placeholders_for_named_overloads(Packet):
        for name in ("dim_Dimname", "dimname", "Dimname_Scalar", "names_out", "names_ScalarOpt_dim"):
            assert getattr(packet, name) is not None
        assert packet.default == "there"
        with pytest.raises(AttributeError):
            _ = packet.misspelt
    assert Packet.__getattr__ is original


@pytest.mark.skipif(importlib.util.find_spec("torchax") is not None, reason="torchax is installed")
def test_without_torchax_a_module_is_refused_with_the_command_that_installs_it():
    with pytest.raises(ValueError, match=r"torchax is not installed; run: pip install -e '.\[torch\]'"):
        lt.evaluate(torch_toy.Residual(), IMAGES, np.zeros(6, int))


@needs_torchax
def test_plain_convolutions_are_those_for_the_cpu_there_and_torchaxs_elsewhere():
    module = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3, stride=2, padding=1), torch.nn.Flatten())
    network = lt.from_torch(module)
    images = np.zeros((2, 8, 8, 3), np.float32)
    assert "cpu_convolution" in str(jax.make_jaxpr(network)(images))
    lowered = {
        name: jax.jit(network).trace(images).lower(lowering_platforms=(name,)).as_text() for name in ("cpu", "tpu")
    }
    assert "[b, 0, 1, f]x[0, 1, i, o]" in lowered["cpu"]
    assert "[b, f, 0, 1]x[o, i, 0, 1]" in lowered["tpu"]
    grouped = lt.from_torch(torch.nn.Sequential(torch.nn.Conv2d(4, 4, 3, groups=4), torch.nn.Flatten()))
    assert "cpu_convolution" not in str(jax.make_jaxpr(grouped)(np.zeros((2, 8, 8, 4), np.float32)))
