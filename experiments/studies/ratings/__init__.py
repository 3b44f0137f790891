"""Do fitted users predict ratings as well as matrix factorisation does?"""
