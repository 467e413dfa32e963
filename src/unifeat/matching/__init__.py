"""Who is matched with whom: candidates, filters, methods, hubs, stability, intervals."""
