"""The jobs of one worker, from claim to outcome: leases, publishing, quarantine, cached responses."""
