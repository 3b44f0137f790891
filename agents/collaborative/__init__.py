"""Collaborative filtering: recommenders that know items by who consumed them together, and users by what they consumed.

Every one is fitted on the train users and asked for users whom it never met: a user is the items of the live history,
so no policy here keeps anything of a single user.
"""
