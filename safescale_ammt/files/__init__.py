"""Files on this disk: artifacts, canonical JSON and its digests, YAML, full disks."""
