"""The verdict store: append-only, readable while written, refuses strangers; a killed evaluation continues."""

import contextlib
import dataclasses
import json
import os
import pathlib
import subprocess
import sys

import jax
import numpy as np
import pytest
from linear import apply, exactly_robust, fixture
from short_protocol import ROWS, SHORT, run

import ltrobust
from ltrobust.analysis import card_parts, recorded
from ltrobust.evaluation import protocols, store, verdict
from ltrobust.evaluation.drive import Driver, Subject
from ltrobust.evaluation.store import Store
from ltrobust.evaluation.verdict import FIELDS
from ltrobust.evaluator import describe, make_evaluator
from ltrobust.runtime import typed_json


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """An uninterrupted evaluation and its store."""
    folder = tmp_path_factory.mktemp("store") / "whole"
    return run(folder), folder


@pytest.mark.slow
def test_the_store_holds_every_verdict_of_the_evaluation(whole):
    evaluation, folder = whole
    provenance, verdicts = store.read(folder)
    assert provenance["protocol"]["name"] == "short"
    assert list(verdicts) == ["clean", *(attack.name for attack in SHORT.attacks)]
    assert sorted(verdicts["clean"]) == ROWS.tolist()
    for name, records in verdicts.items():
        for place, identity in enumerate(ROWS):
            if identity in records:
                assert records[identity].prediction == evaluation.predictions[name][place]
    broken = [line for line in verdicts["apgd-ce"].values() if line.prediction != line.label]
    assert broken
    assert all(0 < line.evaluations <= 31 and line.margin < 0 for line in broken)
    assert all(line.norm <= 8 / 255 + 1e-6 for line in broken)
    np.testing.assert_array_equal(evaluation.robust, exactly_robust(8, ROWS))


def test_a_second_call_repeats_nothing(whole, monkeypatch):
    evaluation, folder = whole
    before = (folder / "verdicts.jsonl").read_bytes()

    def attack(self, subject, attack, rows, logits):
        assert not len(rows), attack.name
        return iter(())

    monkeypatch.setattr(Driver, "attack", attack)
    again = run(folder)
    assert (folder / "verdicts.jsonl").read_bytes() == before
    for column, predictions in evaluation.predictions.items():
        np.testing.assert_array_equal(predictions, again.predictions[column])
    for name, record in evaluation.records.items():
        for field in FIELDS:
            np.testing.assert_array_equal(record[field], again.records[name][field])


KILLED = """
import os, signal, sys
sys.path[:0] = {paths!r}
import jax
jax.config.update("jax_numpy_dtype_promotion", "strict")
from ltrobust.evaluation.drive import Driver, Subject
from ltrobust.evaluation.store import Store
from ltrobust.evaluation.verdict import FIELDS
append = Store.append
def dying(self, attack, *verdicts):
    append(self, attack, *verdicts)
    if attack == sys.argv[2]:
        with open(os.path.join(sys.argv[1], "verdicts.jsonl"), "ab") as lines:
            lines.write(b'{{"attack":"' + attack.encode() + b'","ima')
        os.kill(os.getpid(), signal.SIGKILL)
Store.append = dying
import short_protocol
short_protocol.run(sys.argv[1])
"""


@pytest.mark.slow
@pytest.mark.ci
def test_killed_in_every_attack_and_resumed_it_ends_with_the_same_verdicts(whole, tmp_path, capsys):
    evaluation, _ = whole
    here = pathlib.Path(__file__).resolve().parent
    code = KILLED.format(paths=[str(here), str(here.parent), str(here.parents[1])])
    folder = tmp_path / "killed"
    environment = os.environ | {"JAX_PLATFORMS": jax.default_backend()}
    left = {}
    for attack in ("clean", *(attack.name for attack in SHORT.attacks)):
        died = subprocess.run([sys.executable, "-c", code, str(folder), attack], env=environment, capture_output=True)
        assert died.returncode == -9, died.stderr.decode()
        known = store.read(folder)[1]
        left[attack] = len(store.read(whole[1])[1][attack]) - len(known[attack])
    # Each was killed with images left to do (all images of `clean` are written at once).
    assert all(count > 0 for attack, count in left.items() if attack != "clean"), left
    resumed = run(folder)
    assert "incomplete or damaged record(s) dropped" in capsys.readouterr().out
    for column, predictions in evaluation.predictions.items():
        np.testing.assert_array_equal(predictions, resumed.predictions[column])
    for name, record in evaluation.records.items():
        np.testing.assert_array_equal(record["evaluations"], resumed.records[name]["evaluations"])
    lines = (folder / "verdicts.jsonl").read_text().splitlines()
    whole_lines = [json.loads(line) for line in lines if line.endswith("}")]
    names = [(record["attack"], record["image"]) for record in whole_lines]
    assert len(names) == len(set(names)), "an image was attacked twice"


