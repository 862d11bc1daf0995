"""Protocols: exactly the columns and settings of docs/protocols.md, under names that nothing else may have."""

import dataclasses
from typing import Any, NamedTuple

import numpy as np
import pytest

from ltrobust.attacks import ball, fab, pgd, square
from ltrobust.attacks.apgd import APGD
from ltrobust.attacks.apgd import LOSSES as APGD_LOSSES
from ltrobust.attacks.cw_l2 import CW_L2
from ltrobust.attacks.deepfool import DEEPFOOL
from ltrobust.evaluation import protocols
from ltrobust.threat import Threat

AA = ("apgd-ce", "apgd-t", "fab-t", "square")
TA10 = tuple(f"aa_ta10/{name}" for name in AA)
AA2 = tuple(f"aa2_031/{name}" for name in AA[:2])
TEMPERED = ("pgd20@2", "pgd20@5", "pgd20@10", "pgd20@50")

COLUMNS = {
    "validation": ("pgd20",),
    "quick": ("fgsm", "pgd20", "cw20_k50", "lsa20"),
    "standard": ("fgsm", "pgd20", "cw20_k50", "lsa20", *AA),
    "diagnose": ("fgsm", "pgd20", "cw20_k50", "mim20", *TEMPERED),
    "legacy_at_bsl": ("fgsm_g", "pgd20", "cw20_k50", "lsa20", *TA10),
    "legacy_robal": ("fgsm_031", "pgd20_031", "mim20_031", "cw20_031", *AA2),
    "legacy_robustlt": ("pgd20_1", "cw20_k0", *TA10),
    "legacy_taet/b1": ("fgsm", "pgd20_1", "pgd100_1", "cw_l2", "deepfool", *TA10),
}
WORST = ("worst", ("pgd20", "cw20_k50", "lsa20"))
COMBINED = {
    "validation": (),
    "quick": (WORST,),
    "standard": (WORST, ("autoattack", AA)),
    "diagnose": (
        ("temperature", ("pgd20", *TEMPERED)),
        ("all_attacks", ("fgsm", "pgd20", "cw20_k50", "mim20", *TEMPERED)),
    ),
    "legacy_at_bsl": (("aa_ta10", TA10),),
    "legacy_robal": (("aa2_031", AA2),),
    "legacy_robustlt": (("aa_ta10", TA10),),
    "legacy_taet/b1": (("aa_ta10", TA10),),
}
RADII = {
    "validation": None,
    "quick": None,
    "standard": None,
    "diagnose": None,
    "legacy_at_bsl": 8,
    "legacy_robal": 7.905,
    "legacy_robustlt": 8,
    "legacy_taet/b1": 8,
}


class Step(NamedTuple):
    """A row of the table of signed-gradient attacks; lengths in pixel units."""

    loss: str
    radius: float
    step: float
    steps: int
    start: str
    kappa: float = 50.0
    scale: float = 1.0
    decay: float = 0.0


EIGHT = 8 / 255
SIGNED = {
    "fgsm": Step("ce", EIGHT, EIGHT, 1, "none"),
    "fgsm_g": Step("ce", EIGHT, EIGHT, 1, "gauss"),
    "pgd20": Step("ce", EIGHT, 2 / 255, 20, "uniform_raw"),
    "pgd20_1": Step("ce", EIGHT, 1 / 255, 20, "uniform"),
    "pgd100_1": Step("ce", EIGHT, 1 / 255, 100, "uniform"),
    "cw20_k50": Step("margin", EIGHT, 2 / 255, 20, "uniform_raw"),
    "cw20_k0": Step("margin", EIGHT, 1 / 255, 20, "uniform", kappa=0.0),
    "lsa20": Step("ce", EIGHT, 2 / 255, 20, "uniform_raw", scale=10.0),
    "mim20": Step("ce", EIGHT, 2 / 255, 20, "uniform_raw", decay=1.0),
    "pgd20@2": Step("tempered", EIGHT, 2 / 255, 20, "uniform_raw", scale=2.0),
    "pgd20@5": Step("tempered", EIGHT, 2 / 255, 20, "uniform_raw", scale=5.0),
    "pgd20@10": Step("tempered", EIGHT, 2 / 255, 20, "uniform_raw", scale=10.0),
    "pgd20@50": Step("tempered", EIGHT, 2 / 255, 20, "uniform_raw", scale=50.0),
    "fgsm_031": Step("ce", 0.031, 0.031, 1, "none"),
    "pgd20_031": Step("ce", 0.031, 0.0078, 20, "uniform_raw"),
    "mim20_031": Step("ce", 0.031, 0.0078, 20, "uniform_raw", decay=1.0),
    "cw20_031": Step("margin", 0.031, 0.0078, 20, "uniform_raw"),
}


