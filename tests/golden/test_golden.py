"""The quick profile of every exhibit, on the embedded surrogate, gives the committed numbers.

To renew them after a change that is meant: `pytest tests/golden -m golden --regenerate` (one: `-k table2`); commit the CSVs
with the reason.
"""

from pathlib import Path

import pytest

from nagkit.errors import NagkitError
from nagkit.report import exhibits
from nagkit.studies import table1

GOLDEN = Path(__file__).parent
STUDIES = {
    "table1": (table1.table1, table1.verdict),
}
ORACLES = ("surrogate", "ofa-surrogate", "ofa-surrogate, surrogate", "supernet", "supernet-surrogate", "")
"""Those that need no download; "supernet": committed measurements."""


@pytest.fixture(autouse=True)
def embedded_data_only(tmp_path, monkeypatch):
    monkeypatch.delenv("NAGKIT_MIRROR", raising=False)
    monkeypatch.setenv("NAGKIT_CACHE", str(tmp_path / "empty"))


@pytest.mark.golden
@pytest.mark.parametrize("name", STUDIES)
def test_the_quick_profile_gives_the_committed_numbers(name, request):
    study, verdict = STUDIES[name]
    made, path = study("quick", 0, progress=False), GOLDEN / f"{name}.csv"
    frame = made.exhibit.frame(paper=False)
    assert made.exhibit.oracle in ORACLES
    assert "nan" not in verdict(made)
    if request.config.getoption("--regenerate", default=False):
        path.write_text(exhibits.golden(frame))
    assert exhibits.golden_gap(frame, path) == "", "if this is meant: pytest tests/golden -m golden --regenerate"


@pytest.mark.parametrize("name", STUDIES)
def test_an_unknown_profile_is_refused(name):
    with pytest.raises(NagkitError, match="'fast'"):
        STUDIES[name][0]("fast")
