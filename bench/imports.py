"""What an import costs: `python -m bench.imports` measures processes that import `trio`, the package, and its calls.

Each row is the fastest of several processes, measured inside the process, so that the interpreter's own start does
not count. `import moqt_trio` should cost at most twice what `import trio` costs in the same run.
"""

from __future__ import annotations

import argparse
import subprocess
import sys

ROWS = [
    "import trio",
    "import moqt_trio",
    "import moqt_trio, trio",
    "from moqt_trio import Limits, MoqtError",
    "from moqt_trio import connect",
    "from moqt_trio import serve",
]

_PROGRAM = """
import sys, time
before = len(sys.modules)
start = time.perf_counter()
{statement}
print(time.perf_counter() - start, len(sys.modules) - before)
"""


def measure(statement: str, runs: int) -> tuple[float, int]:
    """Return the seconds that a statement takes in a new process, and how many modules it loads."""
    found = []
    for _ in range(runs):
        command = [sys.executable, "-c", _PROGRAM.format(statement=statement)]
        seconds, modules = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
        found.append((float(seconds), int(modules)))
    return min(found)


def main() -> None:
    """Print one line for each row."""
    parser = argparse.ArgumentParser(prog="python -m bench.imports", description=__doc__)
    parser.add_argument("--runs", type=int, default=7, help="processes for each row (default: 7)")
    runs: int = parser.parse_args().runs
    baseline, _ = measure(ROWS[0], runs)
    for statement in ROWS:
        seconds, modules = measure(statement, runs)
        print(f"{statement:42} {seconds * 1000:7.1f} ms  {seconds / baseline:5.2f} x  {modules:4} modules")


if __name__ == "__main__":
    main()
