"""Presets as TOML: `micro`, `mini` and the paper's `20m`, `340m` and `1.3b`."""
