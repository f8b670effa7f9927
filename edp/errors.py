"""What a user's mistake is raised as."""


class InputError(ValueError):
    """A mistake in what the user gave: a setting, a file, a directory.

    The message is one line that names the thing, what was found and what would
    be accepted. The commands print it without a traceback and exit with code 2.
    """
