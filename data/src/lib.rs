//! Text to token batches: sources, tokenizers, token shards and the assignment of sequences to peers.
