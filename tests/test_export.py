"""Networks as files: what is written is read back, computes the same logits, and gets the same verdicts."""

import hashlib
import importlib
import json
import sys
import types
from typing import Any

import fabricated
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import yaml

import ltrobust as lt
from ltrobust import exporter, models
from ltrobust.commands import export, main, weights_file
from ltrobust.data import sources
from ltrobust.methods import DecisionRule, Teacher
from ltrobust.models import Head, torch_weights
from ltrobust.models.model_plan import ModelPlan
from ltrobust.report import model_card, run_page
from ltrobust.training.state import Weights

SHAPE = (8, 8, 1)
LINEAR, NO_RULE = Head(), DecisionRule()


def restored(name: str = "small_resnet", head: Head = LINEAR, rule: DecisionRule = NO_RULE) -> Any:
    """A network with drawn weights, as if it came from a checkpoint."""
    model = ModelPlan(name, 4, 1, 1, "relu", "bfloat16", False, {})
    module = model.create(10, head=head, exact=True)
    params, batch_stats = models.initialise(module, jax.random.key(0), SHAPE)
    method, metadata = types.SimpleNamespace(name="robal", head=head), types.SimpleNamespace(image_shape=SHAPE)
    saved = types.SimpleNamespace(model=model, method=method, rule=rule, num_classes=10, metadata=metadata)
    return types.SimpleNamespace(saved=saved, module=module, weights=Weights(params, batch_stats))


def logits_of(found: Any, images: jax.Array) -> jax.Array:
    weights = found.weights
    return Teacher(found.module, weights.params, weights.batch_stats, found.saved.rule).logits(images)


def images(count: int) -> jax.Array:
    return jax.random.uniform(jax.random.key(1), (count, *SHAPE))


@pytest.mark.parametrize("to", ["torch", "safetensors"])
def test_a_state_dict_is_read_back_bit_for_bit(to, tmp_path):
    pytest.importorskip(to)
    result, path = restored(), tmp_path / exporter.FILES[to]
    path.write_bytes(exporter.content(to, result))
    params, batch_stats = torch_weights.from_torch(torch_weights.read(path), "small_resnet")
    jax.tree.map(
        np.testing.assert_array_equal, (params, batch_stats), (result.weights.params, result.weights.batch_stats)
    )
    tensors = torch_weights.read(path)
    assert tensors["layer2.0.shortcut.0.weight"].shape == (8, 4, 1, 1)
    if to == "torch":
        content = importlib.import_module("torch").load(path, weights_only=True)
        assert {name: tuple(tensor.shape) for name, tensor in content.items()} == {
            name: tensor.shape for name, tensor in tensors.items()
        }


def doubled(outputs: jax.Array, class_counts: jax.Array) -> jax.Array:
    return 2 * outputs - class_counts


@pytest.mark.slow
@pytest.mark.parametrize(
    ("head", "rule"), [(LINEAR, NO_RULE), (Head("cosine"), DecisionRule(doubled, tuple(range(10))))]
)
def test_stablehlo_has_the_same_logits_and_gradients_for_any_batch(head, rule):
    pytest.importorskip("flatbuffers")
    result = restored(head=head, rule=rule)
    exported = jax.export.deserialize(bytearray(exporter.content("stablehlo", result)))
    assert set(exported.platforms) == {"cpu", "cuda", "tpu"}
    assert str(exported.in_avals[0].shape[0]) == "batch"
    assert exported.in_avals[0].shape[1:] == SHAPE

    def slope(function: Any, points: jax.Array) -> jax.Array:
        return jax.grad(lambda x: jnp.sum(function(x) ** 2))(points)

    for count in (1, 3):
        points = images(count)
        np.testing.assert_allclose(exported.call(points), logits_of(result, points), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(
        slope(exported.call, points), slope(lambda x: logits_of(result, x), points), rtol=1e-3, atol=1e-5
    )


def test_a_network_that_asks_for_the_length_of_a_batch_takes_one_image(monkeypatch):
    pytest.importorskip("flatbuffers")
    result = restored()
    logits = Teacher.logits
    monkeypatch.setattr(Teacher, "logits", lambda self, points: logits(self, points)[: len(points)])
    with pytest.warns(UserWarning, match="one image at a time, because its batch cannot stay open: "):
        exported = jax.export.deserialize(bytearray(exporter.content("stablehlo", result)))
    assert exported.in_avals[0].shape == (1, *SHAPE)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"head": Head("cosine")}, "trained by robal, whose head or rule .* --to=stablehlo"),
        ({"rule": DecisionRule(doubled, (1,))}, "trained by robal, whose head or rule .* --to=stablehlo"),
    ],
)
def test_what_a_state_dict_cannot_hold_is_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        exporter.content("safetensors", restored(**settings))


