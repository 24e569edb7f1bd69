"""Errors that a user can cause. Every one derives from `OhmfoldError`.

A message says what was found, what was expected and what to do about it, in one line: the
command line prints it as it is and exits with code 2.
"""


class OhmfoldError(Exception):
    """Base class of every error that ohmfold raises for a user to read."""


class RecipeError(OhmfoldError):
    """A setting is unknown, of the wrong type, out of range, or names a layer that is not there."""


class HardwareError(OhmfoldError):
    """A field of a hardware profile is unknown, of the wrong type or senseless; names its path."""


class DataError(OhmfoldError):
    """A data set, an image array or a label array is missing, empty or not of the expected form."""


class CheckpointError(OhmfoldError):
    """A checkpoint is missing, unreadable, of another model, or of a kind that is not loaded."""


class ModelError(OhmfoldError):
    """A model file is missing, is not ONNX, or holds values (NaN, infinity) that cannot be compiled."""


class UnsupportedError(ModelError):
    """A model holds an operator or a pattern that cannot be run exactly; names node, op and reason."""


class RangeError(ModelError):
    """An accumulator can pass the integer range that the arithmetic contract allows."""


class ExactnessError(OhmfoldError):
    """Two paths that must agree bit for bit do not."""


class TargetError(OhmfoldError):
    """A model cannot be built for a target, or not within its limits."""


class OutputError(OhmfoldError):
    """A file or folder cannot be written."""


class MissingDependencyError(OhmfoldError):
    """Something that a command needs is missing from this machine; says how to install it."""
