"""What follows from a definition: breakpoints, extrema, dead and saturated regions, gains. Computed, never declared."""

from .derived import Facts, Interval, facts

__all__ = ["Facts", "Interval", "facts"]