def test_a_network_without_pytorch_names_is_refused():
    result = restored()
    result.saved.model = types.SimpleNamespace(name="MyNet")
    with pytest.raises(ValueError, match=r"no PyTorch names are known for 'MyNet'; .*--to=stablehlo"):
        exporter.content("torch", result)


@pytest.mark.parametrize(
    ("to", "module"), [("torch", "torch"), ("safetensors", "safetensors.numpy"), ("stablehlo", "flatbuffers")]
)
def test_a_missing_library_is_named_with_its_remedy(monkeypatch, to, module):
    result = restored()
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ValueError, match=rf"{module} is not installed; run: pip install -e '\.\[{to}\]'"):
        exporter.content(to, result)


def test_files_are_named_after_the_network_and_never_overwritten(tmp_path):
    assert exporter.target(tmp_path, "torch", "teacher/last", None) == tmp_path / "exports/teacher-last/model.pt"
    assert exporter.target(tmp_path, "torch", "student/last", tmp_path / "a.pth") == tmp_path / "a.pth"
    with pytest.raises(ValueError, match=r"to is 'onnx'; known: torch, safetensors, stablehlo, model-card"):
        exporter.target(tmp_path, "onnx", "student/last", None)
    with pytest.raises(ValueError, match=r"a\.pt; safetensors files end in \.safetensors"):
        exporter.target(tmp_path, "safetensors", "student/last", tmp_path / "a.pt")
    (tmp_path / "README.md").write_text("mine")
    with pytest.raises(FileExistsError, match=r"README\.md exists; nothing is overwritten"):
        exporter.target(tmp_path, "model-card", "student/last", tmp_path / "README.md")


# Model cards


def front_matter(text: str) -> tuple[dict[str, Any], str]:
    _, front, body = text.split("---\n", 2)
    return yaml.safe_load(front), body


def test_a_model_card_has_what_hubs_read_and_what_people_read(tmp_path):
    names = ["a|b", "<i>", *(f"class {n}" for n in range(8))]
    fabricated.write_run(tmp_path / "run", names=names, limit=2)
    fabricated.write_run(tmp_path / "run", names=names, protocol="validation", radius=8.0)
    run = lt.open_run(tmp_path / "run")
    path = run.export("model-card")
    assert path == tmp_path / "run" / "exports" / "student-last" / "README.md"
    text = path.read_text()
    front, body = front_matter(text)
    assert "license" not in front
    assert "# license: not known" in text
    assert (front["datasets"], front["pipeline_tag"]) == (["digits"], "image-classification")
    assert {"ltrobust", "adversarial-robustness", "small_resnet"} <= set(front["tags"])
    (entry,) = front["model-index"]
    assert entry["name"] == "run-student-last"
    cards = {card.protocol.name: card for card in run.cards.values()}
    assert len(entry["results"]) == 2
    for result in entry["results"]:
        card = cards[result["dataset"]["args"]["protocol"]]
        columns = card.networks["student/last"].columns
        assert result["dataset"] == {
            "type": "digits",
            "name": "digits, imbalance ratio 10",
            "split": "test",
            "args": {"images": card.data.evaluated, "protocol": card.protocol.name},
        }
        for metric in result["metrics"]:
            column = columns[metric["args"]["attack"]]
            assert metric["value"] in [round(column.value(view), 6) for view in ("overall", "worst", "tail_third")]
            radius = metric["args"].get("radius")
            assert radius == (None if metric["args"]["attack"] == "clean" else f"{card.threat.radius:g}/255")
        assert f"SHA-256 {card.sha256}" in body
        assert card.software["commit"] in body
    assert "a\\|b" in body
    assert "<i>" not in body.partition("<details>")[0]
    configuration = json.loads(body.partition("```json")[2].partition("```")[0])
    assert configuration == json.loads(json.dumps(run.card.config))
    with pytest.raises(FileExistsError, match="nothing is overwritten"):
        run.export("model-card")


def test_names_break_neither_yaml_nor_markdown(tmp_path):
    names = ["a`b", "[x](y)", *(f"class {n}" for n in range(8))]
    folder = tmp_path / "r\x7f\x85\u2028\udce9"
    fabricated.write_run(folder, names=names, limit=2)
    text = model_card.render(folder, "student/last")
    text.encode()
    front, body = front_matter(text)
    assert front["model-index"][0]["name"].startswith("r")
    assert front["model-index"][0]["name"].endswith("-student-last")
    assert not {"\x7f", "\x85", "\u2028"} & set(text)
    assert "a\\`b" in body
    assert "\\[x\\](y)" in body
    hostile = "<script>alert(1)</script>\n# title\n![x](http://example.org/x.png)"

    def change(card):
        card["model"]["name"] = card["data"]["name"] = card["protocol"]["note"] = hostile

    fabricated.change_card(folder / "results" / "quick.json", change)
    _, body = front_matter(model_card.render(folder, "student/last"))
    assert not [part for part in ("<script", "\n# title", "![x]") if part in body]


