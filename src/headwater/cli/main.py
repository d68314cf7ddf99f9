"""`headwater`: runs a command and turns what goes wrong into one sentence and an exit code."""

import sys

from headwater.cli import carry, choose, learn, look, study
from headwater.cli.app import app
from headwater.core.errors import RequestError, WorkError

COMMANDS = (learn, look, carry, choose, study)  # importing them adds their commands to the application


def main() -> None:
    """Exit code 0: done. 1: the work failed. 2: the request was wrong."""
    try:
        app()
    except RequestError as error:
        _fail(str(error), 2)
    except WorkError as error:
        _fail(str(error), 1)
    except BrokenPipeError:
        sys.exit(0)


def _fail(message: str, code: int) -> None:
    print(f"headwater: {message}", file=sys.stderr)
    sys.exit(code)


if __name__ == "__main__":
    main()
