"""What the columns of tables of items and users hold, and what is made of it."""
