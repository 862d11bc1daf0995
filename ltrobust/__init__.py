"""Long-tailed adversarial robustness: training that resists attack on every class, and measurement to be believed."""
