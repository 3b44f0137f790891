"""Policies for groups: what members want each for themselves, put together into one order of the items."""
