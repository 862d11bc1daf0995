"""Results: which parts are done, and how they get into the repository."""

import json
import re
from pathlib import Path
from typing import Any

from benchmarks.accelerator import jobs, provenance
from benchmarks.accelerator.part import read


def records_in(archive: Path) -> dict[str, dict[str, Any]]:
    """Part -> its record, of an archive that may not exist.

    Raises:
      ValueError: it is damaged.
    """
    if not archive.exists():
        return {}
    members = read(archive)
    found = {}
    for name, content in members.items():
        part, _, file = name.partition("/")
        if file == "part.json":
            try:
                found[part] = json.loads(content)
            except ValueError as error:
                raise ValueError(f"{archive}: {name} is damaged ({error}); move the archive away.") from error
    return found


def parts_in(archive: Path, *, dry: bool) -> frozenset[str]:
    """Parts that an archive holds.

    Raises:
      ValueError: it is damaged, or it holds results of the other kind, dry or not.
    """
    records = records_in(archive)
    if any(record["dry"] != dry for record in records.values()):
        kind = "a dry run" if not dry else "a device"
        raise ValueError(f"{archive} holds results of {kind}; give another --out.")
    return frozenset(records)


def filed_parts(results: Path, job: str) -> frozenset[str]:
    """Parts of a job that are filed, of any device."""
    return frozenset(path.parent.name for path in results.glob(f"*/{job}/*/part.json"))


def collect(folder: Path, results: Path, *, default: Path) -> list[Path]:
    """Files every part of the archives in a folder as `<results>/<device>/<job>/<part>/`. Returns the new folders.

    Each record is given `sources_are_the_commits`: whether the sources that it was computed by are those of the commit
    that it names. A part that is filed already is passed over if it is the same one.

    Raises:
      ValueError: no archive there, a damaged one, an unknown job, results of a dry run for the repository's own folder,
        or another result filed in a part's place. Nothing is filed then.
    """
    archives = sorted(folder.glob("*.zip"))
    if not archives:
        raise ValueError(f"{folder} has no results (JOB.zip); give the --out of `run`.")
    files: dict[Path, bytes] = {}
    for archive in archives:
        jobs.get(archive.stem)
        records, members = records_in(archive), read(archive)
        for part, record in records.items():
            if record["dry"] and results.resolve() == default.resolve():
                raise ValueError(
                    f"{archive} is of a dry run, whose numbers mean nothing; --results=DIR files it elsewhere."
                )
            place = results / slug(record["device"]["kind"]) / archive.stem / part
            commit = record["software"]["commit"]
            record["sources_are_the_commits"] = (
                provenance.digest_of_commit(commit.removesuffix("+changes")) == record["sources_sha256"]
            )
            files[place / "part.json"] = (json.dumps(record, indent=1, sort_keys=True) + "\n").encode()
            files |= {
                results / place.relative_to(results) / name.partition("/")[2]: content
                for name, content in members.items()
                if name.startswith(f"{part}/") and not name.endswith("/part.json")
            }
    other = [path for path, content in files.items() if path.exists() and path.read_bytes() != content]
    if other:
        raise ValueError(
            f"{other[0]} holds another result and is not replaced; give another --results, or move that folder away."
        )
    new = [path for path in files if not path.exists()]
    for path in new:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(files[path])
    return sorted({path.parent for path in new})


def slug(device: str) -> str:
    """A device's name as a folder's."""
    return re.sub(r"[^a-z0-9]+", "-", device.lower()).strip("-")
