"""The truth study: do fitted users rank, value and doubt policies as the truth does?"""
