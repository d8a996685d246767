"""Released tokenizers: one file per family, with its releases, config mapping and key table."""
