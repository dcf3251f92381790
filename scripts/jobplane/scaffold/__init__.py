"""Create functions from templates, one for each kind of trigger."""
