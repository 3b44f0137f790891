"""Items as vectors: what text, knowledge graph, images and sound say of them, in one space."""
