"""Several processes as one run, one per host of a TPU pod slice: start, agreement, and arrays that span them.

All processes run the same program in step. Whatever a process could decide alone (by its clock, its disk, a signal) is
decided together here; only the first one writes. With one process every function is the identity, and costs nothing.
"""

import contextlib
import errno
import os
import pickle
import re
import socket
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from typing import Any, NoReturn

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Sharding

# Seconds that process 0 waits before it exits: its end ends the others, which still have to print their messages.
_LAST = 2.0
# Messages are padded to powers of two from here on, bytes, so that few programs are compiled for them.
_SHORTEST = 1024


def start(
    coordinator: str = "", num_processes: int | None = None, process_id: int | None = None, patience: int = 60
) -> None:
    """Joins the processes of a run, before JAX is used. With nothing given, a single process; on a Cloud TPU its slice.

    Args:
      coordinator: `HOST:PORT` of process 0, or `auto` for what `jax.distributed.initialize` finds (Cloud TPU, Slurm,
        Open MPI, Kubernetes). Default: the environment variable `JAX_COORDINATOR_ADDRESS`, as in JAX.
      num_processes: N, with `HOST:PORT` only.
      process_id: K in [0, N), with `HOST:PORT` only.
      patience: timeout in seconds for processes that do not respond: at the start, during the run and at the end.

    Raises:
      ValueError: arguments that do not fit together. A coordinator that cannot be reached ends the process.
    """
    address = coordinator or os.environ.get("JAX_COORDINATOR_ADDRESS", "")
    _check(coordinator, address, num_processes, process_id, patience)
    detect = coordinator == "auto" or (not address and "tpu" in _platforms())
    if num_processes == 1 or not (address or detect):
        return
    # Requests to stop are agreed on by the training loop; JAX's own service would take the signal away from it.
    jax.config.update("jax_enable_preemption_service", False)
    if not detect and process_id == 0:
        _check_port(address)
    given = {} if detect else {"coordinator_address": address, "num_processes": num_processes, "process_id": process_id}
    with _deadline(patience, f"the processes of the run did not meet at {'the coordinator' if detect else address}"):
        try:
            jax.distributed.initialize(
                **given,
                cluster_detection_method=None if detect else "deactivate",
                # JAX ends the process without a readable message; the deadline here comes first.
                initialization_timeout=patience + 30,
                heartbeat_timeout_seconds=patience,
                shutdown_timeout_seconds=patience,
            )
        except ValueError:
            if address:
                raise
            # A TPU outside of a Cloud TPU VM (a notebook's) is one process, which the check below confirms.
    check_devices()
    check_started()


def check_started() -> None:
    """Refuses devices of several processes that were not joined, as on a slice where detection was not possible.

    Raises:
      ValueError: says how to join them.
    """
    if several() and not jax.distributed.is_initialized():
        raise ValueError(
            f"the devices belong to {jax.process_count()} processes, which were not joined; give each one "
            "--coordinator=HOST:PORT --num_processes=N --process_id=K."
        )


def check_devices() -> None:
    """Refuses platforms that JAX does not find; call it after `start`.

    Raises:
      ValueError: names the platforms that were asked for.
    """
    try:
        jax.devices()
    except (RuntimeError, AssertionError) as error:  # an assertion, where no library of the platform is installed
        reason = (
            re.split(r"\n| \(set JAX_PLATFORMS", str(error))[0].rstrip(".") or "the library for it is not installed"
        )
        raise ValueError(
            f"JAX finds no device for JAX_PLATFORMS={_asked()}: {reason}. "
            "Unset JAX_PLATFORMS for the devices that are there; for a GPU, install jax[cuda13]."
        ) from error


def several() -> bool:
    """Whether the run has more than one process."""
    return jax.process_count() > 1


def first() -> bool:
    """Whether this is the process that writes."""
    return jax.process_index() == 0


