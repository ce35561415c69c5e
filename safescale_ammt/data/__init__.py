"""From raw tables to typed splits: sources, schema, encodings, audit, counts."""
