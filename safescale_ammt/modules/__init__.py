"""Any `torch.nn.Module` as agents under a constitution: the public trainer."""
