"""The command, and `python -m prefork`: a word about the system, then `cli`."""

import sys

from prefork.errors import PlatformError
from prefork.system import require_platform


def main() -> int:
    """Run the command; return its exit status."""
    try:
        require_platform()
    except PlatformError as error:
        print(f"prefork: error: {error}", file=sys.stderr)
        return error.exit_status
    try:
        from prefork import cli  # noqa: PLC0415 # elsewhere its imports would fail
    except KeyboardInterrupt:  # they take a moment, and a person may have thought better of it
        return 0
    return cli.main()


if __name__ == "__main__":
    sys.exit(main())