def threat_of(name: str) -> Threat:
    return Threat("linf", protocols.get(name).radius or 8)


def attacks() -> list[Any]:
    """Every attack of every protocol, with the threat that it runs under."""
    return [
        pytest.param(attack, threat_of(name), id=f"{name}:{attack.name}")
        for name, protocol in protocols.PROTOCOLS.items()
        for attack in protocol.attacks
    ]


def of_kind(*kinds: type) -> list[Any]:
    return [parameter for parameter in attacks() if isinstance(parameter.values[0], kinds)]


def build(attack, threat, num_classes):
    search, settings = attack.build(threat, num_classes, (32, 32, 3))
    return search, {name: np.asarray(value) for name, value in settings.items()}


def test_every_protocol_has_exactly_its_columns():
    assert set(protocols.PROTOCOLS) == set(COLUMNS)
    for name, protocol in protocols.PROTOCOLS.items():
        assert protocol.name == name
        assert tuple(attack.name for attack in protocol.attacks) == COLUMNS[name]
        assert protocol.combined == COMBINED[name]
        assert protocol.sanity == (name == "standard")
        assert protocol.radius == (None if RADII[name] is None else pytest.approx(RADII[name], abs=1e-12))


@pytest.mark.parametrize("num_classes", [2, 3, 10, 100])
@pytest.mark.parametrize(("attack", "threat"), of_kind(protocols.Pgd))
def test_signed_gradient_attacks_have_the_settings_of_the_table(attack, threat, num_classes):
    expected = SIGNED[attack.name]
    search, settings = build(attack, threat, num_classes)
    assert search is pgd.search(expected.start)
    assert attack.start == expected.start
    assert attack.start in ball.STARTS
    assert settings["loss"] == pgd.LOSSES.index(expected.loss)
    assert settings["radius"] == np.float32(expected.radius)
    assert settings["step_size"] == np.float32(expected.step)
    assert settings["steps"] == expected.steps
    assert settings["decay"] == expected.decay
    np.testing.assert_array_equal(settings["scale"], np.full(num_classes, expected.scale, np.float32))
    if expected.loss == "margin":
        assert settings["kappa"] == expected.kappa
    assert attack.after == ()


@pytest.mark.parametrize("num_classes", [2, 3, 4, 7, 10, 100])
@pytest.mark.parametrize(("attack", "threat"), of_kind(protocols.Apgd))
def test_apgd_has_its_loss_iterations_and_targets(attack, threat, num_classes):
    search, settings = build(attack, threat, num_classes)
    ta10, robal = attack.name.startswith("aa_ta10/"), attack.name.startswith("aa2_031/")
    assert search is APGD
    assert settings["radius"] == np.float32(0.031 if robal else 8 / 255)
    assert settings["steps"] == (10 if ta10 else 100)
    if attack.name.endswith("apgd-ce"):
        assert APGD_LOSSES[settings["loss"]] == "ce"
        assert settings["runs"] == 1
    else:
        assert APGD_LOSSES[settings["loss"]] == ("targeted_dlr" if num_classes >= 4 else "difference")
        assert settings["runs"] == (num_classes - 1 if ta10 else min(9, num_classes - 1))


