"""People's accounts: registration, sign-in, passwords, identity numbers, organisations."""
