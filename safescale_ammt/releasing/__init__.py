"""Releasing: ledger, registry, record, card and the bundle."""
