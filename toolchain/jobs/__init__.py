"""Independent jobs: in this process, in processes beside it, or on a Dask cluster, always with the same results."""

from .bench import Bench, Package, Parts, array_from
from .crew import Alone, Crew, check_crew, hire, in_order

__all__ = [
    "Alone",
    "Bench",
    "Crew",
    "Package",
    "Parts",
    "array_from",
    "check_crew",
    "hire",
    "in_order",
]
