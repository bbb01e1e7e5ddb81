"""Private Slurm clusters for tests, benchmarks and `make run CLUSTER=slurm`; standard library only."""
