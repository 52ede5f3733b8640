"""What follows from a definition: extrema, roots, shape, regions, Lipschitz constants, gains, how deep a signal goes.

Computed, never declared: intervals.py encloses, proofs.py bisects, pieces.py cuts at breakpoints, moments.py
integrates, signals.py follows variances through depth, derived.py is what users see, store.py keeps it on disk.
"""

from .derived import Facts, Interval, Line, Point, Smoothness, facts
from .moments import Moments
from .signals import FixedPoint, Signal

__all__ = ["Facts", "FixedPoint", "Interval", "Line", "Moments", "Point", "Signal", "Smoothness", "facts"]
