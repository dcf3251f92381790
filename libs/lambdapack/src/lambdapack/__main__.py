"""The command: `lambdapack`, and `python -m lambdapack`."""

import os
import sys


def main() -> None:
    """Run the command without the modules of PYTHONPATH, which could hide those that it needs."""
    here = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))  # noqa: PTH100, PTH120
    entries = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    foreign = {os.path.abspath(entry) for entry in entries if entry} - {here}  # noqa: PTH100
    sys.path[:] = [entry for entry in sys.path if entry not in foreign]
    from lambdapack._cli import main as command

    command(prog_name="lambdapack")


if __name__ == "__main__":
    main()
