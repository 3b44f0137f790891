"""The batched simulation: the core, what an action shows, and who arrives."""
