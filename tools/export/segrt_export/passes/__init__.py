"""Graph passes, one file each. A pass finds its pattern by structure and does nothing where it is not there."""
