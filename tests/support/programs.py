"""The programs of tools/, which are part of no package, as modules."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

TOOLS = Path(__file__).parents[2] / "tools"


def load(name: str) -> Any:
    """Import a program of tools/."""
    described = importlib.util.spec_from_file_location(f"{name}_tool", TOOLS / f"{name}.py")
    assert described is not None
    assert described.loader is not None
    module = importlib.util.module_from_spec(described)
    sys.modules[module.__name__] = module
    described.loader.exec_module(module)
    return module
