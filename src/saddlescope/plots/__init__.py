"""Results as axes: every function draws what it is given and returns the axes; none computes or saves."""
