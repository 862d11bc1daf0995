"""Chooses the adversarial images that a run keeps for the pictures of its page if it does not keep all."""

import numpy as np

from ltrobust.analysis import metrics

# Enough images that some survive and some break in most runs, and few enough to need little disk space.
_IMAGES, _CLASSES, _BYTES = 8, 4, 4 << 20


def choose(labels: np.ndarray, ids: np.ndarray, class_counts: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Ids of a small sample of images: the lowest ids of classes in the middle of head, middle and tail, ascending.

    At most 4 classes of each third of the classes, and 8 images of each; fewer where those of an attack would take
    more than 4 MiB, but one of each class.

    Args:
      labels: [N], of the evaluated images.
      ids: [N], of the same images.
      class_counts: [C], training images.
      shape: of an image, [H,W,C].
    """
    thirds = metrics.groups(class_counts)
    classes = []
    for name in ("head_third", "medium_third", "tail_third"):
        members = thirds[name][np.argsort(-class_counts[thirds[name]], kind="stable")]
        first = max(0, (len(members) - _CLASSES) // 2)
        classes.extend(members[first : first + _CLASSES])
    size = 4 * int(np.prod(shape))  # float32
    each = int(np.clip(_BYTES // (size * max(len(classes), 1)), 1, _IMAGES))
    chosen = [np.sort(ids[labels == label])[:each] for label in classes]
    return np.sort(np.concatenate([np.zeros(0, int), *chosen]))
