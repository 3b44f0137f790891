"""Several users before one slate: groups of a world's users, what a slate is worth to them, and their world."""
