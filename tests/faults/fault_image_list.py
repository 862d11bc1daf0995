"""Faults of image lists and of the files that they name."""

import re
import warnings

import listed
from injection import TINY, Place, Reported, fault

from ltrobust.data import sources
from ltrobust.data.image_list import Lists
from ltrobust.data.images import UnreadableImage

SKIP = ("Mend", "--config.data.skip_unreadable=True", "new workdir")


def own_list(place: Place) -> list[str]:
    """Flags of an image list: three classes, with four training images and two test images each."""
    listed.write(place.folder, train=[4, 4, 4], test=[2, 2, 2])
    keys = ("name=image_list", f"dir={place.folder}", "lists.train=train.txt", "lists.test=test.txt", "image_size=8")
    return [f"--config.data.{key}" for key in keys]


def refused(place: Place, file: str, pattern: str, replacement: str) -> Reported:
    """What a run says of a list that was changed."""
    flags = own_list(place)
    text, count = re.subn(pattern, replacement, (place.folder / file).read_text())
    assert count
    (place.folder / file).write_text(text)
    return place.refused(*TINY, *flags)


def opened(place: Place, **options) -> sources.Split:
    lists = Lists(train="train.txt", test="test.txt")
    return sources.load("image_list", "train", data_dir=place.folder, image_size=8, lists=lists, **options)


@fault(
    "image list that is not given",
    "`--config.data.name=image_list` alone",
    value="data.lists.train is empty",
    allowed="a line 'PATH LABEL' for each image",
    remedy="--config.data.lists.train=FILE",
)
def no_list(place: Place) -> Reported:
    return place.refused(*TINY, "--config.data.name=image_list", "--config.data.image_size=8")


@fault(
    "image list of files that are not there",
    "`data.dir` is not the folder that the paths start from",
    value=("12 of the 12 images of DIR/train.txt", "data.dir DIR/train", "and 7 more"),
    remedy="Give the folder that the paths start from",
)
def missing_files(place: Place) -> Reported:
    flags = [flag for flag in own_list(place) if "data.dir" not in flag]
    flags += [f"--config.data.lists.{part}={place.folder / part}.txt" for part in ("train", "test")]
    return place.refused(*TINY, *flags, f"--config.data.dir={place.folder / 'train'}")


@fault(
    "line of an image list without a label",
    "`PATH` in place of `PATH LABEL`",
    value="test.txt, line 1",
    allowed="a path, a space and a label, which is a number from 0",
    remedy="",
)
def no_label(place: Place) -> Reported:
    return refused(place, "test.txt", r"\A(.*) \d\n", r"\1\n")


@fault(
    "label out of range",
    "a test image of class 7, where the training list has classes 0 to 2",
    value=("test.txt", "label 7"),
    allowed="0 to 2",
    remedy="correct one of them",
)
def label_out_of_range(place: Place) -> Reported:
    return refused(place, "test.txt", r"\A(.*) \d\n", r"\1 7\n")


@fault(
    "class without images in a training list",
    "labels 0 and 2 only",
    value=("train.txt", "1 of 3 classes: 1"),
    allowed="Every class needs training images",
    remedy="number classes from 0 without gaps",
)
def empty_class(place: Place) -> Reported:
    return refused(place, "train.txt", r"(?m)^.* 1\n", "")


@fault(
    "image list without lines",
    "`train.txt` is empty",
    value="DIR/train.txt has no line",
    allowed="a line 'PATH LABEL' for each image",
    remedy="",
)
def empty_list(place: Place) -> Reported:
    return refused(place, "train.txt", r"(?s)\A.*\Z", "")


@fault(
    "image twice in a list",
    "the first line once more at the end",
    value=("train.txt, line 13", "as line 1 does"),
    remedy="remove one of them",
)
def twice(place: Place) -> Reported:
    return refused(place, "train.txt", r"(?s)\A(.*?\n)(.*)\Z", r"\1\2\1")


@fault(
    "training image in the test list",
    "two lines of `train.txt` in `test.txt`",
    value=("2 images", "data.lists.train DIR/train.txt", "data.lists.test DIR/test.txt", "train/n0/000.jpg"),
    remedy="Remove them from one of the lists",
)
def shared(place: Place) -> Reported:
    return refused(place, "test.txt", r"\A", "train/n0/000.jpg 0\ntrain/n0/001.png 0\n")


@fault(
    "corrupt JPEG of an image list",
    "one file is cut off; it is found when a batch needs it",
    value=("1 of 12 images", "train/n1/002.jpg", "Truncated"),
    remedy=SKIP,
)
def corrupt(place: Place) -> Reported:
    own_list(place)
    listed.truncate(place.folder / "train/n1/002.jpg")
    return place.raised(UnreadableImage, lambda: opened(place).images[:])


@fault(
    "corrupt JPEG that may be skipped",
    "the same, with `--config.data.skip_unreadable=True`: all files are decoded at every start",
    value=("1 file skipped, unreadable", "train/n1/002.jpg", "Truncated"),
    remedy="",
)
def skipped(place: Place) -> Reported:
    own_list(place)
    listed.truncate(place.folder / "train/n1/002.jpg")
    with warnings.catch_warnings(action="ignore"):
        result = opened(place, skip_unreadable=True)
    assert result.files["used"] == [4, 3, 4]
    return Reported("continues; warned, and the terminal and the card have the counts", "; ".join(result.notes))


@fault(
    "random resized crop of decoded images",
    "`--config.student.augmentation.policy=random_resized_crop` with digits",
    value="augmentation.policy is 'random_resized_crop'",
    remedy=("data.name=image_list", "the policy base"),
)
def nothing_to_crop(place: Place) -> Reported:
    return place.refused(*TINY, "--config.student.augmentation.policy=random_resized_crop")
