"""Publication of each data set: addresses, sizes, checksums, terms of use, and layout of its files.

Sizes and SHA-256 are those that TensorFlow Datasets has registered. The MD5 of CIFAR's Python archives are on CIFAR's
page and in torchvision; the one of ImageNet's development kit is in torchvision.
"""

import dataclasses
import hashlib
import pathlib
from collections.abc import Callable, Mapping

from ltrobust.data import archive_formats, imagenet, tiny_imagenet
from ltrobust.data.archive_formats import Arrays


@dataclasses.dataclass(frozen=True)
class File:
    """A published file: where it is from, its bytes (0: not known), and its checksum as `sha256:<hex>` or `md5:<hex>`.

    An empty checksum is not known.
    """

    url: str
    size: int = 0
    checksum: str = ""

    @property
    def name(self) -> str:
        """File name."""
        return self.url.rpartition("/")[2]

    @property
    def facts(self) -> str:
        """Size and checksum, as far as they are known, in words."""
        kind, _, checksum = self.checksum.partition(":")
        size = f"{self.size:,} bytes, " if self.size else ""
        return f"{size}{_KINDS[kind]} {checksum}" if checksum else f"{size}checksum not known"

    def difference(self, path: pathlib.Path) -> str:
        """Difference of a file on disk from the published one, in words; empty if there is none."""
        size = path.stat().st_size
        if self.size and size != self.size:
            return f"{size:,} bytes, published {self.size:,}"
        kind, _, expected = self.checksum.partition(":")
        actual = checksum(path, kind).partition(":")[2] if expected else ""
        return "" if actual == expected else f"{_KINDS[kind]} {actual[:12]}, published {expected[:12]}"


def checksum(path: pathlib.Path, kind: str) -> str:
    """The checksum of a file on disk, `sha256:<hex>` or `md5:<hex>`."""
    with path.open("rb") as file:
        return f"{kind}:{hashlib.file_digest(file, kind).hexdigest()}"


_KINDS = {"sha256": "SHA-256", "md5": "MD5"}


@dataclasses.dataclass(frozen=True)
class Form:
    """One form in which a data set is published.

    Attributes:
      files: all of them are needed.
      read: images, labels and class names from the members' bytes and a split (`archive_formats.py`); None where the
        data set has its own module.
      folder: what the only file unpacks to; empty where files are read as they are.
      members: the files in that folder that are read.
      places: folders in the user's folder where other programs put the files.
      largest: bytes that no official member exceeds.
    """

    files: tuple[File, ...]
    read: Callable[[Mapping[str, bytes], str], Arrays] | None = None
    folder: str = ""
    members: tuple[str, ...] = ()
    places: tuple[str, ...] = ()
    largest: int = 250_000_000


@dataclasses.dataclass(frozen=True)
class Published:
    """Publication of one data set.

    Attributes:
      forms: any of them is enough; the first one found is read.
      page: address of the authors' page.
      terms: what the authors say about use.
      citation: the paper that is to be cited.
    """

    forms: tuple[Form, ...]
    page: str
    terms: str
    citation: str

    @property
    def files(self) -> tuple[File, ...]:
        """Of the first form."""
        return self.forms[0].files


def _idx_names(prefixes: tuple[str, str]) -> tuple[str, ...]:
    """The four IDX files of a data set, training files first."""
    return tuple(f"{prefix}-{kind}-ubyte.gz" for prefix in prefixes for kind in ("images-idx3", "labels-idx1"))


def _idx_files(address: str, *facts: tuple[int, str]) -> tuple[File, ...]:
    """MNIST's four files at an address, from their sizes and SHA-256."""
    names = _idx_names(("train", "t10k"))
    return tuple(
        File(f"{address}/{name}", size, f"sha256:{digest}") for name, (size, digest) in zip(names, facts, strict=True)
    )


