"""A small machine to play in: a folder, a shell, a Python interpreter, and no way out of them.

`process.Confined` starts one and speaks to it, `worker` is the process itself, `interpreter` the Python in it. The
isolation is that of the documentation's examples (`forge.doctests.isolation`).
"""