@pytest.mark.parametrize("num_classes", [2, 3, 4, 10, 100])
@pytest.mark.parametrize(("attack", "threat"), of_kind(protocols.Fab, protocols.Square))
def test_fab_and_square_have_their_settings(attack, threat, num_classes):
    search, settings = build(attack, threat, num_classes)
    ta10 = attack.name.startswith("aa_ta10/")
    assert settings["radius"] == np.float32(8 / 255)
    if isinstance(attack, protocols.Fab):
        assert search is fab.FAB
        assert settings["steps"] == (10 if ta10 else 100)
        assert settings["runs"] == (num_classes - 1 if ta10 else min(9, num_classes - 1))
        shares = {name: np.float32(value) for name, value in (("alpha_max", 0.1), ("eta", 1.05), ("beta", 0.9))}
        assert {name: settings[name] for name in shares} == shares
    else:
        assert search is square.SQUARE
        expected = square.settings(radius=8 / 255, image_shape=(32, 32, 3), norm="linf", queries=5000, rescale=ta10)
        for name, value in expected.items():
            np.testing.assert_array_equal(settings[name], value, err_msg=name)


def test_attacks_without_a_radius_have_an_infinite_one():
    by_name = {attack.name: attack for attack in protocols.get("legacy_taet/b1").attacks}
    search, settings = build(by_name["cw_l2"], Threat(), 10)
    assert search is CW_L2
    assert settings == {
        "radius": np.float32(np.inf),
        "c": np.float32(10),
        "kappa": np.float32(0),
        "rate": np.float32(0.01),
        "steps": 100,
    }
    search, settings = build(by_name["deepfool"], Threat(), 10)
    assert search is DEEPFOOL
    assert settings == {"radius": np.float32(np.inf), "steps": 50, "overshoot": np.float32(0.02)}
    for name in ("cw_l2", "deepfool"):
        assert protocols.radius_of(by_name[name], Threat()) == np.inf


@pytest.mark.parametrize(("attack", "threat"), attacks())
def test_only_sequences_leave_out_broken_images(attack, threat):
    del threat
    prefix, _, name = attack.name.rpartition("/")
    expected = AA[: AA.index(name)] if name in AA else ()
    assert attack.after == tuple(f"{prefix}/{before}" if prefix else before for before in expected)


def test_fractions_of_the_radius_give_the_published_steps_at_another_radius():
    attack = protocols.get("quick").attacks[1]
    _, settings = build(attack, Threat("linf", 4), 10)
    assert settings["step_size"] == np.float32(1 / 255)


def test_only_the_standard_protocol_is_called_autoattack():
    for name, protocol in protocols.PROTOCOLS.items():
        columns = ["clean", *COLUMNS[name], *(column for column, _ in protocol.combined)]
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


def test_the_headline_is_the_last_combination():
    headlines = {name: protocol.headline for name, protocol in protocols.PROTOCOLS.items()}
    assert headlines == {
        "validation": "pgd20",
        "quick": "worst",
        "standard": "autoattack",
        "diagnose": "all_attacks",
        "legacy_at_bsl": "aa_ta10",
        "legacy_robal": "aa2_031",
        "legacy_robustlt": "aa_ta10",
        "legacy_taet/b1": "aa_ta10",
    }


def test_an_unknown_protocol_is_refused_with_the_known_names():
    with pytest.raises(ValueError, match="'legacy_taet'") as error:
        protocols.get("legacy_taet")
    for name in protocols.PROTOCOLS:
        assert name in str(error.value)


@pytest.mark.parametrize("name", COLUMNS)
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


@pytest.mark.parametrize(("attack", "threat"), attacks())
def test_protocols_and_attacks_are_frozen(attack, threat):
    del threat
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
