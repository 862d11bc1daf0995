"""Superclasses: groups of classes of a data set, by class names.

TFDS's records carry CIFAR-100's coarse labels, but the decoded images that are kept, and stores of verdicts, know fine
classes only; a table by name serves both.
"""

from collections.abc import Sequence

import numpy as np

# The 20 superclasses of CIFAR-100 (Krizhevsky 2009), in alphabetical order, with their five classes as TFDS names them.
CIFAR100 = {
    "aquatic_mammals": ("beaver", "dolphin", "otter", "seal", "whale"),
    "fish": ("aquarium_fish", "flatfish", "ray", "shark", "trout"),
    "flowers": ("orchid", "poppy", "rose", "sunflower", "tulip"),
    "food_containers": ("bottle", "bowl", "can", "cup", "plate"),
    "fruit_and_vegetables": ("apple", "mushroom", "orange", "pear", "sweet_pepper"),
    "household_electrical_devices": ("clock", "keyboard", "lamp", "telephone", "television"),
    "household_furniture": ("bed", "chair", "couch", "table", "wardrobe"),
    "insects": ("bee", "beetle", "butterfly", "caterpillar", "cockroach"),
    "large_carnivores": ("bear", "leopard", "lion", "tiger", "wolf"),
    "large_man-made_outdoor_things": ("bridge", "castle", "house", "road", "skyscraper"),
    "large_natural_outdoor_scenes": ("cloud", "forest", "mountain", "plain", "sea"),
    "large_omnivores_and_herbivores": ("camel", "cattle", "chimpanzee", "elephant", "kangaroo"),
    "medium_mammals": ("fox", "porcupine", "possum", "raccoon", "skunk"),
    "non-insect_invertebrates": ("crab", "lobster", "snail", "spider", "worm"),
    "people": ("baby", "boy", "girl", "man", "woman"),
    "reptiles": ("crocodile", "dinosaur", "lizard", "snake", "turtle"),
    "small_mammals": ("hamster", "mouse", "rabbit", "shrew", "squirrel"),
    "trees": ("maple_tree", "oak_tree", "palm_tree", "pine_tree", "willow_tree"),
    "vehicles_1": ("bicycle", "bus", "motorcycle", "pickup_truck", "train"),
    "vehicles_2": ("lawn_mower", "rocket", "streetcar", "tank", "tractor"),
}


def of(class_names: Sequence[str]) -> tuple[tuple[str, ...], np.ndarray] | None:
    """Names of the superclasses, and each class's superclass, int64 [C]; None where the classes are not CIFAR-100's."""
    places = {name: index for index, members in enumerate(CIFAR100.values()) for name in members}
    if set(class_names) != places.keys() or len(class_names) != len(places):
        return None
    return tuple(CIFAR100), np.array([places[name] for name in class_names], np.int64)
