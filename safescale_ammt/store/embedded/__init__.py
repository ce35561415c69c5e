"""The embedded object store: a real SeaweedFS on loopback, and its supervisor."""
