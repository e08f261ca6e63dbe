"""Installed packages with models of an operator's, as an installer leaves them: a module and its metadata."""

import itertools
from pathlib import Path

_numbers = itertools.count(1)

BUILD = """
from torch import nn

def build(data, parameters):
    return nn.Sequential(nn.Flatten(), nn.LazyLinear(data.outputs))
"""
WIDE = '''"""One hidden layer."""
from pydantic import BaseModel, Field
from torch import nn

TASKS = ("classification",)
KINDS = ("table",)

class Parameters(BaseModel):
    width: int = Field(16, ge=1, le=4096)
    rates: list[float] = Field(default_factory=lambda: [0.5])

def build(data, parameters):
    layers = (nn.Linear(*data.input_shape, parameters.width), nn.ReLU(), nn.Linear(parameters.width, data.outputs))
    return nn.Sequential(*layers)
'''


def install(
    folder: Path, code: str, *names: str, package: str = "acme-models", version: str = "1.2.0"
) -> str:
    """Put a package on a path; its entry points have these names. Returns its module's name, new each time."""
    module = f"acme_{next(_numbers)}"
    metadata = folder / f"{package.replace('-', '_')}-{version}.dist-info"
    metadata.mkdir(parents=True)
    (folder / f"{module}.py").write_text(code)
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: {version}\n")
    points = "\n".join(f"{name} = {module}" for name in names)
    (metadata / "entry_points.txt").write_text(f"[epochd.models]\n{points}\n")
    return module
