"""A step in machine code on the CPU, for families that bring their tables: numba loops over packed lanes."""
