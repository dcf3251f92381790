"""Plan, make, roll back and remove deployments of a stage."""
