"""Policies of one world that serve another, through the texts of its items alone."""
