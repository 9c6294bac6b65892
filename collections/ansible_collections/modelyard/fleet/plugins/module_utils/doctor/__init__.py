"""From what was seen of a fleet to what is wrong with it. Pure: the action plugin ``doctor`` gathers and shows."""
