"""Several users before one slate: groups of a world's users, what their answers are worth, and the world they live in."""
