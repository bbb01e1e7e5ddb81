"""What Kezek tells Prometheus: applications, quotas, bookings, their use, and the machinery's own health."""
