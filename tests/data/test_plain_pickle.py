"""Pickles of plain data: read as Python reads them, and hostile ones run nothing."""

import contextlib
import os
import pickle
import pickletools

import numpy as np
import pytest

from ltrobust.data import plain_pickle


class Hostile:
    """Creates a file when it is unpickled."""

    def __init__(self, call, *arguments):
        self.call = call, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4])
@pytest.mark.parametrize("dtype", ["u1", "<f4", ">i8", "?"])
def test_plain_data_are_what_python_reads(protocol, dtype):
    data = {
        "data": np.arange(12).reshape(3, 4).astype(dtype),
        "columns": np.asfortranarray(np.arange(6).reshape(2, 3).astype(dtype)),
        "labels": [1, 2**40, -3, 300, 70000],
        "names": ["a", b"b", "é", 1.5, None, True, (), (1,), (1, 2), (1, 2, 3, 4), {"deep": []}],
        "again": "a" * 300,
    }
    result = plain_pickle.load(pickle.dumps(data, protocol))
    assert result.keys() == data.keys()
    for key in ("data", "columns"):
        np.testing.assert_array_equal(result[key], data[key])
        assert result[key].dtype == data[key].dtype
    assert {key: result[key] for key in ("labels", "names", "again")} == {
        key: data[key] for key in ("labels", "names", "again")
    }


def test_a_pickle_of_python_2_is_read():
    """CIFAR's: texts and the array's content are Latin-1 strings. Written byte by byte, as Python 2 did."""
    pixels = bytes(range(128, 134))
    content = (
        b"\x80\x02}q\x01(U\x04dataq\x02cnumpy.core.multiarray\n_reconstruct\nq\x03cnumpy\nndarray\nq\x04"
        b"K\x00\x85U\x01b\x87Rq\x05(K\x01K\x02K\x03\x86cnumpy\ndtype\nq\x06U\x02u1K\x00K\x01\x87Rq\x07"
        b"(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89U\x06" + pixels + b"tbU\x06labelsq\x08]q\x09"
        b"(K\x06K\x09eu."
    )
    result = plain_pickle.load(content)
    assert result["data"].tolist() == [[128, 129, 130], [131, 132, 133]]
    assert result["labels"] == [6, 9]
    reference = pickle.loads(content, encoding="latin1")
    np.testing.assert_array_equal(reference["data"], result["data"])


@pytest.mark.parametrize("protocol", [0, 2, 4])
@pytest.mark.parametrize(
    ("call", "named"),
    [
        ((os.system, "touch CANARY"), "system"),
        ((eval, "open('CANARY', 'w')"), "eval"),
        ((exec, "open('CANARY', 'w')"), "exec"),
        ((getattr, "x", "upper"), "getattr"),
        ((np.load, "CANARY"), "load"),
        ((np.fromfile, "CANARY"), "fromfile"),
    ],
)
def test_what_a_hostile_pickle_names_is_never_called(tmp_path, monkeypatch, protocol, call, named):
    monkeypatch.chdir(tmp_path)
    content = pickle.dumps({"data": Hostile(*call)}, protocol)
    with pytest.raises(ValueError, match=rf"it names \w+.*\.{named}, which is not called"):
        plain_pickle.load(content)
    assert list(tmp_path.iterdir()) == []


def test_objects_and_arrays_of_objects_are_refused():
    with pytest.raises(ValueError, match=r"not called|do not need"):
        plain_pickle.load(pickle.dumps({"a": {1, 2}}, 4))
    with pytest.raises(ValueError, match="array of 'O8', not of numbers"):
        plain_pickle.load(pickle.dumps({"a": np.array([1, "x"], dtype=object)}, 2))
    with pytest.raises(ValueError, match="it holds a list, not a dict"):
        plain_pickle.load(pickle.dumps([1]))


