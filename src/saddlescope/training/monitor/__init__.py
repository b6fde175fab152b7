"""Watch a running training: free signals every step, curvature on a budget."""
