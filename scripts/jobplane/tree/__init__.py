"""The repository: its functions, resources and configuration, as they are written."""
