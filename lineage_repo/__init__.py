"""Reference architectures; the seed among them is the root of every lab's git repository."""
