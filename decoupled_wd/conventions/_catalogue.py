"""Every convention that is known here."""

from decoupled_wd.conventions._jax import JAX_RECORDS
from decoupled_wd.conventions._paper import OWN_RECORDS, PAPER_RECORDS
from decoupled_wd.conventions._pytorch import PYTORCH_RECORDS
from decoupled_wd.conventions._record import Convention
from decoupled_wd.conventions._tensorflow import TENSORFLOW_RECORDS
from decoupled_wd.conventions._torch_libraries import TORCH_LIBRARY_RECORDS

CONVENTIONS: tuple[Convention, ...] = (
    *PAPER_RECORDS,
    *OWN_RECORDS,
    *PYTORCH_RECORDS,
    *TORCH_LIBRARY_RECORDS,
    *JAX_RECORDS,
    *TENSORFLOW_RECORDS,
)
"""One record for each optimizer of a library and setting of its options."""
