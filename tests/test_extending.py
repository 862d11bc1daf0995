"""Methods and networks of the user: registered, loaded from files and installed packages, and refused in a sentence."""

import importlib
import json
import pathlib
import re
import sys

import own
import planned
import pytest
from absl import logging

from ltrobust import methods, models, recipes, registry
from ltrobust.commands import config as config_listing
from ltrobust.commands import launch, recorded, sweep
from ltrobust.commands.parser import UsageError
from ltrobust.models.model_plan import make_model_plan
from ltrobust.runtime import workdir

ROOT = pathlib.Path(__file__).resolve().parents[1]
INNER = methods.InnerAttack()

METHOD = """
from ltrobust import methods


@methods.register
def my_at(inner, *, gamma: float = 2.0):
    '''PGD-AT.

    Args:
      gamma: nothing that counts.
    '''
    return methods.REGISTRY["pgd_at"](inner)
"""
CONFIG = """
import my_methods
from configs import default


def get_config():
    config = default.get_config()
    config.student.method = "my_at"
    config.methods.my_at.gamma = 3.0
    return config
"""


@pytest.fixture(autouse=True)
def _as_before(monkeypatch):
    """What a test registers and imports is gone after it."""
    tables = (methods.REGISTRY, methods.WRAPPERS, models.REGISTERED)
    before = [dict(table) for table in tables]
    modules = set(sys.modules)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield
    for table, content in zip(tables, before, strict=True):
        table.clear()
        table.update(content)
    registry.installed_entry_points.cache_clear()
    registry.BROKEN.clear()
    registry.ADDED.clear()
    for name in set(sys.modules) - modules:
        if name.startswith("my_"):
            del sys.modules[name]


def write(path: pathlib.Path, text: str) -> pathlib.Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def parse(*words: str) -> list[str]:
    """The words that the command gives to the flags, or the message with which it ends."""
    try:
        return launch.resolve(words, trains=True)
    except UsageError as error:
        return [str(error)]


# Registering


def test_keyword_arguments_are_keys_with_their_defaults():
    assert methods.register(own.half_at) is own.half_at
    methods.register(own.louder)
    config = recipes.default()
    assert config.methods.half_at.to_dict() == {"share": 1.0, "terms": ()}
    assert type(config.methods.half_at.share) is float  # as annotated: the default is written 1
    assert config.methods.louder.factor == 2.0
    config.student.method, config.student.wrappers = "half_at", ("louder", "awp")
    assert planned.make_method(config, "student").name == "half_at+louder+awp"


def no_default(inner, *, gamma: float):
    del inner, gamma


def odd_default(inner, *, rate=None):
    del inner, rate


def anything(inner, **settings):
    del inner, settings


def other_first(attack, *, gamma=1.0):
    del attack, gamma


def pgd_at(inner):
    del inner


def awp(inner):
    del inner


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (no_default, "setting gamma of method no_default has no default; give it one"),
        (odd_default, "setting rate of method odd_default is None by default; a configuration holds numbers"),
        (anything, r"method anything takes \*\*settings; name each of its settings"),
        (other_first, "first parameter of other_first is called 'attack'; call it inner for a method, or method"),
        (pgd_at, "the name pgd_at is taken; give your method another one"),
        (awp, "the name awp is taken; give your method another one"),
        (lambda inner: inner, "cannot be called '<lambda>'; give it a Python name"),
    ],
)
def test_functions_that_cannot_be_methods_are_refused(function, message):
    known = list(methods.REGISTRY)
    with pytest.raises(ValueError, match=message):
        methods.register(function)
    assert list(methods.REGISTRY) == known


def test_a_file_may_register_again_and_another_file_may_not(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(tmp_path))
    write(tmp_path / "my_methods.py", METHOD)
    write(tmp_path / "my_others.py", METHOD)
    module = importlib.import_module("my_methods")
    importlib.reload(module)
    assert methods.REGISTRY["my_at"] is module.my_at
    with pytest.raises(ValueError, match=r"my_at of .*my_others.py is registered by .*my_methods.py already; rename"):
        importlib.import_module("my_others")


