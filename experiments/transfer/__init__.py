"""What a policy of one world is worth in another, through text alone."""
