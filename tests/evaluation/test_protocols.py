"""Protocols: what they consist of is frozen in a file, under names that nothing else may have."""

import dataclasses
import json
from typing import Any

import numpy as np
import pytest

from ltrobust.attacks.algorithms.apgd import LOSSES as APGD_LOSSES
from ltrobust.evaluation import protocols
from ltrobust.threat import Threat
from tools import freeze_protocols

EVERY = [(name, attack) for name, protocol in protocols.PROTOCOLS.items() for attack in protocol.attacks]
AA = ("apgd-ce", "apgd-t", "fab-t", "square")


def threat_of(name: str) -> Threat:
    return Threat("linf", protocols.get(name).radius or 8)


def build(attack, threat, num_classes):
    search, settings = attack.build(threat, num_classes, (32, 32, 3))
    return search, {name: np.asarray(value) for name, value in settings.items()}


def flat(value: Any, path: str = "") -> dict[str, Any]:
    """Every setting by the path to it, such as `standard / attacks / apgd-t / runs`."""
    if not isinstance(value, dict):
        return {path: value}
    result = {}
    for name, part in value.items():
        result |= flat(part, f"{path} / {name}" if path else name)
    return result


def differences(frozen: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """A line for each setting that is another one, or that only one side has."""
    before, after = flat(frozen), flat(now)
    shown = lambda side, path: json.dumps(side[path]) if path in side else "not there"  # noqa: E731
    paths = sorted(path for path in before | after if shown(before, path) != shown(after, path))
    return [f"{path}: {shown(before, path)} -> {shown(after, path)}" for path in paths]


def test_protocols_are_those_of_the_frozen_file():
    lines = differences(json.loads(freeze_protocols.FROZEN.read_text()), freeze_protocols.description())
    if lines:
        how = "Published numbers depend on these. Where the change is meant: python -m tools.freeze_protocols"
        pytest.fail("\n".join([f"{freeze_protocols.FROZEN.name} -> now:", *lines, how]), pytrace=False)


def test_a_changed_setting_is_shown_with_both_values(monkeypatch):
    (pgd20,) = protocols.get("validation").attacks
    other = dataclasses.replace(protocols.get("validation"), attacks=(dataclasses.replace(pgd20, steps=10),))
    frozen = freeze_protocols.description()
    monkeypatch.setitem(protocols.PROTOCOLS, "validation", other)
    monkeypatch.setitem(protocols.PROTOCOLS, "new", dataclasses.replace(other, name="new"))
    lines = differences(frozen, freeze_protocols.description())
    assert lines[-1] == "validation / attacks / pgd20 / steps: 20 -> 10"
    assert 'new / columns: not there -> ["pgd20"]' in lines


def test_a_protocol_goes_by_its_own_name():
    assert [protocol.name for protocol in protocols.PROTOCOLS.values()] == list(protocols.PROTOCOLS)


def test_targets_are_other_classes_and_the_loss_exists():
    """Nine targets at most, but torchattacks' default takes all; DLR needs four classes."""
    for name, attack in EVERY:
        for num_classes in range(2, 30):
            _, settings = build(attack, threat_of(name), num_classes)
            if not getattr(attack, "targets", 0):
                assert settings.get("runs", 1) == 1
                continue
            most = num_classes if attack.name.startswith("aa_ta10/") else 9
            assert settings["runs"] == min(most, num_classes - 1), attack.name
            if isinstance(attack, protocols.Apgd):
                assert APGD_LOSSES[settings["loss"]] == ("targeted_dlr" if num_classes >= 4 else "difference")


def test_an_attack_runs_at_the_radius_that_is_said_of_it():
    for name, attack in EVERY:
        _, settings = build(attack, threat_of(name), 10)
        assert settings["radius"] == np.float32(protocols.radius_of(attack, threat_of(name)))
        assert np.isinf(settings["radius"]) == (attack.name in ("cw_l2", "deepfool"))


def test_only_sequences_leave_out_broken_images():
    for _, attack in EVERY:
        prefix, _, name = attack.name.rpartition("/")
        expected = AA[: AA.index(name)] if name in AA else ()
        assert attack.after == tuple(f"{prefix}/{before}" if prefix else before for before in expected)


def test_fractions_of_the_radius_give_the_published_steps_at_another_radius():
    attack = protocols.get("quick").attacks[1]
    _, settings = build(attack, Threat("linf", 4), 10)
    assert settings["step_size"] == np.float32(1 / 255)


def test_only_the_standard_protocol_is_called_autoattack():
    for name, protocol in protocols.PROTOCOLS.items():
        columns = ["clean", *(attack.name for attack in protocol.attacks), *(column for column, _ in protocol.combined)]
        for num_classes in (2, 3, 4, 10, 100, 200):
            titles = {column: protocols.title(column, num_classes) for column in columns}
            named = {column for column, title in titles.items() if "autoattack" in title.lower()}
            assert named == ({"autoattack"} if name == "standard" else set())
            assert "autoattack" not in name.lower()
    titles = {num_classes: protocols.title("autoattack", num_classes) for num_classes in (2, 3, 4, 9, 10, 100)}
    assert titles == {
        2: "AutoAttack-like (2 classes)",
        3: "AutoAttack-like (3 classes)",
        4: "AutoAttack (standard, 3 targets)",
        9: "AutoAttack (standard, 8 targets)",
        10: "AutoAttack (standard)",
        100: "AutoAttack (standard)",
    }


def test_the_headline_is_the_last_combination_or_the_last_attack():
    for protocol in protocols.PROTOCOLS.values():
        columns = [attack.name for attack in protocol.attacks] + [column for column, _ in protocol.combined]
        assert protocol.headline == columns[-1]
    assert protocols.get("standard").headline == "autoattack"
    assert protocols.get("quick").headline == "worst"


def test_an_unknown_protocol_is_refused_with_the_known_names():
    with pytest.raises(ValueError, match="'legacy_taet'") as error:
        protocols.get("legacy_taet")
    for name in protocols.PROTOCOLS:
        assert name in str(error.value)


@pytest.mark.parametrize("name", protocols.PROTOCOLS)
def test_a_published_protocol_exists_at_its_radius_only(name):
    protocol = protocols.get(name)
    protocols.check_threat(protocol, threat_of(name))
    others = [Threat("linf", 4), Threat("linf", 8.1), Threat("l2", 8)]
    for threat in others:
        if protocol.radius is None:
            protocols.check_threat(protocol, threat)
        else:
            with pytest.raises(ValueError, match=f"'{name}' is defined at linf"):
                protocols.check_threat(protocol, threat)


def test_protocols_and_attacks_are_frozen():
    for _, attack in EVERY:
        with pytest.raises(dataclasses.FrozenInstanceError):
            attack.radius = 1.0
    with pytest.raises(dataclasses.FrozenInstanceError):
        protocols.get("standard").attacks = ()  # pyright: ignore


def test_eight_255ths_and_0031_are_different_radii():
    robal = protocols.get("legacy_robal")
    with pytest.raises(ValueError, match=r"7.905/255 only"):
        protocols.check_threat(robal, Threat("linf", 8))
    assert np.float32(threat_of("legacy_robal").epsilon) == np.float32(0.031)
    assert np.float32(0.031) != np.float32(8 / 255)


def test_a_protocol_of_the_user_has_another_name():
    mine = dataclasses.replace(protocols.get("validation"), name="mine")
    assert protocols.get(mine) is mine
    assert protocols.get(protocols.get("quick")) is protocols.get("quick")
    with pytest.raises(ValueError, match="protocol 'quick' is built in, with other attacks; give yours another name"):
        protocols.get(dataclasses.replace(mine, name="quick"))
