"""PyTorch modules by the name of a function, and their weights from files."""

import pathlib

import numpy as np
import pytest

from ltrobust.models import torch_files, torch_source, torch_weights

torch = pytest.importorskip("torch", reason="needs PyTorch: pip install -e '.[torch]'")
import torch_toy  # noqa: E402 - needs PyTorch


@pytest.fixture
def saved(tmp_path):
    """Names and arrays of a network, and a function that writes them."""
    arrays = {name: array.numpy() for name, array in torch_toy.digits().state_dict().items()}

    def write(changed=arrays):
        torch.save({name: torch.from_numpy(np.array(array)) for name, array in changed.items()}, tmp_path / "net.pt")
        return tmp_path / "net.pt"

    return arrays, write


def test_a_function_is_called_with_its_arguments(tmp_path):
    module = torch_source.build("torch_toy:Residual(num_classes=3, channels=1)")
    assert module.head.out_features == 3
    file = tmp_path / "own_network_for_torch.py"
    file.write_text("import torch\n\n\ndef make(width=2):\n    return torch.nn.Linear(width, 2)\n")
    assert torch_source.build(f"{file}:make(width=7)").in_features == 7
    assert torch_source.build(f"{file}:make").in_features == 2


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("torch_toy", r"--torch is 'torch_toy'; give package.module:function"),
        (":digits", r"--torch is ':digits'; give package.module:function"),
        ("torch_toy:digits(3)", r"keyword arguments that are plain values"),
        ("torch_toy:Residual(**{'num_classes': 7})", r"keyword arguments that are plain values"),
        ("torch_toy:Residual(num_classes=open)", r"keyword arguments that are plain values"),
        ("no_such_module:digits", r"--torch is 'no_such_module': No module named"),
        ("no_such_file.py:digits", r"--torch is 'no_such_file.py', and there is no such file"),
        ("torch_toy:nothing", r"torch_toy has no function 'nothing'"),
        ("torch_toy:Residual(classes=3)", r"failed: TypeError: .*unexpected keyword argument 'classes'"),
        ("os:getcwd", r"returned str; return a torch.nn.Module"),
    ],
)
def test_other_sources_are_refused(source, message):
    with pytest.raises(ValueError, match=message):
        torch_source.build(source)


@pytest.mark.parametrize("prefix", ["", "module.", "module._orig_mod.model."])
def test_weights_are_loaded_whatever_stands_before_all_names(saved, prefix):
    arrays, write = saved
    kept = {f"{prefix}{name}": array for name, array in arrays.items() if not name.endswith("num_batches_tracked")}
    module = torch_toy.Residual(num_classes=10, channels=1)
    torch_source.load(torch.compile(module, backend="eager"), write({**kept, "n_averaged": np.array(3)}))
    for name, array in module.state_dict().items():
        np.testing.assert_array_equal(array.numpy(), arrays[name])


def test_safetensors_are_loaded(saved, tmp_path):
    pytest.importorskip("safetensors")
    arrays, _ = saved
    torch_weights.write(tmp_path / "net.safetensors", arrays)
    module = torch_toy.Residual(num_classes=10, channels=1)
    torch_source.load(module, tmp_path / "net.safetensors")
    np.testing.assert_array_equal(module.head.weight.detach().numpy(), arrays["head.weight"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"head.weight": None}, r"net.pt holds other weights than Residual: missing head.weight; unexpected none"),
        ({"fc.weight": np.ones(3)}, r"missing none; unexpected fc.weight"),
        ({"head.weight": np.ones((7, 8), np.float32)}, r"head.weight has shape \[7, 8\], in Residual \[10, 8\]"),
        ({"head.weight": np.ones((10, 8), np.int8)}, r"head.weight is int8; give floating-point weights"),
    ],
)
def test_other_weights_are_refused_and_the_differences_listed(saved, change, message):
    arrays, write = saved
    path = write({name: array for name, array in {**arrays, **change}.items() if array is not None})
    with pytest.raises(ValueError, match=message):
        torch_source.load(torch_toy.Residual(num_classes=10, channels=1), path)


def test_one_of_several_networks_in_a_file_is_named(saved):
    arrays, write = saved
    module = torch_toy.Residual(num_classes=10, channels=1)
    path = write({f"{word}.{name}": array for word in ("model", "ema") for name, array in arrays.items()})
    with pytest.raises(ValueError, match=r"net.pt: there are 2 networks among the arrays: ema, model\. .*--key=ema"):
        torch_source.load(module, path)
    torch_source.load(module, f"{path}::ema")
    with pytest.raises(ValueError, match=r"2 networks among the arrays: the outermost level, ema"):
        torch_source.load(module, write(arrays | {f"ema.{name}": array for name, array in arrays.items()}))


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_files_without_weights_are_named(tmp_path, suffix):
    pytest.importorskip("safetensors")
    torch_weights.write(tmp_path / f"net{suffix}", {})
    with pytest.raises(ValueError, match="holds no weights"):
        torch_weights.read(tmp_path / f"net{suffix}")


def test_a_file_names_one_set_of_weights(tmp_path):
    assert torch_files.file_and_choice("net.pt::ema", "ema") == (pathlib.Path("net.pt"), "ema")
    assert torch_files.file_and_choice("net.pt", "ema") == (pathlib.Path("net.pt"), "ema")
    with pytest.raises(ValueError, match="--weights names 'ema' and --key 'model'; give one"):
        torch_files.file_and_choice("net.pt::ema", "model")
    flat = {"head.weight": np.ones((2, 3))}
    with pytest.raises(ValueError, match=r"two state dicts have the name 'a\.b'"):
        torch_files.unwrapped({"a.b": flat, "a": {"b": flat}})
