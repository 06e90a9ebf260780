"""`python -m train --gin_file=FILE [--gin.NAME=VALUE ...] [--dry_run]`: trains, or resumes, one run."""

from hephaestus_jax.distributed import ending_together
from hephaestus_jax.train import main
from tools._command import run

if __name__ == "__main__":
    with ending_together():
        run(main)
