"""`ltrobust compile`: its table, its file and its end, with programs of the CPU in place of a TPU's."""

import dataclasses
import json
import re
from typing import Any

import jax
import jax.numpy as jnp
import pytest

from ltrobust import recipes
from ltrobust.analysis import cards
from ltrobust.commands import compile as command
from ltrobust.compilation import chips, programs, record, render, rows, topologies

SHAPE = (8, 8, 1)


def step(name: str, images: int, key: str = "student.batch_size") -> programs.Program:
    """A program that multiplies matrices in a loop of unknown length."""

    def run(x, count):
        return jax.lax.while_loop(lambda c: c[0] < count, lambda c: (c[0] + 1, c[1] @ c[1]), (0, x))[1]

    shapes = (jax.ShapeDtypeStruct((8, 8), jnp.float32), jax.ShapeDtypeStruct((), jnp.int32))
    return programs.Program(name, (), images, SHAPE, programs.STEP, True, key, lambda: jax.jit(run).trace(*shapes))


@pytest.fixture
def ran(monkeypatch, tmp_path):
    """Runs the command on these programs; what it writes."""

    def run(*found, topology="v5e:2x2", phase="", protocol="", batch=""):
        monkeypatch.setattr(topologies, "make_devices", lambda topology: jax.devices()[:4])
        monkeypatch.setattr(topologies, "compiler_version", lambda chip: f"compiler of {chip.name} 1.0")
        monkeypatch.setattr(rows, "programs", lambda plan, mesh, only, memory: iter(found))
        target = tmp_path / "out.json"
        words = {"topology": topology, "phase": phase, "protocol": protocol, "batch": batch, "json": str(target)}
        command.run(recipes.load("digits"), tmp_path, **words)
        return record.read(target)

    return run


def test_table_and_file_have_the_same_rows(ran, capsys):
    (row,) = ran(step("student step", 512)).rows
    assert row.program == "student step"
    assert (row.chips, row.images, row.flops) == (4, 512, 2 * 8**3)
    assert row.memory > 0
    printed = capsys.readouterr().out
    assert "student step: compiles" in printed
    line = next(line for line in printed.splitlines() if line.startswith("student step  "))
    assert line.split()[2:6] == ["512", "128", "yes", f"{row.compile_seconds:.0f}"]
    assert "model, not measurements" in printed
    assert "(few)" not in printed


def test_the_file_says_what_its_numbers_depend_on(ran):
    found = ran(step("student step", 64), topology="v6e:2x2", protocol="standard", batch="128")
    assert (found.jax, found.compiler, found.commit) == (jax.__version__, "compiler of v6e 1.0", cards.commit())
    assert (found.topology, found.protocol, found.config["eval"]["protocol"]) == ("v6e:2x2", "standard", "standard")
    assert found.config["student"]["batch_size"] == 128
    assert found.config["data"]["name"] == "digits"


def test_every_field_of_a_record_comes_back_from_its_file(tmp_path):
    sent = (record.Collectives("all-reduce", 1, 2, 64),)
    unpriced = (record.Unpriced("gather", "while/body/gather", 1, 2, 64),)
    row = record.Row(
        "step", ("pgd",), "step", 8, 64, SHAPE, "too large", 1.5, 1.0, 9, 8, 0.5, 7, 0.25, sent, unpriced, True
    )
    assert all(getattr(row, field.name) != field.default for field in dataclasses.fields(row))
    one = record.Compilation("0.1", "libtpu 0.2", "ab" * 20, "v5e:2x4", "standard", {"seed": 0}, (row,))
    record.write(tmp_path / "a.json", one)
    assert record.read(tmp_path / "a.json") == one
    with pytest.raises(FileExistsError):
        record.write(tmp_path / "a.json", one, new=True)
    for field in dataclasses.fields(one)[:-1]:
        content = json.loads((tmp_path / "a.json").read_text())
        del content[field.name]
        (tmp_path / "b.json").write_text(json.dumps(content))
        with pytest.raises(ValueError, match=f"b.json is no record of `ltrobust compile`: {field.name} is missing"):
            record.read(tmp_path / "b.json")


