"""Errors a user can act on: one clear line, exit code 2."""

from __future__ import annotations


class UserError(Exception):
    """Bad input. The message is one line and says what to change."""
