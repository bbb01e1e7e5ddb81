"""Limits on what a visitor may ask for by the hour, in each process's memory.

They keep a robot from filling the outbox; guessing passwords is counted in the database (allocator.sign_in).
"""

from __future__ import annotations

import hashlib

from flask import Flask, request
from flask_limiter import Limiter

from allocator.accounts.sign_in import network
from allocator.inputs import email_key
from web.identity import current_actor


def visitor() -> str:
    """Where the request comes from: the address, or the subscriber's IPv6 network."""
    return network(request.remote_addr or "")


def person_or_visitor() -> str:
    """Who asks, if they have signed in, else from where."""
    person = current_actor().person_id
    return f"person {person}" if person else visitor()


def typed_email() -> str:
    """The address that the form means, however spelt; hashed: memory dumps should not list people."""
    return hashlib.sha256(email_key(request.form.get("email", "")).encode()).hexdigest()


limiter = Limiter(visitor, storage_uri="memory://", headers_enabled=True, strategy="fixed-window")

# A computer class behind one address must be able to register together.
by_address = limiter.limit("60 per hour", methods=["POST"])
# However many addresses somebody has: nobody's letter box is to be filled.
by_email = limiter.limit("5 per hour", key_func=typed_email, methods=["POST"])
by_person = limiter.limit("60 per hour", key_func=person_or_visitor, methods=["POST"])


def init_app(app: Flask) -> None:
    """Count for this application."""
    limiter.init_app(app)