def test_images_on_a_chip_below_and_above_the_best_are_marked_and_explained():
    topology = chips.parse("v5e:2x2")
    few, best, many = (record.Row("step", (), "step", 4, images, SHAPE) for images in (64, 512, 4096))
    table = render.table([few, best, many], topology)
    assert "16 (few)" in table
    assert "1024 (many)" in table
    assert "Use fewer chips" in table
    assert "Use more chips" in table
    assert render.advice([best], topology) == []


@pytest.mark.parametrize(
    ("name", "unit", "shape"),
    [
        ("v5e:2x2", record.CALL, (32, 32, 3)),  # the start of an attack
        ("v5e:2x2", record.STEP, (224, 224, 3)),
        ("v5e:2x2", record.STEP, (64, 64, 3)),
        ("h100:4", record.STEP, (32, 32, 3)),
        ("h200:4", record.PASS, (8, 8, 1)),
    ],
)
def test_advice_on_images_a_chip_is_for_what_it_was_modelled_on(name, unit, shape):
    """ResNet-18 on 32x32 images, TPU."""
    topology = chips.parse(name)
    rows = [record.Row("program", (), unit, 4, images, shape) for images in (4, 4096)]
    table = render.table(rows, topology)
    for word in ("(few)", "(many)", "cost least"):
        assert word not in table
    known = [dataclasses.replace(row, unit=record.STEP, image_shape=(32, 32, 3)) for row in rows]
    assert "(few)" in render.table(known, chips.parse("v5e:2x2"))


def test_the_largest_operations_without_an_estimate_are_named():
    sizes = {"while/body/a": 1024, "while/body/b": 8192, "while/body/c": 4096, "while/body/d": 2048}
    unpriced = tuple(record.Unpriced("gather", name, 1, 2, size) for name, size in sizes.items())
    row = record.Row("student step", (), "step", 4, 512, SHAPE, unpriced=unpriced)
    text = render.table([row, dataclasses.replace(row, program="teacher step", unpriced=())], chips.parse("v5e:2x2"))
    named = "gather while/body/b (2, 8 KiB), gather while/body/c (2, 4 KiB), gather while/body/d (2, 2 KiB)"
    assert text.endswith(f"\n  student step: {named}")
    assert "while/body/a" not in text
    assert "teacher step: " not in text


def test_every_column_whose_name_does_not_say_it_is_explained():
    table = render.table([record.Row("step", (), "step", 4, 512, SHAPE)], chips.parse("v5e:2x2"))
    header, _, rest = table.partition("\n")
    for column in ("a chip", "of chip", "sent", "loops", "not priced", "ms", "images/s"):
        assert column in re.split(r" {2,}", header)
        assert re.search(rf"\b{column}\b", rest), column


def test_gpus_have_no_model_of_time():
    topology = chips.parse("h100:8")
    table = render.table([record.Row("step", (), "step", 8, 1024, SHAPE)], topology)
    assert "no model of time" in table
    assert "not measurements" not in table


def test_a_program_that_does_not_compile_is_a_row_with_its_reason(ran, capsys):
    def trace():
        raise jax.errors.JaxRuntimeError("INTERNAL: the compiler found no register\nstack")

    broken = programs.Program("quick: pgd", (), 64, SHAPE, programs.PASS, False, "eval.batch_size", trace)
    with pytest.raises(ValueError, match="quick: pgd does not compile for v5e:2x2: INTERNAL: the compiler found no"):
        ran(broken, step("student step", 64))
    assert "student step: compiles" in capsys.readouterr().out, "the others are compiled all the same"


