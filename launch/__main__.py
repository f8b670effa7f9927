"""All commands as one: `edp run --config=digits --workdir=runs/digits`."""

import ast
import pathlib
import runpy
import sys

from . import endings

_GUARD = 'if __name__ == "__main__":'


def find_commands() -> dict[str, str]:
    """The modules beside this one that are commands, and the first line of each."""
    sources = {
        path.stem: path.read_text(encoding="utf-8")
        for path in sorted(pathlib.Path(__file__).parent.glob("[!_]*.py"))
    }
    return {
        name: (ast.get_docstring(ast.parse(source)) or "").partition("\n")[0]
        for name, source in sources.items()
        if _GUARD in source
    }


def main() -> None:
    """Runs the command that is named first, as `python -m` runs its module."""
    name, *rest = sys.argv[1:] or ["--help"]
    commands = find_commands()
    if name in commands:
        sys.argv = [f"edp {name}", *rest]
        runpy.run_module(f"{__package__}.{name}", run_name="__main__", alter_sys=True)
    elif name in ("--help", "-h", "help"):
        width = max(map(len, commands))
        for command, what in commands.items():
            print(f"edp {command:<{width}}  {what}")
        print("\nedp COMMAND --help tells more of one; --helpfull all of its flags.")
    else:
        accepted = ", ".join(commands)
        endings.bad_input(LookupError(f"no command {name!r}; accepted: {accepted}"))


if __name__ == "__main__":
    main()
