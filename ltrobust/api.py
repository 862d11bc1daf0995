"""Whole runs from Python: `ltrobust.train`, `open_run` and `Run`."""

import dataclasses
import os
import warnings
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
from ml_collections import ConfigDict

from ltrobust import exporter, models, run
from ltrobust.analysis import recorded, results
from ltrobust.analysis.evaluated_networks import in_order
from ltrobust.analysis.evaluation import Evaluation
from ltrobust.analysis.schema.card import Card
from ltrobust.analysis.schema.network import NetworkResult
from ltrobust.methods import Teacher
from ltrobust.models import external
from ltrobust.report import model_card
from ltrobust.runtime.files import read_json, write_bytes
from ltrobust.runtime.names import nearest
from ltrobust.runtime.preemption import Preemption
from ltrobust.runtime.workdir import check_values, is_run, with_tuples
from ltrobust.training import networks, saved

# A network of the user: a module, its class, or a function that returns it.
Network = nn.Module | Callable[..., nn.Module]


def train(
    config: ConfigDict, workdir: str | os.PathLike[str], *, model: Network | None = None, adopt: bool = False
) -> "Run":
    """Trains and evaluates the networks of a configuration, and writes the result card.

    The same call in the same folder resumes an interrupted run and skips what is finished. The folder is locked while
    the call works. SIGTERM and Ctrl-C save a checkpoint first. `config` is not changed.

    A `model` is recorded by the name of its class or function, with its settings as `model.NAME.FIELD`; a later call
    with other settings is refused. The folder stores no code: in another process, give the same `model` to this
    function and to `open_run`. Commands load it by `--code=FILE.py` (docs/guides/networks.md).

    Args:
      config: from `ltrobust.config`, with your changes.
      workdir: folder of the run; created if missing.
      model: a network to use instead of `config.model.name`: a Flax module, its class, or a function that returns one.
        docs/guides/networks.md describes the contract.
      adopt: accept a folder that holds other files already.

    Returns:
      The run in `workdir`.

    Raises:
      ValueError: not a ConfigDict, an unknown key, an invalid setting, a folder that is in use or belongs to another
        run, or a network that cannot be trained or recorded.
      FloatingPointError: a loss or update that is not finite.
      ltrobust.runtime.preemption.Preempted: the process was asked to stop; finished work is saved.

    Example:
      >>> import ltrobust as lt
      >>> config = lt.config("digits")
      >>> config.student.method, config.student.epochs = "pgd_at", 5
      >>> run = lt.train(config, "runs/example")  # doctest: +SKIP
      >>> print(run.evaluation("student/last").summary())  # doctest: +SKIP
    """
    if model is not None:
        config = with_model(config, model)
    with Preemption().listening() as preemption:
        run.train(config, Path(workdir), preemption, adopt=adopt)
    return Run(Path(workdir))


def open_run(workdir: str | os.PathLike[str], *, model: Network | None = None) -> "Run":
    """Opens the run in a folder, finished or not.

    Args:
      workdir: folder of the run.
      model: the `model` that `train` was given, if this process has not registered it. Only `Run.logits_fn` uses it.

    Returns:
      The run in `workdir`.

    Raises:
      ValueError: the folder holds no run, or a run of another network.

    Example:
      >>> import ltrobust as lt
      >>> run = lt.open_run("runs/example")  # doctest: +SKIP
      >>> run.card.networks["student/last"].columns["pgd20"].balanced.value  # doctest: +SKIP
    """
    path = Path(workdir)
    if not is_run(path):
        raise ValueError(f"{path} is not a run: it has no config.json of one. Give the workdir of a run.")
    if model is not None:
        there = read_json(path / "config.json")["model"]
        name, here = _register(model), record_fields(model)
        known = {key: with_tuples(value) for key, value in there.get(name, {}).items()}
        changed = [key for key in here if here[key] != known.get(key)]
        if there["name"] != name or changed:
            differences = "".join(f", with {key} {known.get(key)!r} instead of {here[key]!r}" for key in changed)
            raise ValueError(f"{path} is a run of the network {there['name']}{differences}; model is {name}.")
    return Run(path)


