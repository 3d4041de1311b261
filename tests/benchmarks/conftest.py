"""Puts the scripts of benchmarks/ within reach: they are run from their folder, and are no package."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[2] / "benchmarks"))
