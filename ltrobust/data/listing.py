"""Which files of a folder of class directories are images of which class, by their names alone."""

import dataclasses
import pathlib
from collections.abc import Sequence

SUFFIXES = (".bmp", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
# Split -> names of its folder, the first one that is there.
FOLDERS = {"train": ("train",), "test": ("test", "val")}
EXPECTED = "expected are train/CLASS/IMAGE and test/CLASS/IMAGE (or val), with the same classes in both"

# How many files a message names.
_NAMED = 5


@dataclasses.dataclass(frozen=True)
class Listing:
    """The files of one split: where it lies, its classes in label order, and of each class the images in order.

    `others` are files in class directories that are no images by their suffix.
    """

    folder: pathlib.Path
    images: dict[str, tuple[pathlib.Path, ...]]
    others: tuple[pathlib.Path, ...]

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader of results must know."""
        if not self.others:
            return ()
        return (f"{len(self.others)} files were passed over, as they are no images by suffix: {some(self.others)}",)


def read(folder: pathlib.Path) -> Listing:
    """Names only; what begins with a dot is passed over."""
    classes = sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    if not classes:
        raise ValueError(f"{folder} has no class directories; {EXPECTED}.")
    images, others = {}, []
    for directory in classes:
        files = sorted(path for path in directory.rglob("*") if path.is_file() and not path.name.startswith("."))
        images[directory.name] = tuple(file for file in files if file.suffix.lower() in SUFFIXES)
        others += [file for file in files if file.suffix.lower() not in SUFFIXES]
    return Listing(folder, images, tuple(others))


def check_classes(listings: dict[str, Listing]) -> None:
    """The same classes in both splits, none of them empty."""
    train, test = listings["train"], listings["test"]
    if set(train.images) != set(test.images):
        only = [
            f"only in {one.folder}: {', '.join(sorted(set(one.images) - set(other.images))) or 'none'}"
            for one, other in ((train, test), (test, train))
        ]
        raise ValueError(f"the classes of data.dir's splits differ ({'; '.join(only)}); {EXPECTED}.")
    for listing in listings.values():
        for name, images in listing.images.items():
            if not images:
                raise ValueError(
                    f"class {name} has no image in {listing.folder / name} (images end in {', '.join(SUFFIXES)}); "
                    "put some there, or remove the class from both splits."
                )


def some(things: Sequence[object]) -> str:
    """The first few, and how many more there are."""
    more = f" and {len(things) - _NAMED} more" if len(things) > _NAMED else ""
    return ", ".join(map(str, things[:_NAMED])) + more
