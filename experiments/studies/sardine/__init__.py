"""A world that nobody here wrote: SARDINE's users, plugged in, write logs and say which policies are truly better."""
