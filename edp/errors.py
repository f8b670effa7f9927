"""The exception raised for mistakes of the user."""


class InputError(ValueError):
    """A mistake in the user's input: a setting, a file or a directory.

    The message is one line that names the setting or file, its value and what would
    be accepted. The commands print it without a traceback and exit with code 2.
    """
