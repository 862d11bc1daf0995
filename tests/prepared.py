"""Prepared TFDS folders with invented examples."""

import io
import pathlib

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image
from tensorflow_datasets.core import registered


def png(pixels: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def prepare(
    name: str, features: dict, examples: list[dict], data_dir: pathlib.Path, file_format: str, version: str = ""
) -> None:
    """Puts a few `test` examples where TFDS would put the real set, whose own builder needs TensorFlow."""
    number = tfds.core.Version(version) if version else tfds.builder_cls(name).VERSION
    with registered.skip_registration():
        Fake = type(
            name,
            (tfds.core.GeneratorBasedBuilder,),
            {
                "name": name,
                "VERSION": number,
                "_info": lambda self: tfds.core.DatasetInfo(
                    builder=self, features=tfds.features.FeaturesDict(features)
                ),
                "_split_generators": lambda self, dl_manager: {"test": enumerate(examples)},
                "_generate_examples": lambda self: iter(()),
            },
        )
    Fake(data_dir=str(data_dir), file_format=file_format).download_and_prepare()