@pytest.mark.parametrize(
    "message",
    [
        "RESOURCE_EXHAUSTED: Ran out of memory on HBM, the total memory required for HLO temporaries (57.32G) exceeds "
        "available HBM (15.75G).",
        "RESOURCE_EXHAUSTED: Ran out of memory in memory space hbm. Used 57.32G of 15.75G hbm. Exceeded hbm capacity.",
    ],
)
@pytest.mark.parametrize(("key", "size"), [("teacher.batch_size", 1124), ("eval.batch_size", 281)])
def test_what_the_compiler_says_of_memory_becomes_a_batch_that_fits(message, key, size, ran):
    def trace():
        raise jax.errors.JaxRuntimeError(message)

    # Evaluations count the images of each of the four chips, training those of all.
    large = programs.Program("teacher step", (), 4096, SHAPE, programs.STEP, True, key, trace)
    with pytest.raises(
        ValueError,
        match=rf"needs 57.32 GiB on a chip where JAX may use 15.75, 41.57 too many. Use {key}={size} or less",
    ):
        ran(large)


def test_a_program_larger_than_the_memory_says_by_how_much(ran, monkeypatch):
    small = chips.Chip("v5e", "tpu", 100, 1e12, 1.0, ("2x2",))
    monkeypatch.setitem(chips.CHIPS, "v5e", small)
    with pytest.raises(
        ValueError, match=r"student step does not fit: .* Use student.batch_size=\d+ or less, or more chips"
    ):
        ran(step("student step", 64))


@pytest.mark.parametrize("name", [f"{chip.name}:{chip.shapes[0]}" for chip in chips.CHIPS.values()])
def test_a_program_fits_by_the_memory_that_a_run_sees(name):
    """JAX takes three quarters of a GPU: a program that fills more than these fails in a run."""
    topology, program = chips.parse(name), step("student step", 64)
    need = rows.compile_row(program, topology).memory
    assert need is not None
    share = 0.75 if topology.chip.platform == "cuda" else 1.0
    for memory, fits in ((int(need / share) + 4, True), (int(need / share) - 4, False)):
        one = dataclasses.replace(topology, chip=dataclasses.replace(topology.chip, memory=memory))
        row = rows.compile_row(program, one)
        assert (row.problem == "") == fits
        assert ("student step does not fit" in row.problem) != fits
        line = next(line for line in render.table([row], one).splitlines() if line.startswith("student step  "))
        assert re.split(r" {2,}", line)[3:7:3] == ["yes" if fits else "no", f"{need / (share * memory):.1%}"]
        assert row.memory == need


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "--topology is missing"),
        (["--topology=v5e:2x4", "--phase=pupil"], "--phase is 'pupil'; give teacher or student"),
        (["--topology=v5e:2x4", "--batch=many"], "--batch is 'many'; give a number of images"),
    ],
)
def test_mistakes_in_the_words_are_told_before_jax_is_loaded(words, message):
    with pytest.raises(command.UsageError, match=message):
        command.main(words, "ltrobust compile")


@pytest.mark.parametrize("name", ["v5e", "v5e:", "tpu:2x4", "h100:3", "v5e:2x2x2"])
def test_unknown_topologies_are_refused(name):
    with pytest.raises(ValueError, match=r"known topologies, CHIP:SHAPE: .*v5e:1x1, .*h200:1, 2"):
        chips.parse(name)


def test_a_topology_knows_its_size():
    assert [chips.parse(name).size for name in ("v5e:1x1", "v5e:16x16", "v5p:2x2x1", "h100:8")] == [1, 256, 4, 8]


def test_where_images_are_kept_is_decided_by_the_memory_that_a_run_sees(monkeypatch):
    seen: list[int] = []
    monkeypatch.setattr(rows, "programs", lambda plan, mesh, only, memory: seen.append(memory) or ())
    monkeypatch.setattr(rows.topologies, "make_devices", lambda topology: None)
    monkeypatch.setattr(rows.devices, "make_mesh", lambda given: None)
    plan: Any = None
    for name in ("v5e:2x2", "h100:1"):
        assert list(rows.compile_rows(plan, chips.parse(name))) == []
    # JAX takes three quarters of a GPU.
    assert seen == [16 * chips.GIB, 84_942_979_072 * 3 // 4]
