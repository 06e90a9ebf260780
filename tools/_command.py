"""What every command-line tool does around its own work."""

from __future__ import annotations

import sys
from collections.abc import Callable

from hephaestus_jax.errors import UserError


def run(main: Callable[[], None]) -> None:
    """Runs `main`; a `UserError` becomes one line on standard error and exit status 2."""
    try:
        main()
    except UserError as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("interrupted; run the same command again to resume", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:  # the reader of our output (head, less) went away
        sys.stderr.close()
        sys.exit(141)
