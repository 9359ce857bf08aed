"""The explanation as one page that needs nothing else."""