def test_a_function_that_returns_something_else_is_named():
    methods.register(empty)
    with pytest.raises(ValueError, match=r"empty returned NoneType; return an ltrobust\.methods\.Method"):
        methods.create("empty", INNER)


def empty(inner):
    del inner


def test_unknown_names_list_the_registered_ones_too():
    methods.register(own.half_at)
    models.register(own.Plain)
    with pytest.raises(
        ValueError, match=r"'half_a'; did you mean half_at\? known methods: pgd_at, .*half_at\. Load .*--code=FILE\.py"
    ):
        methods.create("half_a", INNER)
    with pytest.raises(ValueError, match=r"wrapper is 'half_at'; known wrappers: awp, .*--code=FILE\.py"):
        methods.wrap(methods.create("pgd_at", INNER), "half_at")
    with pytest.raises(ValueError, match=r"'plain'; did you mean Plain\? known models: resnet18, .*Plain; and wrn_D_W"):
        models.create("plain", num_classes=10)


# Files


def test_a_configuration_imports_what_lies_beside_it(tmp_path, monkeypatch):
    write(tmp_path / "mine" / "my_methods.py", METHOD)
    file = write(tmp_path / "mine" / "my_config.py", CONFIG)
    monkeypatch.chdir(ROOT)
    config = recipes.load(str(file))
    assert config.methods.my_at.gamma == 3.0
    assert planned.make_method(config, "student").name == "my_at"
    words = [f"--config={file}", "--config.methods.my_at.gamma=1.5"]
    assert parse(*words) == words
    (reported,) = parse(f"--config={file}", "--config.methods.my_at.gama=1.5")
    assert "no key methods.my_at.gama; did you mean methods.my_at.gamma?" in reported


def test_a_sweep_varies_settings_of_a_registered_method(tmp_path):
    write(tmp_path / "my_methods.py", METHOD)
    write(tmp_path / "my_config.py", CONFIG)
    file = write(
        tmp_path / "sweep.py",
        f"CONFIG = {str(tmp_path / 'my_config.py')!r}\nAXES = {{'methods.my_at.gamma': (0.5, 1.0)}}\n"
        "VARIANTS = {'mine': {}}\n",
    )
    read = sweep.read(file, tmp_path / "out")
    assert [cell.name for cell in read.cells] == ["mine-gamma0.5", "mine-gamma1.0"]
    assert read.config_of(read.cells[0]).methods.my_at.gamma == 0.5


def test_a_file_is_loaded_from_the_command_line(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    file = write(tmp_path / "my_methods.py", METHOD)
    words = [f"--code={file}", "--config.student.method=my_at", "--config.methods.my_at.gamma=1.5"]
    default = f"--config={ROOT}/configs/digits.py"
    assert parse(*words) == [default, *words]
    assert sys.modules["my_methods"].my_at is methods.REGISTRY["my_at"]
    words = ["--code", "my_methods", "--config.methods.my_at.gamma=1.5"]
    assert parse(*words) == [default, *words]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("my_nothing.py", None, "--code is .*my_nothing.py', and there is no such file; give FILE.py or the name of"),
        ("", None, "--code is empty; give FILE.py or the name of a module"),
        ("my_nothing", None, "--code is 'my_nothing': No module named 'my_nothing'. Give FILE.py or the name of"),
        ("json.py", "", "json.py cannot be imported as json, which is .*json/__init__.py; rename the file"),
        ("my_broken.py", "1 / 0", "my_broken.py cannot be loaded: ZeroDivisionError: division by zero"),
        ("my_broken.py", METHOD.replace(": float = 2.0", ""), "setting gamma of method my_at has no default"),
    ],
)
def test_a_file_that_cannot_be_loaded_is_named(tmp_path, monkeypatch, name, text, message):
    if text is not None:
        write(tmp_path / name, text)
    given = str(tmp_path / name) if name.endswith(".py") else name
    (reported,) = parse(f"--code={given}")
    assert re.search(message, reported), reported
    assert "\n" not in reported