ARRAY = pickle.dumps({"data": np.zeros(6, np.uint8)}, 2)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (ARRAY.replace(b"K\x06\x85", b"J\xff\xff\xff\x7f\x85"), r"shape \(2147483647,\) with 6 numbers"),
        (ARRAY[:-1], "pickle exhausted before seeing STOP|no end"),
        (ARRAY[: len(ARRAY) // 2], "exhausted|expected|not enough"),
        (b"", "exhausted"),
        (b"\x80\x02r\xff\xff\xff\xff.", "no sound pickle"),  # a place in the memo that a list would need 32 GB for
        (b"\x80\x02]q\x00(h\x00h\x00eh\x00.", "not a dict"),  # a list that holds itself
        (b"\x80\x02}(K\x01u.", "shorter|longer"),
        (b"\x80\x02N(K\x01e.", "puts items into a NoneType"),
        (b"\x80\x02cnumpy\nndarray\n}b.", "fills something that is no array"),
        (b"\x80\x02cnumpy\nndarray\n)R.", "calls something that is no array"),
        (b"\x80\x02X\x0b\x00\x00\x00numpy arrayK\x00\x85R.", "calls something that is no array"),
        (b"\x80\x02P1\n.", "operation PERSID"),
        (b"\x80\x02\x82\x01.", "operation EXT1"),
        (b"<!DOCTYPE html>", "unknown|opcode|exhausted|operation"),
    ],
    ids=range(14),
)
def test_damaged_pickles_are_refused(content, message):
    with pytest.raises(ValueError, match=message):
        plain_pickle.load(content)


def test_random_damage_raises_nothing_but_value_errors():
    """Each byte of a pickle is changed at random, several times."""
    content = pickle.dumps({"data": np.arange(20, dtype=np.uint8), "labels": [1, 2], "x": ("é", b"b", 2.0)}, 2)
    random = np.random.RandomState(0)
    for position in range(len(content)):
        for value in random.randint(0, 256, 4):
            damaged = bytearray(content)
            damaged[position] = value
            with contextlib.suppress(ValueError):
                plain_pickle.load(bytes(damaged))
    assert len(list(pickletools.genops(content))) > 20


DEEP = 200_000


@pytest.mark.parametrize(
    ("content", "message"),
    [
        # Hashing, printing or comparing what is nested this deeply would end the process.
        (b"\x80\x02})" + b"\x85" * DEEP + b"K\x01s.", "a tuple as a key"),
        (b"\x80\x02(" + b")" + b"\x85" * DEEP + b"K\x01d.", "a tuple as a key"),
        (b"\x80\x02}U\x01a)" + b"\x85" * DEEP + b"s.", "more than 16 dicts, lists and tuples inside"),
        (b"\x80\x02}U\x01a" + b"]" * DEEP + b"a" * (DEEP - 1) + b"s.", "more than 16 dicts, lists and tuples inside"),
        (b"\x80\x02}U\x01a]q\x00h\x00as.", "more than 16 dicts, lists and tuples inside"),  # it holds itself
        (b"\x80\x04)" + b"\x85" * DEEP + b"\x8c\x01a\x93.", "a tuple where a text belongs"),
        (b"\x80\x02cnumpy\ndtype\n)" + b"\x85" * DEEP + b"\x85R.", "a tuple where a text belongs"),
        (
            b"\x80\x02cnumpy\ndtype\nU\x02u1\x85RK\x03)" + b"\x85" * DEEP + b"\x86b.",
            "a tuple where a text belongs",
        ),
        (
            b"\x80\x02cnumpy.core.multiarray\n_reconstruct\n)R(K\x01)"
            + b"\x85" * DEEP
            + b"cnumpy\ndtype\nU\x02u1\x85R\x89U\x00tb.",
            "shape is none",
        ),
        (b"\x80\x02}U\x01acnumpy\nndarray\ns.", "a name or an array without content"),
        (b"\x80\x02}G\x00\x00\x00\x00\x00\x00\x00\x00K\x01s.", "a float as a key"),
    ],
    ids=range(11),
)
def test_depth_bombs_and_odd_keys_are_refused(content, message):
    with pytest.raises(ValueError, match=message):
        plain_pickle.load(content)


def test_one_list_named_many_times_is_looked_at_once():
    """Fifteen levels of 50 references to the level below: 50^15 values, were each followed."""
    level = []
    for _ in range(14):
        level = [level] * 50
    assert len(plain_pickle.load(pickle.dumps({"a": level}, 2))["a"]) == 50


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4])
def test_arrays_at_any_depth_and_keys_of_bytes_are_read(protocol):
    array = np.arange(6, dtype="<i4").reshape(2, 3)
    result = plain_pickle.load(pickle.dumps({b"data": [array, (array, {b"deep": array, 1: 2})]}, protocol))
    first, (second, third) = result["data"]
    assert third.keys() == {"deep", 1}
    for one in (first, second, third["deep"]):
        assert type(one) is np.ndarray
        np.testing.assert_array_equal(one, array)
