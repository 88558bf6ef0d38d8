"""Try the catalogue of bad and odd inputs, and count how it ends.

python benchmarks/catalogue.py
    puts the table into results.md

The catalogue is tests/test_bad_input.py; this runs it, and counts.
"""

import re
import sys
from collections import Counter
from pathlib import Path

import pytest


ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
from report import write_part  # noqa: E402


TESTS = ROOT / "tests/test_bad_input.py"
HAPPENS = {  # what each class of fault leads to, as the tests assert it
    "damaged images": "refused, by name; without a checksum nobody can tell: segmented",
    "other files": "refused by what they hold; a suffix that lies does not matter",
    "bombs": "refused from the header, or when the pixels run out",
    "odd images": "segmented, the first page of many; not trained on: refused",
    "odd names": "read and written as any other; never a second line of message",
    "odd places": "links are followed; what is not a regular file is refused",
    "odd places to write to": "refused before any work; inputs are never overwritten",
    "truths": "refused, with what was found instead; any two values are two classes",
    "images to train on": "refused, or learned: constant and saturated ones, too",
    "model files": "refused; no code of theirs is run",
    "full disk": "refused; older outputs stay as they were",
    "processes": "pipes are refused; two runs at once leave one whole file",
    "uploads": "eight files, one line each in the notebook; nothing is left",
}


class Ends:
    """A pytest plugin that counts how the cases of each class end."""

    def __init__(self):
        self.tried, self.as_documented = Counter(), Counter()

    def pytest_runtest_logreport(self, report):
        """Count a case."""
        if report.when == "call":
            kind = kind_of(report.nodeid)
            self.tried[kind] += 1
            self.as_documented[kind] += report.passed


def kind_of(test):
    """Give the class of fault that a test belongs to, from its name."""
    for part, kind in (("uploads", "uploads"), ("process", "processes")):
        if f"test_{part}" in test:
            return kind
    return re.search(r"\[(.*?): ", test)[1]


def main():
    """Run the catalogue, and write how it ends."""
    ends = Ends()
    pytest.main([str(TESTS), "-q", "--no-header"], plugins=[ends])
    rows = ["| | tried | ended as documented | what happens |", "|---|---|---|---|"]
    rows += [
        f"| {kind} | {ends.tried[kind]} | {ends.as_documented[kind]} | {what} |"
        for kind, what in HAPPENS.items()
    ]
    tried, passed = ends.tried.total(), ends.as_documented.total()
    rows.append(f"| all | {tried} | {passed} | |")
    intro = (
        "`python benchmarks/catalogue.py`, over `tests/test_bad_input.py`. Refused "
        "means: one line on standard error that names the file, exit code 2, no input "
        "changed, older outputs as they were, no temporary file left."
    )
    write_part("Bad and odd inputs", f"{intro}\n\n" + "\n".join(rows))
    print("\n".join(rows))
    return 0 if passed == tried else 1


if __name__ == "__main__":
    sys.exit(main())
