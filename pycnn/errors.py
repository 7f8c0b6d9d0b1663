"""Exceptions that are pycnn's own."""


class FormatError(ValueError):
    """A file's content is not what its format demands: damaged, cut short, or lying about itself.

    The message names the file, what was found in it and what was expected. A file that is missing or
    unreadable raises the usual ``OSError`` instead.
    """
