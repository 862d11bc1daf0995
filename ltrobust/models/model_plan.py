"""A network as a configuration describes it."""

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

import flax.linen as nn

from ltrobust import models


@dataclasses.dataclass(frozen=True)
class ModelPlan:
    """A network, except for what data and method decide. Attributes are keys of `model`; see `models.create`.

    `options` are the settings of a registered network, `model.NAME.*`.
    """

    name: str
    width: int
    depth: int
    stem_stride: int
    activation: str
    dtype: str
    sync_batch_norm: bool
    options: Mapping[str, Any]
    remat: bool = False

    def create(
        self,
        num_classes: int,
        *,
        head: models.Head,
        sync_axis: str | None = None,
        exact: bool = False,
        platform: str | None = None,
        training: bool = False,
    ) -> nn.Module:
        """The network with its method's head; with `exact` it computes in float32, whatever `dtype` is.

        Only for `training` does `remat` count: an evaluation may have smaller batches, and its programs stay the same.
        """
        return models.create(
            self.name,
            num_classes=num_classes,
            dtype="float32" if exact else self.dtype,
            sync_axis=sync_axis,
            width=self.width,
            depth=self.depth,
            stem_stride=self.stem_stride,
            head=head,
            activation=self.activation,
            options=self.options,
            platform=platform,
            remat=training and self.remat,
        )

    def describe(self) -> dict[str, Any]:
        """The keys of `model` that the network depends on, as JSON; not those of other registered networks."""
        result = {field.name: getattr(self, field.name) for field in dataclasses.fields(self) if field.name != "remat"}
        options = result.pop("options")
        return json.loads(json.dumps(result | ({self.name: options} if options else {})))


def make_model_plan(model: Mapping[str, Any]) -> ModelPlan:
    """The network of `model` in a configuration, or as a checkpoint records it."""
    known = {field.name for field in dataclasses.fields(ModelPlan)}
    result: dict[str, Any] = {key: value for key, value in model.items() if key in known}
    return ModelPlan(**result | {"options": model.get(model["name"], {})})
