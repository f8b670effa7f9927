"""None as the value of a setting on the command line: `--config.KEY=None`.

The parsers of ml_collections read it as an invalid number, as the text "None" or, for
a tuple, as (None,). The config validators decide which settings accept None.
"""

import functools
from typing import Any

import ml_collections
from absl import flags
from ml_collections import config_flags


class _NoneOr(flags.ArgumentParser):
    """Parser of one type that reads the text None as None."""

    def __init__(self, parser: flags.ArgumentParser):
        self._parser = parser
        self.syntactic_help = parser.syntactic_help

    def parse(self, argument: Any) -> Any:
        return None if argument == "None" else self._parser.parse(argument)

    def flag_type(self) -> str:
        return self._parser.flag_type()


@functools.cache
def register() -> None:
    """Makes flags of int, float, bool and str settings accept None."""
    parsers: dict[type, flags.ArgumentParser] = {
        int: flags.IntegerParser(),
        float: flags.FloatParser(),
        bool: flags.BooleanParser(),
        str: flags.ArgumentParser(),
    }
    for kind, parser in parsers.items():
        config_flags.register_flag_parser_for_type(kind, _NoneOr(parser))


def set_tuples(config: ml_collections.ConfigDict, flag: flags.Flag) -> None:
    """Sets to None the tuples of a config that its parsed flags gave as None."""
    for key, value in config_flags.get_override_values(flag).items():
        if value == (None,):
            *path, last = key.split(".")
            section = functools.reduce(lambda node, name: node[name], path, config)
            section[last] = None
