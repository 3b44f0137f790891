"""What a person says they want, as a vector."""