@dataclasses.dataclass(frozen=True)
class Run:
    """A run on disk, with its result cards, evaluations and networks. Returned by `train` and `open_run`.

    Networks are named `student/last`, `student/selected`, `student/averaged`, and likewise `teacher/...`; a run has
    those that it trained.

    Attributes:
      workdir: folder of the run.
    """

    workdir: Path

    @property
    def cards(self) -> dict[str, Card]:
        """Result cards by file name without `.json`, oldest first; docs/card.schema.json describes their fields.

        Raises:
          ValueError: a card that is damaged, was edited, or belongs to another run or version.
        """
        result = {path: results.read_card(path) for path in sorted((self.workdir / "results").glob("*.json"))}
        return {path.stem: card for path, card in results.in_order_of_age(result).items()}

    @property
    def card(self) -> Card:
        """The newest result card.

        Raises:
          ValueError: the run has no card yet; or as `cards`.
        """
        result = self.cards
        if not result:
            raise ValueError(f"{self.workdir} has no result card yet; train to the end, or evaluate.")
        return list(result.values())[-1]

    @property
    def networks(self) -> tuple[str, ...]:
        """Names of the evaluated networks, teacher before student."""
        return tuple(in_order(list({name: None for card in self.cards.values() for name in card.networks})))

    def evaluation(self, network: str = "student/last", *, protocol: str = "") -> Evaluation:
        """Reads the evaluation of a network from its verdicts on disk.

        Args:
          network: one of `networks`.
          protocol: name of the protocol; default: the one with the most images, then the most attacks.

        Returns:
          Verdicts on all N evaluated images.

        Raises:
          ValueError: there is no such evaluation; or its files are damaged, or of another version.
        """
        described = self._described(network, protocol)
        if described is None:
            under = f" under the protocol {protocol}" if protocol else ""
            raise ValueError(
                f"{self.workdir} has no evaluation of {network!r}{under}; {nearest(network, self.networks)}"
                f"evaluated networks: {', '.join(self.networks) or 'none yet'}."
            )
        provenance, verdicts = results.read_store(self.workdir, described)
        return recorded.evaluation(provenance, verdicts, described.sanity)

    def logits_fn(self, network: str = "student/last", *, exact: bool = True) -> Callable[[jax.Array], jax.Array]:
        """Restores a network from the newest checkpoint as a function from images to logits.

        Args:
          network: one of `networks`.
          exact: compute in float32, as verdicts do; False: in the run's `model.dtype`.

        Returns:
          A pure function from float32 images [B,H,W,C] in [0,1] to float32 logits [B,K]; images do not influence each
          other. It includes the method's test-time rule, and works with `ltrobust.evaluate`, `ltrobust.attacks` and
          `jax.jit`.

        Raises:
          ValueError: no such network; the code of the network or method is not registered in this process (give the
            network to `open_run`, import the file of the method); or the code differs from what was trained.
          FileNotFoundError: there is no complete checkpoint.

        Warns:
          UserWarning: `evaluation(network)` was made with other weights.
        """
        result = self._restored(network, exact=exact)
        weights = result.weights
        return Teacher(result.module, weights.params, weights.batch_stats, result.saved.rule).logits

    def export(self, to: str, network: str = "student/last", *, out: str | os.PathLike[str] | None = None) -> Path:
        """Writes a network, or its model card, to a new file; returns the path.

        | to | file |
        |---|---|
        | torch | PyTorch state dict, read by `torch.load(weights_only=True)`; needs PyTorch |
        | safetensors | the same arrays under the same names |
        | stablehlo | logits function with its weights and its gradient, read by `jax.export.deserialize` |
        | model-card | Markdown with YAML front matter, from the run's result cards |

        Names of arrays are the usual ones of PyTorch code (`ltrobust.models.torch_weights`).

        Args:
          to: what is written.
          network: one of `networks`.
          out: the file, which must not exist; default: in `exports/` of the workdir.

        Raises:
          ValueError: an unknown `to` or network, a network that a state dict cannot hold, a suffix that does not fit,
            or a library that is missing.
          FileExistsError: the file exists.

        Warns:
          UserWarning: `evaluation(network)` is of other weights.
        """
        path = exporter.target(self.workdir, to, network, out)
        if to == "model-card":
            content = model_card.render(self.workdir, network).encode()
        else:
            content = exporter.content(to, self._restored(network))
        path.parent.mkdir(parents=True, exist_ok=True)
        write_bytes(path, content, new=True)
        return path

    def _restored(self, network: str, *, exact: bool = True) -> saved.Restored:
        """A network from the newest checkpoint; warns if it was trained further since it was evaluated."""
        result = saved.open_network(self.workdir, network, exact=exact)
        if described := self._described(network):
            fingerprints = networks.fingerprints_of(result.weights)
            if any(getattr(described, key) != value for key, value in fingerprints.items()):
                warnings.warn(
                    f"{network} of {self.workdir} has been trained further since it was evaluated; evaluate it again.",
                    stacklevel=3,
                )
        return result

    def _described(self, network: str, protocol: str = "") -> NetworkResult | None:
        """The card's part on a network in its weightiest evaluation, under the protocol if one is named."""
        missing: dict[str, list[str]] = defaultdict(list)
        result = (each for each in results.evaluations(self.workdir, missing) if network in each.networks)
        return next((each.networks[network] for each in result if protocol in ("", each.card.protocol.name)), None)


