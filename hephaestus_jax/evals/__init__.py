"""What a checkpoint can do: held-out loss."""
