"""The few errors that users see; each message says what was wrong, what was given and what is allowed."""


class RnnbenchError(Exception):
    """Base of every error that this package raises on purpose."""


class SpecError(RnnbenchError, ValueError):
    """A network description that no network can have."""


class ArgumentError(RnnbenchError, ValueError):
    """An array, parameter or option that does not fit the network it was given to."""


class TapeError(RnnbenchError, ValueError):
    """A tape that was used already, or that another network recorded."""


class CaptureError(RnnbenchError, RuntimeError):
    """A call that a CUDA graph cannot hold, made while one is being captured."""


class BackendUnavailable(RnnbenchError, ImportError):
    """A known backend that cannot run here; the message says why and how to mend it."""


class BackendBroken(BackendUnavailable):
    """A backend whose module raises while it is imported, or that cannot even tell its versions."""


class MissingLibrary(RnnbenchError, ImportError):
    """An optional library that a command needs; the message says how to install it."""


class UnknownBackend(RnnbenchError, LookupError):
    """A backend name that nothing registers."""


class SuiteError(RnnbenchError, ValueError):
    """A suite that does not exist or whose file does not read as one."""


class ReferenceFailed(RnnbenchError):
    """The reference did not answer, so nothing could be checked."""


class StoreError(RnnbenchError, ValueError):
    """A results file that cannot be read or written."""


class UnsupportedSystem(RnnbenchError):
    """An operating system on which processes cannot be ended as a check or a run has to."""


class OutputError(RnnbenchError):
    """A standard output that cannot be written to."""


class LeftOut(UserWarning):
    """A file that was passed over, and why; told once for each."""
