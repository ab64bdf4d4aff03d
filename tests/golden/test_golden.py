"""The quick profile of every exhibit, on the embedded surrogate, gives the committed numbers.

To renew them after a change that is meant: run `pytest tests/golden`, which leaves the new CSVs in its temporary folder, and
commit those with the reason.
"""

from pathlib import Path

import pytest

from nagkit.errors import NagkitError
from nagkit.report import exhibits, studies

GOLDEN = Path(__file__).parent


@pytest.fixture(autouse=True)
def embedded_data_only(tmp_path, monkeypatch):
    monkeypatch.delenv("NAGKIT_MIRROR", raising=False)
    monkeypatch.setenv("NAGKIT_CACHE", str(tmp_path / "empty"))


@pytest.mark.parametrize("study", [studies.table2, studies.figure_samplers], ids=lambda study: study.__name__)
def test_the_quick_profile_gives_the_committed_numbers(study, tmp_path):
    made = study("quick", 0, progress=False)
    frame = made.exhibit.frame(paper=False)
    (tmp_path / f"{study.__name__}.csv").write_text(exhibits.to_csv(frame))
    assert made.exhibit.oracle in ("surrogate", "")
    assert exhibits.golden_gap(frame, GOLDEN / f"{study.__name__}.csv") == "", f"new numbers: {tmp_path}"
    verdict = studies.table2_verdict if study is studies.table2 else studies.samplers_verdict
    assert "nan" not in verdict(made)


@pytest.mark.parametrize("study", [studies.table2, studies.figure_samplers], ids=lambda study: study.__name__)
def test_an_unknown_profile_is_refused(study):
    with pytest.raises(NagkitError, match="'fast'"):
        study("fast")
