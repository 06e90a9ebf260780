"""Starts the processes of one run: on this machine, over ssh, on TPU VMs and slices, under Slurm."""
