"""Published experiments, run again on this machine, stock beside Headgate."""
