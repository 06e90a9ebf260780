"""The train step compiled for TPUs that are not there: what it holds, computes and sends, from the compiled program.

    topologies   names of TPU slices, what a chip of each generation has, libtpu's description of one
    hlo          a compiled program's text as instructions
    costs        what the instructions compute, read and send, loops times their trip counts
    groups       which devices a collective joins, and over which mesh axes
    kernels      what custom kernels compute, by formula
    moves        what collectives move: weights, gradients, activations or sums
    roofline     the least time that a step can take, and the assumptions
    check        the real train step of a configuration, compiled for a topology
    report       all of it in words
    suggest      what would fit, cheapest first

`python -m tools.compile_check` is the command.
"""
