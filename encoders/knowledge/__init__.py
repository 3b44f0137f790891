"""The knowledge graph: triples with names, embeddings, and what they say of items."""
