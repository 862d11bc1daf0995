"""The direction of dependencies (docs/design.md), by parsing imports."""

import ast
import pathlib

PACKAGE = pathlib.Path(__file__).resolve().parents[1] / "ltrobust"

# Room or file -> what of the package it may import.
ALLOWED = {
    "threat": {"names"},
    "data": {"data", "names", "terminal"},
    "models": {"models", "names", "registry"},
    "attacks": {"attacks", "names", "threat"},
    "methods": {"methods", "attacks", "models", "names", "registry", "threat"},
    "ambient": set(),
    "evaluation": {"evaluation", "ambient", "attacks", "data", "files", "names", "processes", "terminal", "threat"},
    "preemption": set(),
    "processes": set(),
    "training": {
        "training",
        "preemption",
        "processes",
        "methods",
        "evaluation",
        "attacks",
        "data",
        "models",
        "names",
        "threat",
        "files",
        "terminal",
    },
    "files": set(),
    "names": set(),
    "terminal": set(),
    "registry": {"names"},
    "config_listing": {"methods", "models", "names", "recipes", "workdir"},
    "recipes": {"names", "registry"},
    "recorded": {"files", "recipes", "workdir"},
    "cli": {
        "config_listing",
        "experiment",
        "preemption",
        "processes",
        "recipes",
        "recorded",
        "registry",
        "report",
        "terminal",
    },
    "__main__": {"cli"},
    "reporting": {"reporting", "files"},
    "workdir": {"files"},
    "runs": {"data", "evaluation", "files", "names", "reporting"},
    "compare": {"data", "evaluation", "files", "reporting", "runs", "terminal"},
    "diagnose": {"data", "evaluation", "files", "names", "reporting", "runs", "terminal"},
    "agreement": {"data", "evaluation", "files", "methods", "registry", "reporting", "terminal", "training"},
    "class_logit_offset": {
        "card_parts",
        "checks",
        "experiment",
        "files",
        "models",
        "results",
        "terminal",
        "training",
        "workdir",
    },
    "checks": {"data", "evaluation", "methods", "processes", "reporting", "training", "workdir"},
    "sweep": {"files", "preemption", "recipes", "reporting", "runs", "terminal", "workdir"},
    "card_parts": {"ambient", "data", "evaluation", "training"},
    "results": {
        "ambient",
        "attacks",
        "card_parts",
        "checks",
        "methods",
        "data",
        "evaluation",
        "models",
        "processes",
        "reporting",
        "training",
    },
    "report": {"data", "evaluation", "files", "reporting", "runs", "training"},
    "experiment": {
        "ambient",
        "card_parts",
        "checks",
        "data",
        "diagnose",
        "evaluation",
        "files",
        "preemption",
        "processes",
        "methods",
        "models",
        "reporting",
        "results",
        "training",
        "workdir",
    },
    "__init__": {"attacks", "data", "evaluation", "methods", "models", "threat"},
}
WITHOUT_JAX = (
    "data/longtail.py",
    "data/cache.py",
    "data/dataset.py",
    "data/folder.py",
    "data/listing.py",
    "data/pixels.py",
    "data/sources.py",
    "data/prepared.py",
    "data/archives.py",
    "data/archive_formats.py",
    "data/tiny_imagenet.py",
    "data/identity.py",
    "data/overlap.py",
    "data/pack.py",
    "data/pack_manifest.py",
    "data/mosaic.py",
    "evaluation/metrics.py",
    "evaluation/compare.py",
    "evaluation/confidence.py",
    "evaluation/flips.py",
    "evaluation/seeds.py",
    "evaluation/store.py",
    "evaluation/identity.py",
    "evaluation/spread.py",
    "evaluation/homing.py",
    "evaluation/diagnosis.py",
    "data/superclasses.py",
    "reporting",
    "compare.py",
    "diagnose.py",
    "report.py",
    "names.py",
    "recipes.py",
    "recorded.py",
    "registry.py",
    "runs.py",
    "sweep.py",
    "terminal.py",
    "training/records.py",
)


def imports(file: pathlib.Path) -> set[str]:
    """Full names of the modules that a file imports, at any depth."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: relative import"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def test_rooms_import_only_what_they_may():
    for file in PACKAGE.rglob("*.py"):
        relative = file.relative_to(PACKAGE)
        room = relative.parts[0].removesuffix(".py")
        used = {name.split(".")[1] for name in imports(file) if name.startswith("ltrobust.")}
        assert used <= ALLOWED[room], f"{relative} imports {used - ALLOWED[room]}"
        assert not any(
            name.split(".")[0] in ("benchmarks", "configs", "main", "tensorflow", "tools") for name in imports(file)
        ), relative


def test_some_files_run_without_jax():
    for name in WITHOUT_JAX:
        files = [PACKAGE / name] if name.endswith(".py") else (PACKAGE / name).rglob("*.py")
        for file in files:
            roots = {module.split(".")[0] for module in imports(file)}
            assert not roots & {"jax", "flax", "optax", "orbax", "chex"}, file


def test_one_file_imports_tfds():
    """A run from a pack must not need it, so `sources.py` imports it when it needs it."""
    files = {file.relative_to(PACKAGE).as_posix(): imports(file) for file in PACKAGE.rglob("*.py")}
    users = {
        name
        for name, modules in files.items()
        if any(module.split(".")[0] == "tensorflow_datasets" for module in modules)
    }
    assert users == {"data/prepared.py"}


def test_no_module_is_called_utils_and_none_is_too_long():
    for file in PACKAGE.rglob("*.py"):
        assert file.stem not in ("utils", "common", "helpers"), file
        assert len(file.read_text().splitlines()) <= 320, f"{file} is more than one room"
