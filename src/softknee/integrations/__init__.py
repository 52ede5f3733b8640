"""Where other libraries ask for an activation: what makes ours known to them."""

from . import transformers

__all__ = ["transformers"]
