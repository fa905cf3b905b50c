"""A backend of one layer is examined as thoroughly as a rich one.  Takes 10 s."""

import pytest
from helpers.in_process_checks import here
from helpers.one_layer_backends import KEPT, one_layer_file

from rnnbench.check import PROMISES, trials
from rnnbench.check.levels import SMOKE_PROMISES

BREAKS = dict(zip(KEPT, ("results kept", "two tapes", "update"), strict=True))


@pytest.mark.parametrize("fault", KEPT)
@pytest.mark.parametrize("cell", ["gru", "elman"])
def test_the_quickest_level_finds_what_a_single_layer_breaks(tmp_path, fault, cell):
    report = here(one_layer_file(tmp_path / "theirs.py", KEPT[fault]), trials("smoke", [cell]))
    assert not report.passed
    broken = {finding.promise for outcome in report.failures for finding in outcome.findings if not finding.passed}
    assert BREAKS[fault] in broken


@pytest.mark.parametrize(("level", "names"), [("smoke", SMOKE_PROMISES), ("standard", tuple(PROMISES))])
def test_every_promise_that_it_can_keep_is_examined(tmp_path, level, names):
    report = here(one_layer_file(tmp_path / "theirs.py"), trials(level, ["gru"], dtypes=["float32"]))
    assert report.passed, report.table()
    examined = {name for outcome in report.outcomes if not outcome.skipped for name in outcome.trial.promises}
    assert examined == {name for name in names if "lengths" not in name}, "it takes none"
