"""Cards that were edited by hand and sealed again: numbers that no evaluation gives are named and refused."""

import json
import pathlib

import pytest

from ltrobust.analysis import cards
from ltrobust.analysis.schema.card import Card
from ltrobust.analysis.schema.diagnosis import Diagnosis
from ltrobust.runtime import typed_json

ROOT = pathlib.Path(__file__).resolve().parents[2]
CARD = ROOT / "results" / "sweeps" / "controls_digits" / "at_bsl-seed0.json"
NETWORK = "student/last"


def edited(folder, change):
    """A copy of a committed card, changed and sealed again."""
    content = json.loads(CARD.read_text())
    change(content)
    path = folder / "edited.json"
    path.write_text(json.dumps(content | {"sha256": cards.seal(content)}))
    return path


def column(card):
    return card["networks"][NETWORK]["columns"]["clean"]


COUNTS = {
    "data.class_counts[2]": lambda card: (card["data"]["class_counts"], 2),
    "data.evaluated": lambda card: (card["data"], "evaluated"),
    "model.parameters": lambda card: (card["model"], "parameters"),
    "training.student.steps": lambda card: (card["training"]["student"], "steps"),
    "training.student.examples.class_counts[0]": lambda card: (
        card["training"]["student"]["examples"]["class_counts"],
        0,
    ),
    f"networks.{NETWORK}.columns.clean.correct[1]": lambda card: (column(card)["correct"], 1),
    f"networks.{NETWORK}.confusion.clean[3][4]": lambda card: (
        card["networks"][NETWORK]["confusion"]["clean"][3],
        4,
    ),
}


@pytest.mark.parametrize("value", [-1, -5, 2**53, 10**30, 10**400])
@pytest.mark.parametrize("key", COUNTS)
def test_a_number_of_things_that_cannot_be_is_named(tmp_path, key, value):
    def change(card):
        part, place = COUNTS[key](card)
        part[place] = value

    with pytest.raises(ValueError, match="needed is a whole number from 0 to 2") as refused:
        cards.read(edited(tmp_path, change))
    text = str(refused.value)
    assert f"{tmp_path / 'edited.json'} is no card" in text
    assert f"{key} is {str(value)[:50]}" in text
    assert "Put back a copy of it." in text


def test_every_whole_number_of_a_record_that_is_read_has_limits():
    loose = set()
    for record in (Card, Diagnosis):
        schema = typed_json.schema(record)
        for kind in (schema, *schema["$defs"].values()):
            loose |= {name for name, each in kind["properties"].items() if unlimited(each)}
    assert loose == {"card_version", "seed", "split_seed", "version"}


def unlimited(part):
    """Whether a part of a schema has whole numbers of any size."""
    if isinstance(part, list):
        return any(map(unlimited, part))
    if not isinstance(part, dict):
        return False
    return (part.get("type") == "integer" and "minimum" not in part) or any(map(unlimited, part.values()))


def test_an_integer_beyond_all_floats_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"seconds is 10{59}\.\.\.; needed is a number"):
        cards.read(edited(tmp_path, lambda card: card.update(seconds=10**400)))


def item(card):
    """The first sanity check."""
    return card["networks"][NETWORK]["sanity"][0]


CONTRADICTIONS = {
    r"columns\.clean\.worst\.class_index is 10; needed is a label from 0 to 9": lambda card: column(card)[
        "worst"
    ].update(class_index=10),
    r"most_frequent_confusion is 12; needed is a label from 0 to 9": lambda card: card["networks"][NETWORK].update(
        most_frequent_confusion=[{"predicted": 12, "share": 0.5}] * 10
    ),
    r"sanity\.P\d+\.per_class is 10; needed is a label from 0 to 9": lambda card: item(card).update(
        per_class=[[10, "warn", "1 of 80"]]
    ),
    "in a class more images are right than there are": lambda card: column(card)["correct"].__setitem__(3, 80),
    r"columns\.clean\.classes_without_images is 10; needed is": lambda card: column(card).update(
        classes_without_images=[10]
    ),
    "a phase was trained on no image": lambda card: card["training"]["student"]["examples"].update(
        class_counts=[0] * 10
    ),
    "lists by class have different lengths": lambda card: card["training"]["student"]["examples"]["class_counts"].pop(),
}


@pytest.mark.parametrize("message", CONTRADICTIONS)
def test_a_card_that_contradicts_itself_is_named(tmp_path, message):
    with pytest.raises(ValueError, match=rf"edited\.json is no card: .*{message}.*; put back a copy"):
        cards.read(edited(tmp_path, CONTRADICTIONS[message]))


def test_a_card_on_the_limits_is_read(tmp_path):
    def change(card):
        card["data"]["class_counts"][:2] = [0, 2**53 - 1]
        column(card)["worst"]["class_index"] = 9

    assert list(cards.read(edited(tmp_path, change)).data.class_counts[:2]) == [0, 2**53 - 1]
