"""Accounts: registering, signing in and out, one's own profile, password and sessions."""

from web.account import password, profile, registration, sign_in
from web.account.blueprint import bp

__all__ = ["bp", "password", "profile", "registration", "sign_in"]
