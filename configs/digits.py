"""Handwritten digits (8x8, scikit-learn's copy): both phases and evaluations in a few minutes on two CPU cores.

python main.py --config=configs/digits.py --workdir=runs/digits

Numbers over seeds 0 to 4, from the cards in results/digits/: docs/results/digits.md.
"""

from typing import Any

from ml_collections import ConfigDict

from configs import default


def get_config() -> ConfigDict:
    config: Any = default.get_config()
    config.data.name = "digits"
    config.data.imbalance_ratio = 10.0
    # Strokes are thick and images small: at 8/255 almost nothing is adversarial.
    config.threat.radius = 32.0
    config.model.name = "small_resnet"
    config.model.width = 16
    for phase in (config.teacher, config.student):
        phase.batch_size = 64
        phase.attack.step_size = 8.0
        phase.augmentation.crop_padding = 1
        phase.augmentation.flip = False  # a mirrored digit is another sign
        phase.optimizer.learning_rate = 0.05
        # The committed cards have selected weights. Rare digits have 2 validation images: last weights are better.
        phase.selection_floor = 0
    config.teacher.epochs = 60
    config.student.epochs = 100
    config.eval.batch_size = 256
    student = ("student/last",)
    config.eval.also = (
        # As many images as fill one batch of AutoAttack on a CPU.
        {"eval.protocol": "standard", "eval.limit": 6, "eval.networks": student},
        {"eval.protocol": "quick", "threat.radius": 16.0, "eval.networks": student},
        {"eval.protocol": "quick", "threat.radius": 48.0, "eval.networks": student},
    )
    return config
