"""Faults on purpose: damaged folders, killed and stopped commands, second writers, full and read-only disks."""
