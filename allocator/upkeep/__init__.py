"""Capacity that changes: outages, failed nodes, nodes that join or leave, and how bookings are mended."""
