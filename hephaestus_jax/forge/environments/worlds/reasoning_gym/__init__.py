"""reasoning-gym: problems with exact answers."""
