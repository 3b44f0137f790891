"""Users who say what they want: worlds of them, talking as one of them, and what hearing them is worth."""
