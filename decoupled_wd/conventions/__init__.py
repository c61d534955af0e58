"""What each library does with `weight_decay`: records, and `convert` between them."""

from decoupled_wd.conventions._catalogue import CONVENTIONS
from decoupled_wd.conventions._convert import Conversion, NoCounterpart, convert
from decoupled_wd.conventions._record import Convention, Unit
from decoupled_wd.conventions._rule import Missing

__all__ = [
    "CONVENTIONS",
    "Convention",
    "Conversion",
    "Missing",
    "NoCounterpart",
    "Unit",
    "convert",
]