def share(value: Any) -> Any:
    """Process 0's value on every process. All of them must call it; the others' values are ignored."""
    return gather(value if first() else None)[0] if several() else value


def gather(value: Any) -> list[Any]:
    """Every process's value, in their order, on every process. All of them must call it. Any picklable value."""
    if not several():
        return [value]
    content = np.frombuffer(pickle.dumps(value), np.uint8)
    # JAX gathers arrays of one shape, so the messages are padded.
    sizes = multihost_utils.process_allgather(np.int32(len(content)))
    padded = np.zeros(max(_SHORTEST, 1 << (int(sizes.max()) - 1).bit_length()), np.uint8)
    padded[: len(content)] = content
    every = multihost_utils.process_allgather(padded)
    return [pickle.loads(part[:size].tobytes()) for part, size in zip(every, sizes, strict=True)]


@contextlib.contextmanager
def all_or_none() -> Iterator[None]:
    """Where a user's mistake, or a disk's, in one process is raised in all. Nothing inside may wait for the others.

    Raises:
      ValueError: in every process, what went wrong in the first of them that failed, with its number.
    """
    if not several():
        yield
        return
    failure: Exception | None = None
    try:
        yield
    # Mistakes of a user or a disk. Any other error is a bug and ends this process with its traceback.
    except (ValueError, OSError, FloatingPointError) as error:
        failure = error
    messages = gather(None if failure is None else str(failure))
    if failed := [number for number, message in enumerate(messages) if message is not None]:
        raise ValueError(f"process {failed[0]} of {len(messages)}: {messages[failed[0]]}") from failure


def check_same(values: Mapping[str, Any], remedy: str) -> None:
    """Refuses processes whose inputs differ.

    Args:
      values: by what they are called in the message.
      remedy: the end of the message.

    Raises:
      ValueError: in every process: names the value, the process that differs, and both values.
    """
    every = gather(dict(values))
    for number, result in enumerate(every):
        for name in every[0] | result:
            there, here = (values.get(name, "nothing") for values in (every[0], result))
            if here != there:
                raise ValueError(
                    f"process {number} of {len(every)} has another {name} than process 0: {here} instead of {there}; "
                    f"{remedy}"
                )


def put(tree: Any, sharding: Sharding) -> Any:
    """Host values, the same in every process, as arrays on all devices of the sharding; each process fills its own."""
    if sharding.is_fully_addressable:
        return jax.device_put(tree, sharding)
    return jax.tree.map(lambda leaf: _put(leaf, sharding), tree)


def fetch(tree: Any) -> Any:
    """Arrays on the host, whole, also where they are divided over processes: then all of them must call it."""
    whole = jax.tree.map(
        lambda leaf: multihost_utils.process_allgather(leaf, tiled=True) if _is_spread(leaf) else leaf, tree
    )
    return jax.device_get(whole)


def spans(leaf: Any) -> bool:
    """Whether an array lies on devices of several processes, so that all of them must work on it together."""
    return isinstance(leaf, jax.Array) and not leaf.is_fully_addressable


def leave(message: str, status: int, program: str = "ltrobust") -> NoReturn:
    """Ends the program with a message. One process of several does not wait for the others, which may wait for it.

    The others end within `patience` seconds. If all end for the same reason, each prints it.
    """
    if not (jax.distributed.is_initialized() and _has_devices() and several()):
        print(f"\n{program}: {message}", file=sys.stderr)
        sys.exit(status)
    print(f"\n{program}, process {jax.process_index()} of {jax.process_count()}: {message}", file=sys.stderr)
    if status == 1:
        print(
            "All processes end. Of a connection that was lost, the cause is in another one's messages.", file=sys.stderr
        )
    sys.stdout.flush()
    sys.stderr.flush()
    if first():
        time.sleep(_LAST)
    os._exit(status)


def _has_devices() -> bool:
    """Whether JAX could start: without devices it cannot even say how many processes there are."""
    try:
        check_devices()
    except ValueError:
        return False
    return True


