"""How often the gates let the truth pass, and stop what is planted to fail."""
