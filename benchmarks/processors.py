"""Run the tests as processors of other makes would compute.

    pip install -r requirements/dev.txt
    python benchmarks/processors.py [TEST ...]

PyTorch picks its kernels by what the processor can do; environment variables make it
pick those of a lesser one, or of another make. The whole suite, or the tests that are
named, run under each setting, as many settings at once as there are cores; the table is
written to benchmarks/results.md when it was the whole. On two cores the whole takes an
hour.
"""

import os
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from tqdm.auto import tqdm


ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import report  # noqa: E402

from onelabel import console  # noqa: E402 - from the folder above


SETTINGS = (
    "OMP_NUM_THREADS=2",
    "ONEDNN_MAX_CPU_ISA=SSE41",
    "ONEDNN_MAX_CPU_ISA=AVX2",
    "ONEDNN_MAX_CPU_ISA=AVX512_CORE",
    "ATEN_CPU_CAPABILITY=default",
    "MKL_CBWR=COMPATIBLE",
    "OMP_NUM_THREADS=1",
    "OMP_NUM_THREADS=4",
)


def outcome(tests, setting):
    """Run tests under a setting: how many passed and failed, and which failed."""
    name, value = setting.split("=")
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-rfE", *tests],
        cwd=ROOT,
        env={**os.environ, name: value},
        capture_output=True,
        text=True,
    )
    counts = dict.fromkeys(("passed", "failed", "error", "skipped"), 0)
    for count, word in re.findall(r"(\d+) (\w+?)s?\b", run.stdout.splitlines()[-1]):
        if word in counts:
            counts[word] = int(count)
    failed = re.findall(r"^(?:FAILED|ERROR) (\S+)", run.stdout, re.MULTILINE)
    return counts, failed


def main():
    """Run the tests under all settings; exit with 1 where one fails."""
    tests = sys.argv[1:]
    lines = [
        "`python benchmarks/processors.py`: the whole suite as other processors "
        f"compute it. This one: {processor()}.",
        "",
        "| setting | passed | failed | skipped |",
        "|---|---|---|---|",
    ]
    is_well = True
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        outcomes = pool.map(partial(outcome, tests), SETTINGS)
        bar = tqdm(outcomes, total=len(SETTINGS), unit="setting", disable=None)
        results = dict(zip(SETTINGS, bar, strict=True))
    for setting, (counts, failed) in results.items():
        wrong = counts["failed"] + counts["error"]
        is_well = is_well and wrong == 0 and counts["passed"] > 0
        row = f"| `{setting}` | {counts['passed']} | {wrong} | {counts['skipped']} |"
        print(row, *failed, sep="\n  ", flush=True)
        lines.append(row)
    if not tests:
        report.write_part("Other processors", "\n".join(lines))
    return 0 if is_well else 1


def processor():
    """Name this machine's processor."""
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":")[1].strip()
    return "unknown"


if __name__ == "__main__":
    raise SystemExit(console.run(main))
