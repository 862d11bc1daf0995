"""Networks as files for other programs: PyTorch state dicts, safetensors, StableHLO."""

import os
import warnings
from pathlib import Path
from typing import Any

import jax
import jax.export
import jax.numpy as jnp

from ltrobust.methods import DecisionRule, Teacher
from ltrobust.models import Head, torch_files, torch_weights
from ltrobust.runtime.names import nearest
from ltrobust.training.saved import Restored

# What can be written -> the name of the file, whose suffix others must have too.
FILES = {
    "torch": "model.pt",
    "safetensors": "model.safetensors",
    "stablehlo": "model.stablehlo",
    "model-card": "README.md",  # as hubs read it
}
_PLATFORMS = ("cpu", "cuda", "tpu")


def target(workdir: Path, to: str, network: str, out: str | os.PathLike[str] | None) -> Path:
    """The file to write: `out`, or one in `exports/` of the run.

    Raises:
      ValueError: an unknown kind of file, or a suffix that it does not have.
      FileExistsError: the file exists.
    """
    if to not in FILES:
        raise ValueError(f"to is {to!r}; {nearest(to, FILES)}known: {', '.join(FILES)}.")
    suffixes = (".pt", ".pth") if to == "torch" else (Path(FILES[to]).suffix,)
    path = workdir / "exports" / network.replace("/", "-") / FILES[to] if out is None else Path(out)
    if path.suffix not in suffixes:
        raise ValueError(f"out is {path}; {to} files end in {' or '.join(suffixes)}.")
    if path.exists() or path.is_symlink():
        raise FileExistsError(f"{path} exists; nothing is overwritten, so give another file as out.")
    return path


def content(to: str, found: Restored) -> bytes:
    """The bytes of a file.

    Args:
      to: `torch`, `safetensors` or `stablehlo`.
      found: the network.

    Raises:
      ValueError: a network that a state dict cannot hold, or a library that is missing.
    """
    if to == "stablehlo":
        return stablehlo(found)
    method, model = found.saved.method, found.saved.model
    if method.head != Head() or found.saved.rule != DecisionRule():
        raise ValueError(
            f"the network was trained by {method.name}, whose head or rule for test logits no state dict holds; export "
            "it with --to=stablehlo."
        )
    try:
        tensors = torch_weights.to_torch(found.weights.params, found.weights.batch_stats, model.name)
    except ValueError as error:
        raise ValueError(f"{error}. Export this network with --to=stablehlo.") from error
    return torch_files.content(tensors, Path(FILES[to]).suffix)


def stablehlo(found: Restored) -> bytes:
    """The logits function with its weights, for CPUs, GPUs and TPUs: `jax.export.deserialize(...).call(images)`.

    It takes float32 images [B,H,W,C] in [0,1], computes in float32 at highest matmul precision, as verdicts are taken,
    and can be differentiated once. B is free; for a network that JAX cannot trace so it is 1, with a warning.

    Raises:
      ValueError: flatbuffers, which JAX needs for such files, is missing.
    """
    torch_files.optional("flatbuffers", extra="stablehlo")
    there, shape = found.saved, found.saved.metadata.image_shape
    # Not the CPU's own convolutions: this is the form that all platforms have.
    module = there.model.create(there.num_classes, head=there.method.head, exact=True, platform="tpu")
    network = Teacher(module, found.weights.params, found.weights.batch_stats, there.rule)
    function = jax.jit(network.logits)

    def export(batch: Any) -> jax.export.Exported:
        images = jax.ShapeDtypeStruct((batch, *shape), jnp.float32)
        with jax.default_matmul_precision("highest"):
            return jax.export.export(function, platforms=_PLATFORMS)(images)

    try:
        exported = export(jax.export.symbolic_shape("batch")[0])
    except Exception as error:  # networks of users may do anything with the length of a batch
        reason = f"{type(error).__name__}: {error}".split("\n")[0]
        warnings.warn(f"the file takes one image at a time, because its batch cannot stay open: {reason}", stacklevel=2)
        exported = export(1)
    return bytes(exported.serialize(vjp_order=1))
