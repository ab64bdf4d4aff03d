"""Only the spaces themselves know which spaces there are: everything else asks through the protocol."""

import re
from pathlib import Path

import nagkit
from nagkit.spaces.base import SPACES

PACKAGE = Path(nagkit.__file__).parent
NAMES = re.compile(rf"\b({'|'.join(SPACES)})|15,?625")
FREE = ("spaces/", "published/", "data/", "presets.py", "cli")
"""May name a space: the spaces, the published method, the files of others, chosen settings, defaults of commands."""
UNDER_CONVERSION = (
    "benchmarks/inherited.py", "benchmarks/measured.py", "benchmarks/meta.py", "benchmarks/ofa.py",
    "benchmarks/cost.py", "benchmarks/subnet.py", "benchmarks/supernet.py", "benchmarks/supernet_train.py",
    "benchmarks/validity.py", "report/", "study/",
)  # fmt: skip
"""Still name one; this list may become shorter, never longer."""


def test_no_other_module_names_a_space_or_its_size():
    found = []
    for path in sorted(PACKAGE.rglob("*.py")):
        name = path.relative_to(PACKAGE).as_posix()
        if not name.startswith((*FREE, *UNDER_CONVERSION)):
            lines = enumerate(path.read_text("utf-8").splitlines(), start=1)
            found += [f"{name}:{number}: {line.strip()}" for number, line in lines if NAMES.search(line)]
    assert not found, "ask the space instead (nagkit.spaces.base.SearchSpace):\n" + "\n".join(found)
