"""The config: one frozen dataclass per section, parsed and checked where it is made."""
