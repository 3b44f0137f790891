"""Policies before groups of users: what each does for the members, and for whom."""
