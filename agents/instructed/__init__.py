"""A policy that works out what users want from words, takes and ratings, and learns what words mean."""