def _emnist(part: str) -> Published:
    """One of EMNIST's parts: in NIST's archive of all of them, or its four files by themselves."""
    names, read = _idx_names((f"emnist-{part}-train", f"emnist-{part}-test")), archive_formats.emnist(part)
    archive = File(
        "https://biometrics.nist.gov/cs_links/EMNIST/gzip.zip",
        561753746,
        "sha256:fb9bb67e33772a9cc0b895e4ecf36d2cf35be8b709693c3564cea2a019fcda8e",
    )
    return Published(
        forms=(
            Form((archive,), read, "gzip", names, largest=600_000_000),
            Form(tuple(map(File, names)), read, places=("EMNIST/raw",), largest=600_000_000),
        ),
        page="https://www.nist.gov/itl/products-and-services/emnist-dataset",
        terms=_NO_LICENCE,
        citation="G. Cohen, S. Afshar, J. Tapson, A. van Schaik, EMNIST: Extending MNIST to handwritten letters, 2017",
    )


_KRIZ = "https://www.cs.toronto.edu/~kriz"
_CVDF = "https://storage.googleapis.com/cvdf-datasets/mnist"
_ZALANDO = "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com"
_ILSVRC = "http://www.image-net.org/challenges/LSVRC/2012/nnoupb"
_SVHN = "http://ufldl.stanford.edu/housenumbers"
_BATCHES = tuple(f"data_batch_{number}" for number in range(1, 6))
_NO_LICENCE = "no licence is known here; see the page"
_IMAGENET_TERMS = "ImageNet's terms of access: non-commercial research and education"
_KRIZHEVSKY = "A. Krizhevsky, Learning Multiple Layers of Features from Tiny Images, technical report, 2009"
_RUSSAKOVSKY = "O. Russakovsky et al., ImageNet Large Scale Visual Recognition Challenge, IJCV 2015"

