"""Tables of speed show the arithmetic and the measurements, and nothing that was not measured."""

import json
import pathlib

import floors
import flops
import jax
import measure
import profile_step
import pytest

from ltrobust import models
from tools import speed, study_page


@pytest.mark.parametrize(
    ("name", "shape", "gmac"),
    [("resnet18", (32, 32, 3), 0.555), ("preact_resnet18", (64, 64, 3), 2.222), ("wrn_34_10", (32, 32, 3), 6.66)],
)
def test_work_of_a_forward_pass_is_that_of_the_literature(name, shape, gmac):
    result = flops.network(models.create(name, num_classes=10), shape)
    assert round(result.forward / 2e9, len(str(gmac)) - 2) == gmac


def test_passes_agree_with_the_methods():
    from ltrobust import methods

    assert flops.PASSES["at_bsl"].equivalents(10) == 23  # ten times forward and image gradient, once a training pass
    for name, passes in flops.PASSES.items():
        result = methods.create(name, methods.InnerAttack()).passes
        assert result is not None
        assert len(result) == passes.differentiated + passes.statistics, name
    # What the study quotes. Logits only: the passes of AT-BSL, and one of the teacher.
    assert methods.create("self_distillation", methods.InnerAttack(), beta=0.0).passes == ("adv",)
    quoted = (flops.PASSES["at_bsl"], flops.Passes(teacher=1), flops.PASSES["self_distillation"])
    names = ("at_bsl", "logits only", "with gradient matching")
    assert [study_page.PASSES[name] for name in names] == [passes.equivalents(10) for passes in quoted]


def test_an_all_reduce_sends_twice_the_data_less_a_share():
    assert speed.all_reduce_seconds(800, 4, 100) == pytest.approx(2 * 3 / 4 * 8)


def test_what_is_not_measured_is_said_and_what_is_measured_is_shown(tmp_path):
    folder = tmp_path / "benchmarks" / "results"
    folder.mkdir(parents=True)
    (folder / "floors.json").write_text(floors.PATH.read_text())
    assert "**Training step**: not measured." in speed.tables(tmp_path)
    row = {"network": "resnet18", "method": "at_bsl", "form": "ours", "dtype": "bfloat16", "batch": 128}
    row["seconds_a_step"] = {"median": 0.02, "least": 0.01, "greatest": 0.03}
    machine = {"processor": "TPU v4", "threads": 8, "backend": "tpu", "devices": 1}
    result = {"machine": machine, "software": {"commit": "0123456789abcdef", "jax": "1.2"}, "rows": [row]}
    result["created"] = "2026-01-02T03:04:05+00:00"
    (folder / "train_step-tpu-v4.json").write_text(json.dumps(result))
    text = speed.tables(tmp_path)
    assert "TPU v4, 8 thread(s), 1 tpu device(s); jax 1.2; 2026-01-02, commit 0123456789ab" in text
    assert "0.02 [0.01, 0.03]" in text
    floor = next(line for line in text.splitlines() if line.startswith("| resnet18 | at_bsl | TPU v4 |"))
    assert floor.endswith("| 20 |")
    size = floors.floors()["networks"]["resnet18"]["exchanged_bytes_a_step"]["at_bsl"]["synchronised"]
    wait = speed.all_reduce_seconds(size, 8, 1.1e15 / 4096)
    line = next(line for line in text.splitlines() if line.startswith("| resnet18 | TPU v4 | 8 |"))
    assert line.endswith(f"| {0.02 / (0.02 + wait):.3f} |")


def test_the_short_table_takes_the_fastest_of_ours_of_each_type_and_says_what_is_missing(tmp_path):
    assert speed.short(tmp_path) == "Against PyTorch: not measured.\n"
    folder = tmp_path / "benchmarks" / "results"
    folder.mkdir(parents=True)
    rows = []
    for devices, rate, dtype in (
        (1, 10.0, "float32"),
        (2, 14.0, "float32"),
        (4, 12.0, "float32"),
        (2, 99.0, "bfloat16"),
    ):
        row = {"network": "resnet18", "method": "at_bsl", "form": "ours", "dtype": dtype, "batch": 128}
        row |= {"devices": devices, "images_per_second": measure.spread([rate]), "compile_cold": 6.2}
        row |= {"compile_cached": 1.9, "speed over torch released, float32": measure.spread([rate / 10, rate / 5])}
        rows.append(row)
    rows.append(rows[0] | {"form": "torch released", "images_per_second": measure.spread([1000.0])})
    result = {
        "machine": {"processor": "P", "threads": 2, "backend": "cpu", "devices": 4},
        "created": "2026-01-02T03",
        "rows": rows,
    }
    result["software"] = {"commit": "0123456789abcdef", "jax": "1.2", "torch": "3.4"}
    (folder / "train_step-p.json").write_text(json.dumps(result))
    rate = measure.spread([5.0])
    pair = [{"network": "resnet18", "form": form, "images_per_second": rate} for form in ("ours", "torch")]
    pair[1]["times_ours"] = measure.spread([1.5])
    (folder / "evaluate_pgd20-p.json").write_text(json.dumps(result | {"rows": pair}))
    (folder / "evaluate_standard-p.json").write_text(json.dumps(result | {"rows": pair}))
    lines = speed.short(tmp_path).splitlines()
    assert lines[2:] == [
        "| PGD-20, resnet18 | 5 |  | 1.50x [1.50, 1.50] |  |",
        "| `at_bsl` step, resnet18, batch 128, 2 device(s) | 14 | 2.10x [1.40, 2.80] |  | 6, 2 |",
        "| `at_bsl` step, resnet18, batch 128, bfloat16, 2 device(s) | 99 | 14.85x [9.90, 19.80] |  | 6, 2 |",
        "",
        "P, 2 thread(s), 4 cpu device(s); jax 1.2, torch 3.4; 2026-01-02, commit 0123456789ab.",
    ]