@pytest.mark.parametrize("change", ["seed", "images", "network", "protocol"])
def test_a_store_of_something_else_is_refused_with_both_provenances(whole, change, monkeypatch):
    _, folder = whole
    before = (folder / "verdicts.jsonl").read_bytes()
    weights, images, labels = fixture()
    settings = {"protocol": SHORT, "threat": ltrobust.Threat(), "num_classes": 10, "batch_size": 64}
    images = images[ROWS]
    expected = {
        "seed": "seed: 0 -> 1",
        "images": "sha256",
        "network": r"network\.logits",
        "protocol": 'name: "short" -> "quick"',
    }
    if change == "seed":
        settings["seed"] = 1
    elif change == "images":
        images = np.clip(images + np.float32(0.001), 0, 1)
    elif change == "network":
        weights = weights * np.float32(1.01)
    else:
        settings["protocol"] = protocols.get("quick")
    with pytest.raises(ValueError, match=r"(?s)belongs to another evaluation.*" + expected[change]):
        make_evaluator(apply, **settings)(weights, images, labels[ROWS], ids=ROWS, store=folder)
    assert (folder / "verdicts.jsonl").read_bytes() == before


@pytest.mark.parametrize("name", protocols.PROTOCOLS)
def test_what_a_store_holds_of_a_protocol_is_read_back_as_that_protocol(name, tmp_path):
    protocol, labels, threat = protocols.get(name), np.array([1]), ltrobust.Threat()
    subject = Subject(None, np.zeros((1, 2, 2, 1), np.uint8), labels, np.arange(1))
    provenance = describe(protocol, threat, 0, subject, 10, {})
    wrong = verdict.unseen(1)
    wrong["prediction"] = 0  # wrong when clean, so that no attack has to have a verdict
    with contextlib.closing(Store(tmp_path / "store", provenance)) as opened:
        opened.append("clean", [0], labels, wrong)
    result = recorded.evaluation(*store.read(tmp_path / "store"))
    assert result.protocol == protocol
    card = card_parts.describe_protocol(protocol, 0, 10)
    written = typed_json.parse(type(card), json.loads(json.dumps(typed_json.plain(card), allow_nan=False)))
    radii = {attack.name: attack.settings.get("radius") for attack in written.attacks}
    for attack in protocol.attacks:
        radius = getattr(attack, "radius", None)
        assert radii[attack.name] == ("unbounded" if radius == np.inf else radius)


def test_a_folder_that_is_no_store_is_left_alone(tmp_path):
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(ValueError, match="neither empty nor a verdict store"):
        Store(tmp_path, {})
    with pytest.raises(ValueError, match=r"no provenance\.json"):
        store.read(tmp_path)
    assert (tmp_path / "thesis.txt").read_text() == "years of work"


def test_a_store_from_before_provenance_json_is_refused_by_its_format(tmp_path):
    (tmp_path / "passport.json").write_text('{"format": 4}')
    for opened in (lambda: Store(tmp_path, {}), lambda: store.read(tmp_path)):
        with pytest.raises(ValueError, match="has format 4, this version reads 5; evaluate again"):
            opened()


@pytest.mark.parametrize("count", [-1, 2**53, 10**30, 1.5])
def test_numbers_of_training_images_that_cannot_be_are_named(tmp_path, count):
    provenance = {"format": store.FORMAT, "about": {"training_counts": [5, count]}}
    (tmp_path / "provenance.json").write_text(json.dumps(provenance))
    with pytest.raises(
        ValueError, match=r"provenance\.json is damaged: about\.training_counts\[1\] is .*a whole number from 0"
    ):
        store.read_provenance(tmp_path)