def _platforms() -> list[str]:
    """The platforms that JAX is set to use; on a Cloud TPU JAX sets them itself unless the user chooses others."""
    return _asked().split(",")


def _asked() -> str:
    """The value of JAX_PLATFORMS in JAX's configuration."""
    return str(jax.config.jax_platforms or "")  # pyright: ignore[reportAttributeAccessIssue]


def _is_spread(leaf: Any) -> bool:
    """Whether no process holds all of an array."""
    return spans(leaf) and not leaf.is_fully_replicated


def _put(leaf: Any, sharding: Sharding) -> jax.Array:
    """One array over several processes, without the comparison of all values that `jax.device_put` makes."""
    if spans(leaf):
        return jax.device_put(leaf, sharding)
    if isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        data = _put(jax.random.key_data(leaf), sharding)
        return jax.random.wrap_key_data(data, impl=jax.random.key_impl(leaf))
    host = np.asarray(leaf)
    host = host.astype(jax.dtypes.canonicalize_dtype(host.dtype), copy=False)
    return jax.make_array_from_callback(host.shape, sharding, lambda index: host[index])


@contextlib.contextmanager
def _deadline(seconds: float, what: str) -> Iterator[None]:
    """Ends the process with a message if the body, which may wait in compiled code, lasts longer."""

    def end() -> None:
        print(
            f"\nltrobust: {what} within {seconds} s; start all of them, with the same --coordinator and "
            "--num_processes and each with its own --process_id, on machines that reach each other's ports. "
            "--patience=SECONDS waits longer.",
            file=sys.stderr,
            flush=True,
        )
        os._exit(1)

    timer = threading.Timer(seconds, end)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _check_port(address: str) -> None:
    """Refuses a port that process 0 cannot listen on; JAX would end the process by a segmentation fault."""
    port = int(address.rpartition(":")[2])
    try:
        socket.create_server(("", port)).close()
    except OSError as error:
        if error.errno in (errno.EADDRINUSE, errno.EACCES):
            raise ValueError(
                f"the coordinator is {address}, but process 0 cannot listen on port {port} "
                f"({os.strerror(error.errno)}); choose another port, the same for all processes."
            ) from error


def _check(coordinator: str, address: str, num_processes: int | None, process_id: int | None, patience: int) -> None:
    """Refuses arguments that do not fit together; see `start`."""
    if patience < 1:
        raise ValueError(f"--patience is {patience}; give a number of seconds, at least 1.")
    given = {"--num_processes": num_processes, "--process_id": process_id}
    if coordinator == "auto":
        if surplus := [name for name, value in given.items() if value is not None]:
            raise ValueError(f"--coordinator=auto finds out {' and '.join(surplus)} itself; leave it out.")
        return
    missing = [name for name, value in given.items() if value is None]
    if (missing and (address or len(missing) == 1)) or (not address and not missing):
        named = "--coordinator" if coordinator else "the environment variable JAX_COORDINATOR_ADDRESS"
        result = [f"{named} is {address}"] * bool(address)
        result += [f"{name} is {value}" for name, value in given.items() if value is not None]
        raise ValueError(
            f"{' and '.join(result)}, but {' and '.join(['--coordinator'] * (not address) + missing)} is missing; "
            "several processes need --coordinator=HOST:PORT, --num_processes=N and --process_id=K, one process none."
        )
    if num_processes is None or process_id is None:
        return
    if num_processes < 1:
        raise ValueError(f"--num_processes is {num_processes}; give the number of processes of the run, at least 1.")
    if not 0 <= process_id < num_processes:
        raise ValueError(
            f"--process_id is {process_id}; {num_processes} processes have the numbers 0 to {num_processes - 1}."
        )
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 1 << 16:
        raise ValueError(f"the coordinator is {address!r}; give HOST:PORT, such as 10.0.0.2:8476.")
