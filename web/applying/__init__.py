"""Pages from an application to a quota: asking, deciding, what may be spent."""