def test_a_link_that_leads_nowhere_is_no_store(tmp_path):
    (tmp_path / "store").symlink_to(tmp_path / "gone")
    with pytest.raises(ValueError, match=r"verdict store .*store cannot be written .*give another folder"):
        Store(tmp_path / "store", {})
    assert not (tmp_path / "gone").exists()


@pytest.mark.parametrize("seed", [0, 1])
def test_a_store_that_another_process_makes_at_the_same_moment_is_compared(tmp_path, monkeypatch, seed):
    real = store.write_json

    def late(path, value, *, new):
        real(path, {"format": store.FORMAT, "seed": 0})
        real(path, value, new=new)

    monkeypatch.setattr(store, "write_json", late)
    with pytest.raises(ValueError, match="seed: 0 -> 1") if seed else contextlib.nullcontext():
        Store(tmp_path, {"seed": seed}).close()
    assert store.read_provenance(tmp_path)["seed"] == 0


def test_a_store_whose_provenance_was_half_written_is_begun_again(tmp_path):
    (tmp_path / "provenance.json.0a1b2c3d.partial").write_text('{"form')
    Store(tmp_path, {"seed": 0}).close()
    assert store.read(tmp_path) == ({"format": store.FORMAT, "seed": 0}, {})


@pytest.mark.slow
def test_adversarial_images_are_kept_where_asked_for(tmp_path):
    evaluation = run(tmp_path / "kept", keep_images=True)
    weights, images, labels = fixture()
    _, verdicts = store.read(tmp_path / "kept")
    for place in np.flatnonzero(~evaluation.robust)[:20]:
        identity = int(ROWS[place])
        name = next(name for name in ("apgd-ce", "apgd-t") if verdicts[name][identity].prediction != labels[identity])
        record = verdicts[name][identity]
        adversarial = store.read_adversarial(tmp_path / "kept", record, (8, 8, 3))
        assert np.abs(adversarial - images[identity]).max() <= 8 / 255 + 1e-6
        assert np.abs(adversarial - images[identity]).max() == pytest.approx(record.norm)
        assert int(np.argmax(apply(weights, adversarial[None]))) == record.prediction != labels[identity]
    with pytest.raises(ValueError, match="none were kept"):
        store.read_adversarial(tmp_path / "kept", dataclasses.replace(record, adversarial_at=None), (8, 8, 3))


def test_of_a_sample_the_images_of_the_protocols_attacks_are_kept(tmp_path):
    provenance = {"protocol": {"attacks": [{"name": "pgd20"}]}}
    images = np.random.RandomState(0).rand(3, 2, 2, 1).astype(np.float32)
    ids, labels, result = np.array([5, 7, 9]), np.zeros(3, int), verdict.unseen(3)
    for part in (slice(0, 2), slice(2, 3)):  # the second time resumes
        kept = Store(tmp_path, provenance, sample=np.array([7, 9, 11]))
        for name in ("pgd20", "panel/pgd100"):
            kept.append(name, ids[part], labels[part], result[part], images[part])
        kept.close()
    _, lines = store.read(tmp_path)
    assert [image for image, line in lines["pgd20"].items() if line.adversarial_at is not None] == [7, 9]
    assert not any(line.adversarial_at for line in lines["panel/pgd100"].values())
    for place in (1, 2):
        there = store.read_adversarial(tmp_path, lines["pgd20"][ids[place]], (2, 2, 1))
        np.testing.assert_array_equal(there, images[place])
    assert (tmp_path / "adversarial.f32").stat().st_size == 2 * 4 * 4


@pytest.mark.slow
def test_running_out_of_memory_halves_the_batch_and_changes_nothing(whole, capsys):
    evaluation, _ = whole

    def narrow(weights, points):
        if len(points) > 64:
            raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 1 bytes.")
        return apply(weights, points)

    result = run(batch_size=256, function=narrow, exact_apply=apply)
    assert "continuing with 64 images per batch" in capsys.readouterr().out
    for column, predictions in evaluation.predictions.items():
        np.testing.assert_array_equal(predictions, result.predictions[column])


def test_other_errors_are_not_taken_for_a_lack_of_memory():
    def broken(weights, points):
        raise jax.errors.JaxRuntimeError("INTERNAL: something else")

    with pytest.raises(jax.errors.JaxRuntimeError, match="something else"):
        run(function=broken, exact_apply=apply)
