"""Adapters for clusters; ``connect()`` picks one by the site's settings."""
