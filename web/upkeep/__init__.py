"""Pages of capacity that changes: outages, repairs, nodes over time, bookings that had to move."""