def with_model(config: ConfigDict, model: Network) -> ConfigDict:
    """A copy of the configuration that names the network, with its settings."""
    check_values(config)
    name = _register(model)
    result: Any = config.copy_and_resolve_references()
    given = result.model[name].to_dict() if name in result.model else {}
    settings = external.settings(external.REGISTERED[name]) | given | record_fields(model)
    with result.unlocked():
        result.model.name = name
        if settings:
            result.model[name] = ConfigDict(settings)
    return result


def _register(model: Network) -> str:
    """Makes a network known under its own name, and returns that.

    Raises:
      ValueError: it is not a network, has no name, or is one of the package; or see `models.register`.
    """
    network = type(model) if isinstance(model, nn.Module) else model
    if isinstance(model, str) or not callable(network) or not hasattr(network, "__name__"):
        raise ValueError(f"model is {model!r}; give a Flax module, its class, or a function that returns one.")
    if network.__module__.startswith("ltrobust.models."):
        raise ValueError(f"model is a network of this package, {network.__name__}; set config.model.name instead.")
    name = next((name for name, known in external.REGISTERED.items() if known is network), "")
    if not name:
        models.register(network)
        name = network.__name__
    return name


def record_fields(module: Network) -> dict[str, Any]:
    """The values of a module's fields that are settings; empty for a class or function.

    Raises:
      ValueError: another field has not its default, so that the module cannot be recorded; or the package sets it.
    """
    if not isinstance(module, nn.Module):
        return {}
    for name, default in external.set_here(type(module)).items():
        value = getattr(module, name)
        if value is not default and value != default:
            raise ValueError(
                f"field {name} of {type(module).__name__} is {value!r}, but the package sets it, from "
                f"{external.SET_HERE[name]}; leave it at its default, {default!r}."
            )
    for name, default in external.other_fields(type(module)).items():
        if getattr(module, name) is not default:
            raise ValueError(
                f"field {name} of {type(module).__name__} is {getattr(module, name)!r}, which a configuration cannot "
                "hold; give a function that returns the module."
            )
    return {name: with_tuples(getattr(module, name)) for name in external.settings(type(module))}
