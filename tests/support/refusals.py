"""Checks that commands refuse bad input in one line and write nothing."""

from launching import snapshot


def settings(**changes):
    """Returns flags that change settings; a double underscore is a dot."""
    return [f"--config.{key.replace('__', '.')}={v}" for key, v in changes.items()]


def assert_refused(done, words, places):
    """Asserts that a command ended with an error of one line with all `words`."""
    assert done.code == 2, done
    assert done.stdout == ""
    assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1
    for word in words:
        assert word.format(**places) in done.stderr, done.stderr


def check(server, places, directory, command, flags, words):
    """Checks that a command refuses flags in one line with `words`, and writes nothing.

    Args:
      server: that runs it.
      places: name -> path, for names in braces in `flags` and `words`.
      directory: the test's own, in which it would write.
      command: name of the command.
      flags: its flags.
      words: parts of the message.
    """
    flags = [flag.format(**places) for flag in flags]
    roots = [directory, places["root"], places["finished"]]
    before = [snapshot(root) for root in roots]
    assert_refused(server.run(command, *flags), words, places)
    assert [snapshot(root) for root in roots] == before
