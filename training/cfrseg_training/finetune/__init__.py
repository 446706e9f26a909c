"""Fine-tuning on one's own labels, and the gate that keeps only what is better."""
