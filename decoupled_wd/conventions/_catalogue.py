"""Every convention that is known here."""

from decoupled_wd.conventions._paper import OWN_RECORDS, PAPER_RECORDS
from decoupled_wd.conventions._pytorch import PYTORCH_RECORDS
from decoupled_wd.conventions._record import Convention

CONVENTIONS: tuple[Convention, ...] = (*PAPER_RECORDS, *OWN_RECORDS, *PYTORCH_RECORDS)
"""One record for each optimizer of a library and setting of its options."""
