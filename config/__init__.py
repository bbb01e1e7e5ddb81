"""What a site sets: settings, policy, logging, the `kezek` command and the labs."""
