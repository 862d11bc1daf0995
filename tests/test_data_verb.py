"""`ltrobust data`: what to download for a data set, and what a folder holds of it."""

import re

import invented
import listed
import pytest

from ltrobust.commands import main
from ltrobust.data import published, sources


@pytest.mark.parametrize("name", sources.NAMES)
def test_every_data_set_is_described(capsys, name):
    main.call(["data", name])
    printed = capsys.readouterr().out
    assert printed.startswith(name)
    if name in published.DATA:
        data = published.DATA[name]
        for file in (file for form in data.forms for file in form.files):
            assert f"{file.url}\n      {file.facts}\n" in printed
        for fact in (data.page, data.terms, data.citation, "--config.data.dir=DIR"):
            assert fact in printed


def test_names_are_listed_and_an_unknown_one_is_answered(capsys):
    main.call(["data"])
    assert capsys.readouterr().out.split() == list(sources.NAMES)
    with pytest.raises(SystemExit) as end:
        main.call(["data", "cifar"])
    assert end.value.code == 2
    assert "there is no data set 'cifar'; did you mean cifar10? data sets: digits" in capsys.readouterr().err


def test_files_in_a_folder_are_compared_with_the_published_ones(capsys, tmp_path):
    invented.place("mnist", invented.publish("mnist", invented.invent("mnist")), tmp_path)
    paths = [tmp_path / file.name for file in published.DATA["mnist"].files]
    paths.pop().unlink()
    main.call(["data", "mnist", f"--dir={tmp_path}"])
    printed = capsys.readouterr().out
    for path in paths:
        assert f"found     {path}: {path.stat().st_size:,} bytes, published " in printed
    assert printed.count("found") == len(paths)
    main.call(["data", "stl10", f"--dir={tmp_path}"])
    assert f"none of these files in {tmp_path}" in capsys.readouterr().out
    prepared = tmp_path / "stl10" / "1.0.0"
    prepared.mkdir(parents=True)
    (prepared / "dataset_info.json").touch()
    main.call(["data", "stl10", f"--dir={tmp_path}"])
    assert f"found     {prepared}: prepared by TensorFlow Datasets" in capsys.readouterr().out


def test_a_folder_that_does_not_exist_is_an_error(capsys, tmp_path):
    with pytest.raises(SystemExit) as end:
        main.call(["data", "cifar10", f"--dir={tmp_path}/nowhere"])
    assert end.value.code == 1
    reported = capsys.readouterr()
    assert reported.out == ""
    assert f"--dir={tmp_path}/nowhere is not a folder that exists; give" in reported.err


def test_published_files_have_addresses_and_well_formed_checksums():
    for name, data in published.DATA.items():
        for file in data.files:
            assert file.url.startswith("http"), name
            kind, _, digest = file.checksum.partition(":")
            assert len(digest) == {"sha256": 64, "md5": 32}[kind], file.url
            assert set(digest) <= set("0123456789abcdef")


def test_a_list_is_checked_and_what_cannot_be_read_is_named(capsys, tmp_path):
    listed.write(tmp_path, train=[3, 3])
    words = ["data", "image_list", f"--dir={tmp_path}", "--check=train.txt"]
    main.call(words)
    assert capsys.readouterr().out == "0 images of train.txt cannot be read.\n"
    listed.truncate(tmp_path / "train/n1/000.jpg")
    with pytest.raises(SystemExit) as end:
        main.call(words)
    assert end.value.code == 1
    line = (tmp_path / "train.txt").read_text().splitlines().index("train/n1/000.jpg 1") + 1
    printed = capsys.readouterr().out
    assert printed.startswith(f"train/n1/000.jpg (line {line}: OSError: ")
    assert printed.endswith("\n1 image of train.txt cannot be read.\n")
    with pytest.raises(SystemExit):
        main.call(["data", "digits", "--check=train.txt"])
    assert "--check is for image lists" in capsys.readouterr().err
    with pytest.raises(SystemExit) as end:
        main.call([*words[:-1], "--check="])
    assert end.value.code == 2, "a script with an unset variable must not take it for readable"
    assert "--check names no file; give" in capsys.readouterr().err


def test_files_on_a_failing_disk_are_named_with_the_others(capsys, tmp_path):
    listed.write(tmp_path, train=[3, 3])
    failing, cut = (line.split()[0] for line in (tmp_path / "train.txt").read_text().splitlines()[:2])
    listed.fail(tmp_path / failing)
    listed.truncate(tmp_path / cut)
    with pytest.raises(SystemExit) as end:
        main.call(["data", "image_list", f"--dir={tmp_path}", "--check=train.txt"])
    assert end.value.code == 1
    printed = capsys.readouterr().out
    assert re.search(rf"^{re.escape(failing)} \(line 1: .*Input/output error\)$", printed, re.MULTILINE)
    assert re.search(rf"^{re.escape(cut)} \(line 2: OSError: .*\)$", printed, re.MULTILINE)
    assert printed.endswith("\n2 images of train.txt cannot be read.\n")
