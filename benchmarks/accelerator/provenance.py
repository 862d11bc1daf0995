"""What a result was computed by and on: sources, commit, device, driver, versions, precision."""

import functools
import hashlib
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

from benchmarks.accelerator import ROOT

_SOURCES = ("ltrobust", "configs", "benchmarks")


def sources_digest(root: Path = ROOT) -> str:
    """SHA-256 over the names and contents of the Python files that numbers come from, here as they lie on disk.

    A copy of a working tree may come without its history; this digest tells whether it is the commit's
    (`digest_of_commit`).
    """
    files = {}
    for folder in _SOURCES:
        for path in (root / folder).rglob("*.py"):
            files[path.relative_to(root).as_posix()] = _blob(path.read_bytes())
    return _digest(files)


def digest_of_commit(commit: str, root: Path = ROOT) -> str | None:
    """The same of a commit of the repository at `root`; None where it is not known there."""
    command = ["git", "ls-tree", "-r", commit, "--", *_SOURCES]
    try:
        listing = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return None
    rows = (line.partition("\t") for line in listing.splitlines())
    return _digest({path: about.split()[2] for about, _, path in rows if path.endswith(".py")})


def _blob(content: bytes) -> str:
    """Git's name of a file's content."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def _digest(files: dict[str, str]) -> str:
    return hashlib.sha256("".join(f"{path} {name}\n" for path, name in sorted(files.items())).encode()).hexdigest()


def device() -> dict[str, Any]:
    """The first device: kind, number, memory in GiB, driver. JAX decides what it is."""
    import jax

    first = jax.devices()[0]
    stats = first.memory_stats() or {}
    limit = stats.get("bytes_limit")
    return {
        "kind": first.device_kind,
        "platform": first.platform,
        "number": jax.device_count(),
        "memory_gib": round(limit / 2**30, 1) if limit else None,
        "driver": nvidia("driver_version"),
        "name": nvidia("name"),
        "memory_total": nvidia("memory.total"),
    }


@functools.cache
def nvidia(field: str) -> str | None:
    """What nvidia-smi says of the first GPU; None without one."""
    if shutil.which("nvidia-smi") is None:
        return None
    command = ["nvidia-smi", f"--query-gpu={field}", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)
    except subprocess.TimeoutExpired:
        return None
    lines = done.stdout.strip().splitlines()
    return lines[0] if not done.returncode and lines else None


def numerics() -> dict[str, Any]:
    """Flags that float results depend on."""
    import jax

    return {
        "default_matmul_precision": str(jax.config.values["jax_default_matmul_precision"] or "backend default"),
        "prng": str(jax.config.values["jax_default_prng_impl"]),
        "x64": bool(jax.config.values["jax_enable_x64"]),
        "xla_flags": os.environ.get("XLA_FLAGS", ""),
        "nvidia_tf32_override": os.environ.get("NVIDIA_TF32_OVERRIDE", ""),
    }