DATA = {
    "cifar10": Published(
        forms=(
            Form(
                files=(
                    File(
                        f"{_KRIZ}/cifar-10-binary.tar.gz",
                        170052171,
                        "sha256:c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
                    ),
                ),
                read=archive_formats.cifar10,
                folder="cifar-10-batches-bin",
                members=(*(f"{name}.bin" for name in _BATCHES), "test_batch.bin", "batches.meta.txt"),
            ),
            Form(
                files=(File(f"{_KRIZ}/cifar-10-python.tar.gz", 170498071, "md5:c58f30108f718f92721af3b95e74349a"),),
                read=archive_formats.cifar10_python,
                folder="cifar-10-batches-py",
                members=(*_BATCHES, "test_batch", "batches.meta"),
            ),
        ),
        page=f"{_KRIZ}/cifar.html",
        terms=_NO_LICENCE,
        citation=_KRIZHEVSKY,
    ),
    "cifar100": Published(
        forms=(
            Form(
                files=(
                    File(
                        f"{_KRIZ}/cifar-100-binary.tar.gz",
                        168513733,
                        "sha256:58a81ae192c23a4be8b1804d68e518ed807d710a4eb253b1f2a199162a40d8ec",
                    ),
                ),
                read=archive_formats.cifar100,
                folder="cifar-100-binary",
                members=("train.bin", "test.bin", "fine_label_names.txt"),
            ),
            Form(
                files=(File(f"{_KRIZ}/cifar-100-python.tar.gz", 169001437, "md5:eb9058c3a382ffc7106e4002c42a8d85"),),
                read=archive_formats.cifar100_python,
                folder="cifar-100-python",
                members=("train", "test", "meta"),
            ),
        ),
        page=f"{_KRIZ}/cifar.html",
        terms=_NO_LICENCE,
        citation=_KRIZHEVSKY,
    ),
    "mnist": Published(
        forms=(
            Form(
                files=_idx_files(
                    _CVDF,
                    (9912422, "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609"),
                    (28881, "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c"),
                    (1648877, "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6"),
                    (4542, "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6"),
                ),
                read=archive_formats.mnist,
                places=("MNIST/raw",),
            ),
        ),
        page="http://yann.lecun.com/exdb/mnist/",
        terms=_NO_LICENCE,
        citation="Y. LeCun et al., Gradient-based learning applied to document recognition, 1998",
    ),
    "fashion_mnist": Published(
        forms=(
            Form(
                files=_idx_files(
                    _ZALANDO,
                    (26421880, "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84"),
                    (29515, "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845"),
                    (4422102, "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073"),
                    (5148, "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5"),
                ),
                read=archive_formats.fashion_mnist,
                places=("FashionMNIST/raw",),
            ),
        ),
        page="https://github.com/zalandoresearch/fashion-mnist",
        terms="MIT licence",
        citation="H. Xiao, K. Rasul, R. Vollgraf, Fashion-MNIST, arXiv 1708.07747, 2017",
    ),
    **{f"emnist_{part}": _emnist(part) for part in archive_formats.EMNIST},
    "svhn_cropped": Published(
        forms=(
            Form(
                files=(
                    File(
                        f"{_SVHN}/train_32x32.mat",
                        182040794,
                        "sha256:435e94d69a87fde4fd4d7f3dd208dfc32cb6ae8af2240d066de1df7508d083b8",
                    ),
                    File(
                        f"{_SVHN}/test_32x32.mat",
                        64275384,
                        "sha256:cdce80dfb2a2c4c6160906d0bd7c68ec5a99d7ca4831afa54f09182025b6a75b",
                    ),
                ),
                read=archive_formats.svhn,
            ),
        ),
        page=f"{_SVHN}/",
        terms="for non-commercial use only",
        citation="Y. Netzer et al., Reading Digits in Natural Images with Unsupervised Feature Learning, 2011",
    ),
    "stl10": Published(
        forms=(
            Form(
                files=(
                    File(
                        "http://ai.stanford.edu/~acoates/stl10/stl10_binary.tar.gz",
                        2640397119,
                        "sha256:f31fd99273a1acb8609c8db427cebb1de3f71de77758cdc0e22956e1289b9866",
                    ),
                ),
                read=archive_formats.stl10,
                folder="stl10_binary",
                members=("train_X.bin", "train_y.bin", "test_X.bin", "test_y.bin", "class_names.txt"),
                largest=3_000_000_000,  # the unlabelled images, which are skipped
            ),
        ),
        page="https://cs.stanford.edu/~acoates/stl10/",
        terms=_NO_LICENCE,
        citation="A. Coates, H. Lee, A. Y. Ng, An Analysis of Single-Layer Networks in Unsupervised Feature Learning",
    ),
    "tiny_imagenet": Published(
        forms=(Form((File(tiny_imagenet.URL, 248100043, f"md5:{tiny_imagenet.MD5}"),), folder=tiny_imagenet.FOLDER),),
        page="http://cs231n.stanford.edu/",
        terms=_IMAGENET_TERMS,
        citation=_RUSSAKOVSKY,
    ),
    # Read by `imagenet.py`, where a folder of classes is as good.
    **dict.fromkeys(
        imagenet.CLASSES,
        Published(
            forms=(
                Form(
                    files=(
                        File(
                            f"{_ILSVRC}/ILSVRC2012_img_train.tar",
                            147897477120,
                            "sha256:b08200a27a8e34218a0e58fde36b0fe8f73bc377f4acea2d91602057c3ca45bb",
                        ),
                        File(
                            f"{_ILSVRC}/ILSVRC2012_img_val.tar",
                            6744924160,
                            "sha256:c7e06a6c0baccf06d8dbeb6577d71efff84673a5dbdd50633ab44f8ea0456ae0",
                        ),
                        File(f"{_ILSVRC}/ILSVRC2012_devkit_t12.tar.gz", 0, "md5:fa75699e90414af021442c21a62c3abf"),
                    ),
                ),
            ),
            page="https://image-net.org/download-images",
            terms=f"{_IMAGENET_TERMS}, after registration",
            citation=_RUSSAKOVSKY,
        ),
    ),
}
