"""What fitted users feel: groups of items, and what else is in the slate."""
