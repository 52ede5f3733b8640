"""softknee's activations in a model that never heard of them: `kernelize` gives a Kernelization, which reverts."""

from .kernelizing import Kernelization, kernelize
from .survey import Replaced, Skipped
from .trial import Verification

__all__ = ["Kernelization", "Replaced", "Skipped", "Verification", "kernelize"]
