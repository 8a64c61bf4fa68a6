"""The errors a user can act on.

The message names the file, the field and the way out; the command line prints it without a traceback.
"""


class EcgscaleError(Exception):
    """A problem the user can solve. Anything else that escapes is a bug of ours and keeps its traceback."""


class SpecError(EcgscaleError):
    """A sweep file or a trial spec says something that can't be run."""


class DataError(EcgscaleError):
    """A data folder or a record can't be used as it is."""


class FitError(EcgscaleError):
    """No usable estimate of a law exists: too few points, too few levels, degenerate or non-finite input."""
