"""Results: which parts are done, and how they get into the repository."""

import dataclasses
import json
import re
from pathlib import Path
from typing import Any

from benchmarks.accelerator import jobs, provenance
from benchmarks.accelerator.part import MOST_BYTES, read, slug


def records_in(archive: Path) -> dict[str, dict[str, Any]]:
    """Part -> its record, of an archive that may not exist.

    Raises:
      ValueError: it is damaged, or holds something else.
    """
    if not archive.exists():
        return {}
    result = {}
    for name, content in read(archive).items():
        part, _, file = name.partition("/")
        if file != "part.json":
            continue
        try:
            record = json.loads(content)
            kind, commit = record["device"]["kind"], record["software"]["commit"]
            if record["part"] != part or not isinstance(record["dry"], bool) or not kind or not commit:
                raise ValueError("not a record of this part")
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{archive}: {name} is damaged ({error!r}); move the archive away.") from error
        result[part] = record
    return result


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


@dataclasses.dataclass(frozen=True)
class Collected:
    """What `collect` did: the folders that are new, and those that hold another result, which were left alone."""

    new: list[Path]
    conflicts: list[Path]


def collect(folder: Path, results: Path, *, default: Path) -> Collected:
    """Files every part of the archives in a folder as `<results>/<device>/<job>/<part>/`.

    Each record is given `sources_are_the_commits`: whether the sources that it was computed by are those of the commit
    that it names; null where that commit is not known here. A part that is filed already is left as it is.

    Raises:
      ValueError: no archive there, a damaged one or one that is too large, an unknown job or part, names that are no
        plain file names, or results of a dry run for the repository's own folder. Nothing is filed then.
    """
    archives = sorted(folder.glob("*.zip"))
    if not archives:
        raise ValueError(f"{folder} has no results (JOB.zip); give the --out of `run`.")
    parts = {place: files for archive in archives for place, files in _parts(archive, results, default).items()}
    new, conflicts = [], []
    for place, files in sorted(parts.items()):
        if not place.exists():
            place.mkdir(parents=True)
            for name, content in files.items():
                (place / name).write_bytes(content)
            new.append(place)
        elif any(not (place / name).is_file() or not _same(place / name, content) for name, content in files.items()):
            conflicts.append(place)
    return Collected(new, conflicts)


def _parts(archive: Path, results: Path, default: Path) -> dict[Path, dict[str, bytes]]:
    """Folder -> names and contents of its files, of one archive."""
    if archive.stat().st_size > MOST_BYTES:
        raise ValueError(f"{archive} has {archive.stat().st_size:,} bytes; {MOST_BYTES:,} may be committed.")
    try:
        known = {part.name for part in jobs.get(archive.stem).parts}
    except ValueError as error:
        raise ValueError(f"{archive} is no result: {error}") from error
    records, members = records_in(archive), read(archive)
    if unknown := [name for name in members if name.partition("/")[0] not in known & records.keys()]:
        raise ValueError(f"{archive} holds {unknown[0]!r}, which is no part of {archive.stem}; move it away.")
    if strange := [name for name in members if not re.fullmatch(r"[\w.-]+/\w[\w.-]*", name)]:
        raise ValueError(f"{archive} holds {strange[0]!r}, which is no plain file name; move the archive away.")
    result = {}
    for part, record in records.items():
        if record["dry"] and results.resolve() == default.resolve():
            raise ValueError(
                f"{archive} is of a dry run, whose numbers mean nothing; --results=DIR files it elsewhere."
            )
        digest = provenance.digest_of_commit(record["software"]["commit"].removesuffix("+changes"))
        record["sources_are_the_commits"] = None if digest is None else digest == record["sources_sha256"]
        files = {name.partition("/")[2]: content for name, content in members.items() if name.startswith(f"{part}/")}
        files["part.json"] = (json.dumps(record, indent=1, sort_keys=True) + "\n").encode()
        result[results / slug(record["device"]["kind"]) / archive.stem / part] = files
    return result


def _same(path: Path, content: bytes) -> bool:
    """Whether a filed file is the one at hand; whether its commit is known may have changed since."""
    there = path.read_bytes()
    if path.name != "part.json" or there == content:
        return there == content
    first, second = ({**json.loads(each), "sources_are_the_commits": None} for each in (there, content))
    return first == second
