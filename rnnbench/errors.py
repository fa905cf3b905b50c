"""Errors raised by this package; each message says what is wrong, the value given and the values allowed."""


class RnnbenchError(Exception):
    """Base class of all errors that this package raises deliberately."""


class SpecError(RnnbenchError, ValueError):
    """Invalid network description."""


class ArgumentError(RnnbenchError, ValueError):
    """Array, parameter or option that does not fit the network."""


class TapeError(RnnbenchError, ValueError):
    """Tape that was already used, or that another network recorded."""


class CaptureError(RnnbenchError, RuntimeError):
    """Call that a CUDA graph cannot contain, made during capture."""


class BackendUnavailable(RnnbenchError, ImportError):
    """Registered backend that cannot run here; the message says why and how to fix it."""


class BackendBroken(BackendUnavailable):
    """Backend whose import or ``info()`` raises an exception."""


class MissingLibrary(RnnbenchError, ImportError):
    """Missing optional library; the message says how to install it."""


class UnknownBackend(RnnbenchError, LookupError):
    """Backend name that is not registered, or a module that is not a backend."""


class SuiteError(RnnbenchError, ValueError):
    """Suite that does not exist or whose file is invalid."""


class ReferenceFailed(RnnbenchError):
    """Failure of the reference, without which nothing can be checked."""


class StoreError(RnnbenchError, ValueError):
    """Results file that cannot be read or written."""


class UnsupportedSystem(RnnbenchError):
    """Operating system without the process control that checks and runs need."""


class OutputError(RnnbenchError):
    """Standard output that cannot be written to."""


class LeftOut(UserWarning):
    """Skipped file and the reason; issued once per file."""


class Diverged(RnnbenchError, ArithmeticError):
    """Training whose loss or gradient is not finite; the message names step and tensor."""