def test_a_recorded_configuration_says_which_method_is_not_loaded(tmp_path):
    methods.register(own.half_at)
    config = recipes.default()
    write(tmp_path / "config.json", json.dumps(config.to_dict()))
    name = f"{recorded.__file__}:{tmp_path / 'config.json'}"
    assert recipes.load(name).methods.half_at.share == 1.0
    del methods.REGISTRY["half_at"]
    assert "half_at" not in recipes.load(name).methods  # the run does not use it
    config.student.method = "half_at"
    write(tmp_path / "config.json", json.dumps(config.to_dict()))
    with pytest.raises(
        ValueError, match=r"settings of the method half_at, which is not registered; load .* --code=FILE"
    ):
        recipes.load(name)


@pytest.mark.parametrize("used", [False, True])
def test_settings_of_others_end_no_run(used):
    """A method or network that is registered between two starts counts if one of the two uses it."""
    before = recipes.default()
    methods.register(own.half_at)
    models.register(own.Plain)
    after = recipes.default()
    after.methods.trades.beta = 5.0
    wanted = ["methods.trades.beta: 6.0 -> 5.0"]
    if used:
        for config in (before, after):
            config.student.method, config.model.name = "half_at", "Plain"
        wanted = [
            "methods.half_at.share: 'absent' -> 1.0",
            "methods.half_at.terms: 'absent' -> []",
            *wanted,
            "model.Plain.width: 'absent' -> 4",
            "model.Plain.widths: 'absent' -> [4]",
        ]
    assert workdir.differences(workdir.plain(before), workdir.plain(after)) == wanted
    # `remat` is not of the network: it is how training computes it.
    described = make_model_plan(after.model.to_dict()).describe() | {"remat": False}
    assert (described == before.model.to_dict()) != used


