"""Training on a workstation: data sets, networks, the paper's protocol, measures."""
