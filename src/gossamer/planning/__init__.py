"""What a model would cost on chips that are not at hand: seconds, bytes, joules.

Everything is arithmetic on shapes, recipes and chips: nothing here runs a model or needs a device.
"""

from gossamer.planning.chips import Chip, builtin_chips, find_chip, read_chips

__all__ = ["Chip", "builtin_chips", "find_chip", "read_chips"]
