"""How files of tests are shared out among processes: groups stay together, and the longest come first."""

import itertools
from pathlib import Path

from helpers.schedule import GROUPS, LEADER, SECONDS, order, seconds

FILES = [file.name for file in Path(__file__).parent.glob("test_*.py")]


def test_files_that_are_named_are_there():
    assert {*SECONDS, *LEADER} <= set(FILES)


def test_groups_stay_together_behind_the_file_that_compiles_and_the_longest_come_first():
    ordered = sorted(FILES, key=order)
    leaders = [leader for leader, _ in itertools.groupby(ordered, lambda file: LEADER.get(file, file))]
    assert len(leaders) == len(set(leaders))
    for group in GROUPS:
        place = ordered.index(group[0])
        assert set(ordered[place : place + len(group)]) == set(group)
    assert [seconds(leader) for leader in leaders] == sorted(map(seconds, leaders), reverse=True)
