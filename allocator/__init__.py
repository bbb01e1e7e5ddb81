"""The domain of Kezek: people, applications, quotas, bookings, usage.

Knows nothing of HTTP, Slurm, clocks or files.
"""
