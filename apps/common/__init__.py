"""What every application shares: configuration, data streams, fitting, tuning, reporting."""
