"""A folder of your own images, DIR/train/CLASS/IMAGE and DIR/test/CLASS/IMAGE (or val), as long-tailed as it is.

python main.py --config=configs/folder.py --workdir=runs/mine --config.data.dir=DIR

Images are resized to 32x32 (`data.image_size`). Made for a GPU or TPU, like `cifar10.py`; on a CPU begin with
--config.model.name=small_resnet and few epochs. `data.imbalance_ratio` above 0 trains on a long-tailed subset.
"""

from typing import Any

from ml_collections import ConfigDict

from configs import default


def get_config() -> ConfigDict:
    config: Any = default.get_config()
    config.data.name = "folder"
    config.data.imbalance_ratio = 0.0
    return config
