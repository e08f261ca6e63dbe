"""epochd trains models over HTTP and records every iteration and epoch."""

from epochd.contract.spec import JobSpec
from epochd.errors import EpochdError

__all__ = ["EpochdError", "JobSpec", "__version__"]

__version__ = "0.1.0"
