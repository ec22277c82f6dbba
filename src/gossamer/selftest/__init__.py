"""The native kernels of this machine against exact arithmetic, on small random operands.

For whoever doubts an installation or a processor. The tests of gossamer try far more shapes and
formats, but on other machines.
"""

from gossamer.selftest.cases import Case, draw_cases
from gossamer.selftest.comparison import Comparison, compare
from gossamer.selftest.targets import Outcome, run

__all__ = ["Case", "Comparison", "Outcome", "compare", "draw_cases", "run"]
