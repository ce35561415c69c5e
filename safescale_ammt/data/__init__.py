"""From a raw table to typed splits: groups, encodings, audit, counts."""
