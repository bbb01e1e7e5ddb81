"""From an application to a quota: what is asked for, what is decided, what may be spent."""