def test_results_of_an_accelerator_are_shown_beside_the_others(tmp_path):
    (tmp_path / "benchmarks" / "results").mkdir(parents=True)
    (tmp_path / "benchmarks" / "results" / "floors.json").write_text(floors.PATH.read_text())
    folder = tmp_path / "results" / "accelerator" / "a-gpu" / "speed" / "steps"
    folder.mkdir(parents=True)
    row = {"network": "resnet18", "method": "at_bsl", "form": "ours", "dtype": "bfloat16", "batch": 128, "devices": 1}
    row |= {"images_per_second": measure.spread([9000.0]), "compile_cold": 41.0}
    row |= {f"speed over torch {form}": measure.spread([3.0]) for form in ("released, float32", "tuned, bfloat16")}
    result = {"machine": {"processor": "A GPU", "threads": 16, "backend": "gpu", "devices": 1}, "rows": [row]}
    result |= {"created": "2026-01-02", "software": {"commit": "0123456789abcdef", "jax": "1.2"}}
    (folder / "train_step-steps.json").write_text(json.dumps(result))
    (folder / "part.json").write_text("{}")
    ratio = "3.00x [3.00, 3.00]"
    line = f"| A GPU: `at_bsl` step, resnet18, batch 128, bfloat16, 1 device(s) | 9,000 | {ratio} | {ratio} | 41 |"
    assert line in speed.short(tmp_path)
    assert "**Training step**: A GPU, 16 thread(s), 1 gpu device(s)" in speed.tables(tmp_path)


def test_measurements_take_turns_and_results_are_not_replaced(tmp_path, capsys):
    called = []
    calls = {name: lambda name=name: called.append(name) for name in "abc"}
    times = measure.interleave(calls, 3)
    assert "".join(called) == "abc" + "abc" + "bca" + "cab"  # one to warm up, then the first is another each time
    assert {name: len(seconds) for name, seconds in times.items()} == dict.fromkeys("abc", 3)
    given = measure.parser("").parse_args(["--machine=My Machine", f"--results={tmp_path}"])
    path = measure.begin(given, "example")
    assert path == tmp_path / "example-my-machine.json"
    measure.finish(path, given, [{"seconds": measure.spread([3.0, 1.0, 2.0])}])
    assert "| 2 [1, 3] |" in capsys.readouterr().out
    assert str(tmp_path) not in path.read_text()
    with pytest.raises(SystemExit, match="exists; give another --machine"):
        measure.begin(given, "example")
    given.overwrite = True
    assert measure.begin(given, "example") == path


@pytest.mark.skipif(not pathlib.Path("/proc/self/status").exists(), reason="no /proc on this system")
def test_memory_of_a_process_is_its_own(tmp_path):
    script = tmp_path / "script.py"
    script.write_text("import sys\nheld = bytearray(int(sys.argv[1]))\n")
    here = bytearray(300_000_000)
    small, large = (measure.process_memory([str(script), str(size)]) for size in (0, 200_000_000))
    assert small < len(here)
    assert large - small == pytest.approx(200e6, rel=0.05)


def test_xla_counts_a_loop_once():
    """What `flops.counted` is built on."""
    shape = jax.ShapeDtypeStruct((16, 16), "float32")

    def count(trips: int) -> float:
        body = lambda _, x: x @ x  # noqa: E731
        program = jax.jit(lambda x: jax.lax.fori_loop(0, trips, body, x)).lower(shape).compile()
        return program.cost_analysis()["flops"]

    once = count(3)
    assert once == count(7)
    assert 2 * 16**3 <= once < 2 * 16**3 + 100


def test_autotuning_is_kept_with_compiled_programs():
    """What the page says of JAX's default."""
    assert jax.config.jax_persistent_cache_enable_xla_caches == "xla_gpu_per_fusion_autotune_cache_dir"


def test_a_profile_sums_operations_by_place_and_kind():
    loop = "jit(f)/while/body/closed_call"
    program = "\n".join(
        [
            f'  %fusion.1 = f32[2]{{0}} fusion(%p), metadata={{op_name="{loop}/{loop}/jvp(N)/stage1/conv2/dot"}}',
            f'  %fusion.2 = f32[2]{{0}} fusion(%p), metadata={{op_name="{loop}/{loop}/jvp(N)/stage2/conv1/dot"}}',
            f'  ROOT %dot = f32[] dot(%a), metadata={{op_name="{loop}/transpose(jvp(N))/norm1/while/body/add" line=3}}',
            "  %copy.7 = f32[2]{0} copy(%p)",
            f'  %while.1 = (f32[]) while(%t), metadata={{op_name="{loop}/while"}}',
            f'  %unused = f32[] add(%a, %b), metadata={{op_name="{loop}/add"}}',
        ]
    )
    events = {"fusion.1": (2, 3.0), "fusion.2": (1, 3.0), "dot": (4, 2.0), "copy.7": (1, 1.0), "while.1": (1, 9.0)}
    rows = profile_step.summed(events | {"python": (1, 99.0)}, program, top=2)
    assert [(row["where"], row["operation"], row["calls"], row["ms"]) for row in rows] == [
        ("attack", "conv: dot", 3, 6000.0),
        ("update, backward", "norm: add (Winograd)", 4, 2000.0),
        ("", "others", 0, 1000.0),
    ]
    assert sum(row["share"] for row in rows) == 1
