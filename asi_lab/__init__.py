"""asi-lab: a terminal lab that discovers linear-attention architectures by itself."""

__version__ = "0.1.0"
