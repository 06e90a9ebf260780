"""What the environments of tasks that are checked by running something have in common."""