# Installed packages


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A function that installs a package with these entry points on the path."""

    def install(entries: str, name: str = "my-package") -> None:
        site = tmp_path / name
        folder = f"{site.name.replace('-', '_')}-1.0.dist-info"
        source = (ROOT / "tests" / "own.py").read_text()
        write(site / "my_package.py", source)
        write(site / folder / "METADATA", f"Metadata-Version: 2.1\nName: {site.name}\nVersion: 1.0\n")
        write(site / folder / "entry_points.txt", entries)
        monkeypatch.syspath_prepend(str(site))
        registry.installed_entry_points.cache_clear()

    return install


def test_an_installed_package_offers_methods_and_networks(package):
    package(
        "[ltrobust.methods]\nhalf = my_package:half_at\nloud = my_package:louder\n\n"
        "[ltrobust.models]\nplain_net = my_package:Plain\n"
    )
    config = recipes.default()
    assert config.methods.half.share == 1.0
    assert config.methods.loud.factor == 2.0
    assert config.model.plain_net.to_dict() == {"width": 4, "widths": (4,)}
    config.student.method, config.student.wrappers, config.model.name = "half", ("loud",), "plain_net"
    config.model.plain_net.width = 7
    method = planned.make_method(config, "student")
    assert method.name == "half+loud"
    assert make_model_plan(config.model.to_dict()).create(5, head=method.head).width == 7


def test_without_a_configuration_too(package):
    package("[ltrobust.methods]\nhalf = my_package:half_at\n\n[ltrobust.models]\nplain_net = my_package:Plain\n")
    assert methods.create("half", INNER, share=0.5).name == "half"
    assert type(models.create("plain_net", num_classes=3)).__name__ == "Plain"


def test_what_a_package_cannot_give_is_passed_over_until_it_is_asked_for(package, monkeypatch):
    warned = []
    monkeypatch.setattr(logging, "warning", lambda text, *values: warned.append(text % values))
    package(
        "[ltrobust.methods]\ngone = my_package:gone\nPlain = my_package:Plain\npgd_at = my_package:half_at\n"
        "half = my_package:half_at\n"
    )
    config = recipes.default()
    recipes.default()
    assert config.methods.half.share == 1.0
    assert [text.split(": ")[0:4:3] for text in warned] == [
        ["ltrobust.methods", "AttributeError"],
        ["ltrobust.methods", "ValueError"],
        ["ltrobust.methods", "the name is taken"],
    ]
    with pytest.raises(
        ValueError, match=r"method 'gone' cannot be loaded: gone of the installed package my-package: Attr"
    ):
        methods.create("gone", INNER)
    assert methods.create("pgd_at", INNER).passes == ("adv",)
    assert methods.REGISTRY["pgd_at"].__module__ == "ltrobust.methods.adversarial"


def test_an_editable_installation_that_is_found_twice_is_one_package(package):
    """Its metadata may lie beside the source and among the installed packages."""
    entries = "[ltrobust.methods]\nhalf = my_package:half_at\n"
    package(entries)
    package(entries, "again/my-package")
    assert recipes.default().methods.half.share == 1.0
    assert len(registry.installed_entry_points("ltrobust.methods")["half"]) == 1


def test_a_name_that_two_packages_offer_is_nobodys(package, monkeypatch):
    """Which of them a run gets would be a matter of the order of installation."""
    warned = []
    monkeypatch.setattr(logging, "warning", lambda text, *values: warned.append(text % values))
    package("[ltrobust.methods]\nhalf = my_package:half_at\n")
    package("[ltrobust.methods]\nhalf = my_package:half_at\n", "my-other")
    assert "half" not in recipes.default().methods
    assert warned == [
        "ltrobust.methods: skipped: half of the installed package my-other and my-package: more than one package "
        "offers it"
    ]
    with pytest.raises(ValueError, match="method 'half' cannot be loaded: half of the installed package my-other"):
        methods.create("half", INNER)


# The list of keys


def test_every_key_has_a_meaning():
    known = config_listing.meanings()
    missing = [key for key in workdir.flatten(recipes.default().to_dict()) if not known.get(key)]
    assert missing == []


def test_meanings_are_those_at_the_definitions():
    methods.register(own.half_at)
    models.register(own.Plain)
    known = config_listing.meanings()
    assert known["threat.radius"] == "in 1/255"
    assert known["student.optimizer.momentum"] == known["teacher.optimizer.momentum"] == "sgd only"
    assert known["data.dir"].startswith("folder of the archive or of TFDS's records")
    assert known["methods.fair_ard.lower"] == known["methods.fair_ard.upper"] == "bounds of the class weights."
    assert known["methods.half_at.terms"] == "names that nothing reads."
    assert known["methods.cfa.threshold"].endswith("until then, the averaged weights are the last ones.")


def test_the_command_lists_keys(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    file = write(tmp_path / "my_methods.py", METHOD)

    def reported(*words: str) -> str:
        config_listing.main(words, "ltrobust config")
        return capsys.readouterr().out

    assert reported("methods.trades").splitlines() == [
        "methods.trades.beta = 6.0  # weight of the KL.",
        "methods.trades.variant = 'as_described'  # `as_described`: train-mode passes x, x'; `as_released`: x, x', x.",
    ]
    assert "\nthreat.radius = 8.0  # in 1/255\n" in reported()
    assert "\nthreat.radius = 32.0  # in 1/255\n" in reported("digits")
    assert "\nstudent.method = 'robal'  # " in reported("published:robal_n")
    assert reported("methods.my_at", f"--code={file}") == "methods.my_at.gamma = 2.0  # nothing that counts.\n"

    def refused(*words: str) -> str:
        with pytest.raises(UsageError) as error:
            config_listing.main(words, "ltrobust config")
        return str(error.value)

    message = refused("methods.trade")
    assert (
        "'methods.trade' is neither a key nor a configuration; did you mean methods.trades? configurations: " in message
    )
    message = refused("published:robl_n")
    assert "did you mean robal_n?" in message
    message = refused("digits", "--config.seed=1")
    assert message == "unrecognized arguments: --config.seed=1; ltrobust config --help lists the flags."
    assert "'diigts.py' is neither a key nor a configuration; did you mean digits?" in refused("diigts.py")
    assert refused("digits:small") == "digits has no recipes; give digits."
    for line, message in (
        ("1 / 0", "ZeroDivisionError: division by zero"),
        ("open('gone')", "FileNotFoundError: .*gone"),
    ):
        (tmp_path / "mine.py").write_text(f"def get_config():\n    {line}\n")
        with pytest.raises(ValueError, match=rf"^the configuration mine\.py cannot be read: {message}"):
            config_listing.main(["mine.py"], "ltrobust config")
