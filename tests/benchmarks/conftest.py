"""Makes the scripts in benchmarks/ importable; they are part of a checkout only."""

import sys
from pathlib import Path

FOLDER = Path(__file__).parents[2] / "benchmarks"
if FOLDER.is_dir():
    sys.path[:0] = [str(FOLDER), str(FOLDER / "gpu")]
else:
    collect_ignore_glob = ["test_*.py"]
