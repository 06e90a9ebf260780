"""`python -m tools.convert_checkpoint` in a process that ends early: `convert_process.py "kill" | "limit BYTES" ARGS…`.

It is killed where the checkpoint has been written, or files end at so many bytes, as on a full disk.
"""

import os
import resource
import signal
import sys

from hephaestus_jax.checkpoints import Checkpointer
from tools import convert_checkpoint
from tools._command import run

how, *arguments = sys.argv[1:]
if how == "kill":
    close = Checkpointer.close

    def killed(self: Checkpointer) -> None:
        close(self)
        os.kill(os.getpid(), signal.SIGKILL)

    Checkpointer.close = killed  # type: ignore[method-assign]
else:
    limit = int(how.split()[1])
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
run(lambda: convert_checkpoint.main(arguments))
