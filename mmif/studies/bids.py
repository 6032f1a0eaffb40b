"""Studies of BIDS data sets."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

from mmif.roles import ACTIVITY_ROLES, ROLES
from mmif.studies.candidates import name_below, several
from mmif.studies.study import Study, input_of, is_complete
from mmif.studies.walk import Found, split_suffix

BIDS_MRI = ("T1w", "T2w", "FLAIR", "PDw", "inplaneT1")
BIDS = {
    **dict.fromkeys(BIDS_MRI, "mri"),
    **{name: role for role in ("ct", *ACTIVITY_ROLES) for name in ROLES[role].names},
}


def sort_bids(found: Found, path: Path, stem: str) -> None:
    """A file with a BIDS name to its subject and session; bold, dwi and the like are no source."""
    entities = stem.split("_")
    role = BIDS.get(entities[-1])
    if role is None:
        return
    session = next((e for e in entities if e.startswith("ses-")), "")
    subject = next((p.parent for p in path.parents if p.name == entities[0]), path.parent)
    found.bids[subject, entities[0], session][role].append(path)


def whole_subjects(
    bids: dict[tuple[Path, str, str], dict[str, list[Path]]],
) -> Iterator[tuple[tuple[Path, str, str], dict[str, list[Path]]]]:
    """Sessions that hold a pair; the sessions of a subject without one are taken together."""
    subjects: dict[tuple[Path, str], list[str]] = defaultdict(list)
    for folder, subject, session in bids:
        subjects[folder, subject].append(session)
    for (folder, subject), sessions in subjects.items():
        whole = [s for s in sessions if is_complete(bids[folder, subject, s])]
        for session in whole:
            yield (folder, subject, session), bids[folder, subject, session]
        if not whole:
            merged: dict[str, list[Path]] = defaultdict(list)
            for session in sessions:
                for role, paths in bids[folder, subject, session].items():
                    merged[role] += paths
            yield (folder, subject, ""), merged


def bids_study(
    root: Path, folder: Path, subject: str, session: str, roles: dict[str, list[Path]]
) -> Study:
    """A subject and session."""
    inputs, problems = {}, {}
    for role, paths in roles.items():
        best = _best_bids(paths)
        if len(best) > 1:
            problems[role] = several(role, best)
        else:
            inputs[role] = input_of(best[0])
    name = "_".join(filter(None, (subject, session)))
    return Study(name_below(root, folder / name), inputs, problems)


def _best_bids(paths: Sequence[Path]) -> list[Path]:
    """The files of the first suffix in the order of MRI, with the fewest entities."""

    def rank(path: Path) -> tuple[int, int]:
        entities = split_suffix(path.name)[0].split("_")
        suffix = entities[-1]
        return (BIDS_MRI.index(suffix) if suffix in BIDS_MRI else 0), len(entities)

    first = min(map(rank, paths))
    return [path for path in paths if rank(path) == first]
