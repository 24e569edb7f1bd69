"""Hardware profiles: what a ReRAM-like crossbar accelerator is made of, and how far from ideal.

    hardware = load_hardware("reram-128").with_changes({"adc.bits": 6})

Importing this package imports no NumPy and nothing heavier than pydantic.
"""

from .changes import parse_changes
from .converter import AdcLimits
from .describe import non_idealities, remarks
from .load import load_hardware, preset_names, preset_text
from .parts import Adc, Area, Array, Cell, Dac, Drift, Energy, Programming, Read, Stuck, Wires
from .profile import Hardware
from .sweep import Sweep, parse_sweep, shown

__all__ = [
    "Adc",
    "AdcLimits",
    "Area",
    "Array",
    "Cell",
    "Dac",
    "Drift",
    "Energy",
    "Hardware",
    "Programming",
    "Read",
    "Stuck",
    "Sweep",
    "Wires",
    "load_hardware",
    "non_idealities",
    "parse_changes",
    "parse_sweep",
    "preset_names",
    "preset_text",
    "remarks",
    "shown",
]
