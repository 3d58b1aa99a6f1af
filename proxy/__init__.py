"""The inference proxy: HTTP in, batches out to model workers."""
