"""Prints where a data set is published: addresses, sizes, checksums, terms, and where to put the files.

    ltrobust data                        the names of all data sets
    ltrobust data cifar10                what to download for one of them
    ltrobust data cifar10 --dir=DIR      also which of its files are in DIR, and whether they are the published ones
    ltrobust data image_list --dir=DIR --check=LIST   decodes all images of a list, and names those that cannot be read

Nothing is downloaded.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

from ltrobust.commands.parser import Parser, UsageError
from ltrobust.data import archives, image_list, listing, published, sources
from ltrobust.runtime.names import nearest

_OTHERS = {
    "digits": "digits: 8x8 digits, bundled with scikit-learn; nothing to download.",
    "folder": f"folder: your own images. In data.dir {listing.EXPECTED}.",
    "image_list": (
        "image_list: your own images, decoded when they are needed. data.lists.train, data.lists.test and, if there is "
        f"one, data.lists.validation name {image_list.EXPECTED}; paths start from data.dir."
    ),
}


def main(arguments: Sequence[str], program: str) -> None:
    """Prints the description.

    Raises:
      ValueError: a folder that does not exist.
      UsageError: an unknown data set, or `--check` without a file, or for another than an image list.
      SystemExit: `--check` found images that cannot be read.
    """
    parser = Parser(program, __doc__)
    parser.add_argument("name", nargs="?", default="", metavar="NAME", help="data set; without it all are listed")
    parser.add_argument("--dir", default="", metavar="DIR", help="folder to look into for its files")
    parser.add_argument("--check", metavar="LIST", help="of an image_list: decode all of its images")
    given = parser.parse_args(arguments)
    if given.name and given.name not in sources.NAMES:
        raise UsageError(
            f"there is no data set {given.name!r}; {nearest(given.name, sources.NAMES)}"
            f"data sets: {', '.join(sources.NAMES)}."
        )
    if given.dir and not Path(given.dir).expanduser().is_dir():
        raise ValueError(f"--dir={given.dir} is not a folder that exists; give the folder of the files.")
    if given.check is None:
        print(describe(given.name, given.dir) if given.name else "\n".join(sources.NAMES))
        return
    if given.name != "image_list":
        raise UsageError("--check is for image lists; give ltrobust data image_list --dir=DIR --check=LIST.")
    if not given.check:
        raise UsageError("--check names no file; give the text file of an image list.")
    _check(given.check, given.dir)


def _check(file: str, folder: str) -> None:
    """Names the images of a list that cannot be read; ends with status 1 where there are some."""
    problems = image_list.unreadable(file, folder)
    count = "1 image" if len(problems) == 1 else f"{len(problems)} images"
    print("\n".join([*problems, f"{count} of {file} cannot be read."]))
    if problems:
        raise SystemExit(1)


def describe(name: str, folder: str = "") -> str:
    """Describes the files of a data set, one fact per line.

    Args:
      name: one of `sources.NAMES`.
      folder: where to look for the files; empty for nowhere.
    """
    if name in _OTHERS:
        return _OTHERS[name]
    data = published.DATA[name]
    lines = [name, f"  page      {data.page}", f"  terms     {data.terms}", f"  citation  {data.citation}"]
    for number, form in enumerate(data.forms):
        lines.append("  files, as they are:" if number == 0 else "  or these:")
        lines += [f"    {file.url}\n      {file.facts}" for file in form.files]
        if form.folder:
            lines.append(f"    or the folder that it unpacks to, {form.folder}")
    place = folder or "DIR"
    lines.append(f"  put into  {place}, and name it with --config.data.dir={place}; it is only read")
    return "\n".join([*lines, *(_found(name, data, Path(folder).expanduser()) if folder else ())])


def _found(name: str, data: published.Published, folder: Path) -> Iterator[str]:
    """A line for each published file that is in the folder, and for each version that TFDS has prepared there."""
    prepared = sorted(path.parent for path in (folder / name).glob("*/dataset_info.json"))
    yield from (f"  found     {path}: prepared by TensorFlow Datasets, read before other files" for path in prepared)
    result = bool(prepared)
    for form in data.forms:
        for place in archives.places(form, folder):
            for file in form.files:
                if (path := place / file.name).is_file():
                    result = True
                    known = "the published file" if file.checksum else "there; its checksum is not known"
                    yield f"  found     {path}: {file.difference(path) or known}"
    if not result:
        yield f"  found     none of these files in {folder}"
