"""From bytes behind a URI to a raw table: streams, dialects, readers, one spelling."""
