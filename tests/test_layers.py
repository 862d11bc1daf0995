"""Which room may import which, and which work without JAX, by parsing imports."""

import ast
import graphlib
import pathlib

PACKAGE = pathlib.Path(__file__).resolve().parents[1] / "ltrobust"

# Room or file -> what of the package it may import.
ALLOWED = {
    "threat": {"runtime"},
    "runtime": {"runtime"},
    "registry": {"runtime"},
    "recipes": {"registry", "runtime"},
    "data": {"data", "runtime"},
    "models": {"models", "registry", "runtime"},
    "attacks": {"attacks", "runtime", "threat"},
    "methods": {"attacks", "methods", "models", "registry", "runtime", "threat"},
    "evaluation": {"attacks", "data", "evaluation", "runtime", "threat"},
    "sanity": {"attacks", "data", "evaluation", "runtime", "sanity", "threat"},
    "analysis": {"analysis", "attacks", "data", "evaluation", "runtime", "sanity", "threat"},
    "evaluator": {"analysis", "attacks", "data", "evaluation", "models", "runtime", "sanity", "threat"},
    "report": {"analysis", "data", "evaluation", "report", "runtime", "sanity", "training"},
    "training": {
        "analysis",
        "attacks",
        "data",
        "evaluation",
        "evaluator",
        "methods",
        "models",
        "plan",
        "runtime",
        "sanity",
        "training",
    },
    "plan": {"data", "evaluation", "methods", "models", "runtime", "threat"},
    "exporter": {"methods", "models", "runtime", "training"},
    "api": {
        "analysis",
        "exporter",
        "methods",
        "models",
        "report",
        "run",
        "runtime",
        "training",
    },
    "compilation": {"compilation", "data", "evaluation", "plan", "report", "runtime", "training"},
    "run": {"analysis", "data", "models", "plan", "recipes", "report", "runtime", "training"},
    "commands": {
        "analysis",
        "api",
        "commands",
        "compilation",
        "data",
        "evaluation",
        "exporter",
        "methods",
        "models",
        "recipes",
        "registry",
        "plan",
        "report",
        "run",
        "runtime",
        "threat",
        "training",
    },
    "__main__": {"commands"},
    "__init__": {
        "analysis",
        "api",
        "attacks",
        "commands",
        "data",
        "evaluator",
        "methods",
        "models",
        "recipes",
        "threat",
    },
}
JAX = {"jax", "flax", "optax", "orbax", "chex"}
# Rooms and files that work without JAX, so that images, stores and results can be read anywhere -> the files in them
# that import it all the same.
WITHOUT_JAX = {
    "analysis": {"card_parts.py", "gradient_agreement.py"},
    "commands": {"agreement.py", "launch.py", "offset_network.py", "torch_module.py"},
    "compilation/chips.py": set(),
    "compilation/hlo.py": set(),
    "compilation/record.py": set(),
    "compilation/render.py": set(),
    "data": {"augment.py", "batches.py", "color_jitter.py", "image_operations.py"},
    "evaluation/columns.py": set(),
    "evaluation/identity.py": set(),
    "evaluation/lines.py": set(),
    "evaluation/schedule.py": set(),
    "evaluation/store.py": set(),
    "evaluation/verdict.py": set(),
    "recipes.py": set(),
    "registry.py": set(),
    "report": set(),
    "runtime": {"ambient.py", "processes.py"},
    "threat.py": set(),
    "training/records.py": set(),
}


def imports(file: pathlib.Path) -> set[str]:
    """Full names of the modules that a file imports, at any depth."""
    result = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            result |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: relative import"
            result |= {f"{node.module}.{alias.name}" for alias in node.names}
    return result


def test_rooms_import_only_what_they_may():
    for file in PACKAGE.rglob("*.py"):
        relative = file.relative_to(PACKAGE)
        room = relative.parts[0].removesuffix(".py")
        used = {name.split(".")[1] for name in imports(file) if name.startswith("ltrobust.")}
        assert used <= ALLOWED[room], f"{relative} imports {used - ALLOWED[room]}"
        assert not any(
            name.split(".")[0] in ("benchmarks", "configs", "main", "tensorflow", "tools") for name in imports(file)
        ), relative


def test_no_room_imports_one_that_imports_it():
    graphlib.TopologicalSorter({room: used - {room} for room, used in ALLOWED.items()}).prepare()


def test_some_rooms_work_without_jax():
    """A file that imports JAX must be named as an exception, and an exception that no longer does must be removed."""
    for room, exceptions in WITHOUT_JAX.items():
        files = [PACKAGE / room] if room.endswith(".py") else (PACKAGE / room).rglob("*.py")
        users = {file.name for file in files if JAX & {module.split(".")[0] for module in imports(file)}}
        assert users == exceptions, f"ltrobust/{room}"


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
