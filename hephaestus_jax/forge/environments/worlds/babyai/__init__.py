"""BabyAI: rooms of a grid, in words."""