def test_a_network_that_was_not_evaluated_has_no_model_card(tmp_path):
    fabricated.write_run(tmp_path)
    with pytest.raises(ValueError, match=r"no evaluation of 'student/averaged'.*evaluated networks: teacher/last, stu"):
        model_card.render(tmp_path, "student/averaged")


# A run


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> lt.Run:
    """A run of four steps, evaluated on three images of each class."""
    config = lt.config("digits")
    config.update_from_flattened_dict(
        {
            "data.imbalance_ratio": 4.0,
            "model.width": 4,
            "student.method": "at_bsl",
            "student.initialize": "scratch",
            "student.steps": 4,
            "student.attack.steps": 1,
            "eval.protocol": "validation",
            "eval.limit": 3,
            "eval.also": (),
        }
    )
    return lt.train(config, tmp_path_factory.mktemp("export") / "run")


@pytest.mark.parametrize("to", ["torch", "safetensors"])
def test_an_exported_file_is_evaluated_again_with_equal_verdicts(whole, to, tmp_path):
    pytest.importorskip(to)
    path = whole.export(to, out=tmp_path / exporter.FILES[to])
    weights_file.evaluate(recorded(whole), tmp_path / "again", weights=str(path))
    again = lt.open_run(tmp_path / "again")
    (name,) = again.networks
    assert name == f"file/model-{hashlib.sha256(path.read_bytes()).hexdigest()[:8]}"
    before, after = whole.card.networks["student/last"], again.card.networks[name]
    assert (before.params_sha256, before.columns) == (after.params_sha256, after.columns)
    first, second = whole.evaluation("student/last"), again.evaluation(name)
    assert first.predictions.keys() == second.predictions.keys()
    for column, predictions in first.predictions.items():
        np.testing.assert_array_equal(predictions, second.predictions[column])
    assert again.card.config["weights"]["file"] == path.name
    assert name in run_page.write(tmp_path / "again", data_dir="", cache_dir="").read_text()
    assert "They were trained by" not in model_card.render(tmp_path / "again", name)


def recorded(run: lt.Run) -> Any:
    """The configuration of a run."""
    from ltrobust.commands import recorded

    return recorded.get_config(str(run.workdir / "config.json"))


def test_one_of_several_networks_in_a_file_is_evaluated(whole, tmp_path):
    pytest.importorskip("safetensors")
    tensors = torch_weights.read(whole.export("safetensors", out=tmp_path / "one.safetensors"))
    both = {f"{name}.{leaf}": tensor for name in ("model", "ema") for leaf, tensor in tensors.items()}
    torch_weights.write(tmp_path / "both.safetensors", both)
    given = {"weights": str(tmp_path / "both.safetensors")}
    with pytest.raises(ValueError, match=r"2 networks among the arrays: ema, model\. .*--key=ema"):
        weights_file.evaluate(recorded(whole), tmp_path / "again", **given)
    assert not (tmp_path / "again").exists()
    weights_file.evaluate(recorded(whole), tmp_path / "again", weights=f"{given['weights']}::ema")
    (name,) = lt.open_run(tmp_path / "again").networks
    assert name.startswith("file/both.ema-")


def test_the_logits_of_an_exported_file_can_be_evaluated(whole, tmp_path):
    pytest.importorskip("flatbuffers")
    exported = jax.export.deserialize(bytearray(whole.export("stablehlo", out=tmp_path / "a.stablehlo").read_bytes()))
    evaluation = whole.evaluation("student/last")
    points = jnp.asarray(np.random.default_rng(0).random((5, *SHAPE), np.float32))
    np.testing.assert_allclose(exported.call(points), whole.logits_fn()(points), rtol=1e-4, atol=1e-5)
    test = sources.load("digits", "test")
    result = lt.evaluate(
        exported.call,
        test.images[evaluation.ids],
        evaluation.labels,
        ids=evaluation.ids,
        protocol="validation",
        threat=evaluation.threat,
        progress=False,
    )
    np.testing.assert_array_equal(result.robust, evaluation.robust)


def test_the_verb_writes_and_names_the_file(whole, tmp_path, capsys):
    pytest.importorskip("safetensors")
    words = ["export", str(whole.workdir), "--to=safetensors", f"--out={tmp_path / 'a.safetensors'}"]
    main.call(words)
    assert capsys.readouterr().out == f"written: {tmp_path / 'a.safetensors'}\n"
    with pytest.raises(SystemExit):
        main.call(words)
    assert "nothing is overwritten" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main.call([*words[:2], "--to=safetensors", "--network=student/best"])
    assert "no network 'student/best'; its checkpoint holds student/last" in capsys.readouterr().err


def test_the_verb_knows_every_kind_of_file():
    assert tuple(exporter.FILES) == export.KINDS
