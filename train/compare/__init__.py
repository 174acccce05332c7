"""Networks side by side: arms, probes, pairs, and the page of a study."""
