"""How the programs of tests are compiled.

They run once or twice, so that optimising their machine code takes longer than running it: `conftest.py` has XLA leave
that out, here and in the processes that tests start. A test that is about what optimised code does asks for it.
"""

from importlib.metadata import version

_HAS_EMITTERS = tuple(map(int, version("jax").split(".")[:2])) < (0, 11)  # XLA ends a process for a flag it lacks

QUICK = "--xla_backend_optimization_level=0"  # for XLA_FLAGS
if _HAS_EMITTERS:
    QUICK += " --xla_cpu_use_fusion_emitters=false"
FUSED = {"xla_cpu_use_fusion_emitters": True} if _HAS_EMITTERS else {}  # options of jax.jit: fused as in use
OPTIMISED = {"xla_backend_optimization_level": 3, **FUSED}  # and their machine code optimised too
